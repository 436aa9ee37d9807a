//! `wss://` against a certificate of our own.

use std::sync::Arc;

use crate::broker::{Broker, Peer, patiently};
use cauce_client::{Client, ErrorKind, Options, Payload, Reconnect};
use cauce_protocol::wire;
use rcgen::CertifiedKey;

fn certified() -> CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn acceptor(certified: &CertifiedKey<rcgen::KeyPair>) -> tokio_rustls::TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn a_broker_with_a_trusted_certificate_is_talked_to() {
    let certified = certified();
    let broker = Broker::start().await;
    let serve = async {
        let socket = acceptor(&certified)
            .accept(broker.accept_raw().await)
            .await
            .unwrap();
        let mut peer = Peer::new(socket).await;
        peer.welcome().await;
        let (id, _) = peer.next().await;
        peer.reply(id, wire::Published::default()).await;
        peer
    };
    let options =
        Options::new(format!("wss://localhost:{}/v1/ws", broker.port())).roots_pem(certified.cert.pem());
    let publish = async {
        let client = Client::connect(options).await.unwrap();
        client.publish("a", "e", Payload::NULL).await.unwrap();
    };
    tokio::join!(serve, publish);
}

#[tokio::test]
async fn a_broker_with_another_certificate_is_refused() {
    let broker = Broker::start().await;
    let serve = async {
        let refused = acceptor(&certified()).accept(broker.accept_raw().await).await;
        assert!(refused.is_err());
    };
    let options = Options::new(format!("wss://localhost:{}/v1/ws", broker.port()))
        .roots_pem(certified().cert.pem())
        .reconnect(Reconnect::AfterWelcome);
    let (_, client) = tokio::join!(serve, patiently(Client::connect(options)));
    assert_eq!(client.unwrap_err().kind(), ErrorKind::Connect);
}

#[test]
fn roots_that_are_none_are_refused_before_dialling() {
    for roots in ["", "nonsense"] {
        let error = Client::start(Options::new("wss://localhost/v1/ws").roots_pem(roots)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
