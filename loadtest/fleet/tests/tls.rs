//! Dialling with TLS: the three kinds of trust a device can have.

use cauce_fleet::{Fleet, FleetError, FleetOptions, Reach, TargetError, Tokens, Trust};
use futures_util::StreamExt as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// How long a test waits for something that should come at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// A WebSocket server with a certificate of its own. Returns its address and the certificate.
async fn serve() -> (SocketAddr, String) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("a usable certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
                    return;
                };
                while let Some(Ok(_)) = socket.next().await {}
            });
        }
    });
    (address, own.cert.pem())
}

fn fleet(address: SocketAddr, trust: Trust) -> Result<Fleet, FleetError> {
    let url = format!("wss://localhost:{}/shelly", address.port());
    let mut options = FleetOptions::outbound("ws://unused/", Tokens::None, 3).expect("options");
    options.reach = Reach::Outbound {
        url,
        tokens: Tokens::Shared("s3cret".into()),
        trust,
    };
    options.ramp = Duration::from_millis(10);
    // A plain server accepts no subprotocol, which some devices insist on having; one that does not is enough.
    Fleet::start(options)
}

async fn until(fleet: &Fleet, enough: impl Fn(cauce_fleet::Totals) -> bool) {
    let wait = async {
        while !enough(fleet.snapshot().totals) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("in time");
}

#[tokio::test]
async fn devices_trust_the_authority_they_were_given() {
    let (address, certificate) = serve().await;
    let fleet = fleet(address, Trust::Authorities(certificate.into_bytes())).expect("started");
    until(&fleet, |totals| totals.full_frames >= 1).await;
    fleet.stop().await;
}

#[tokio::test]
async fn devices_that_trust_anything_trust_anyone() {
    let (address, _) = serve().await;
    let fleet = fleet(address, Trust::Anything).expect("started");
    until(&fleet, |totals| totals.full_frames >= 1).await;
    fleet.stop().await;
}

#[tokio::test]
async fn devices_refuse_a_stranger_and_send_it_nothing() {
    let (address, _) = serve().await;
    let (_, other_certificate) = serve().await;
    let fleet = fleet(address, Trust::Authorities(other_certificate.into_bytes())).expect("started");
    until(&fleet, |totals| totals.connect_failures >= 3).await;
    let totals = fleet.stop().await.totals;
    assert_eq!((totals.connects, totals.frames_sent()), (0, 0));
}

#[tokio::test]
async fn authorities_that_are_none_are_refused_at_once() {
    let (address, _) = serve().await;
    for pem in [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let error = fleet(address, Trust::Authorities(pem.into())).expect_err("refused");
        assert_eq!(error, FleetError::Target(TargetError::Authorities), "{pem}");
    }
}
