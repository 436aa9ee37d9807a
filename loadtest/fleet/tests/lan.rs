//! LAN devices over real sockets: HTTP, WebSocket, digest, channels.

use cauce_fleet::digest::{Signature, WEBSOCKET_HA2};
use cauce_fleet::{CHANNELS_MAX, Fleet, FleetError, FleetOptions, LanBind, ModelMix, Password};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// How long a test waits for something that should come at once.
const PATIENCE: Duration = Duration::from_secs(60);
const FREE_PORT: LanBind = LanBind::Ports {
    ip: Ipv4Addr::LOCALHOST,
    first: 0,
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn start(
    models: &str,
    password: Option<&str>,
    change: impl FnOnce(&mut FleetOptions),
) -> (Fleet, SocketAddr) {
    let password = password.map(|password| Password(password.to_owned()));
    let mut options = FleetOptions::lan(FREE_PORT, password, 1).expect("options");
    options.models = ModelMix::parse(models).expect("a list");
    change(&mut options);
    let fleet = Fleet::start(options).expect("started");
    let address = fleet.addresses()[0];
    (fleet, address)
}

async fn connect(address: SocketAddr) -> Socket {
    tokio_tungstenite::connect_async(format!("ws://{address}/rpc"))
        .await
        .expect("connected")
        .0
}

async fn send(socket: &mut Socket, frame: Value) {
    socket
        .send(Message::Text(frame.to_string().into()))
        .await
        .expect("sent");
}

async fn receive(socket: &mut Socket) -> Value {
    loop {
        let message = timeout(PATIENCE, socket.next())
            .await
            .expect("in time")
            .expect("open")
            .expect("a frame");
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).expect("JSON");
        }
    }
}

/// The next frame that satisfies `wanted`.
async fn until(socket: &mut Socket, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let frame = receive(socket).await;
        if wanted(&frame) {
            return frame;
        }
    }
}

async fn http(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .expect("in time")
        .expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (String, Value) {
    let (head, body) = http(address, &format!("GET {path} HTTP/1.1\r\nHost: device\r\n\r\n")).await;
    (head, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn http_answers_like_a_device() {
    let (fleet, address) = start("plugsg3", None, |_| {});
    let id = fleet.devices().next().expect("a device").to_string();
    let (head, info) = get(address, "/shelly").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("Connection: close"));
    assert_eq!(
        (&info["id"], &info["gen"], &info["auth_en"]),
        (&json!(id), &json!(3), &json!(false))
    );
    let (_, was) = get(address, "/rpc/Switch.Set?id=0&on=true&toggle_after=3600").await;
    assert!(was["was_on"].is_boolean());
    assert_eq!(
        get(address, "/rpc/switch.getstatus?id=0").await.1["source"],
        "HTTP_in"
    );
    let (head, error) = get(address, "/rpc/Switch.GetStatus?id=7").await;
    assert!(head.starts_with("HTTP/1.1 500"));
    assert_eq!(error["code"], -105);
    assert!(
        get(address, "/rpc/Nonsense.Do")
            .await
            .0
            .starts_with("HTTP/1.1 404")
    );
    assert!(get(address, "/elsewhere").await.0.starts_with("HTTP/1.1 404"));

    let frame = json!({"id": 1, "method": "Switch.Toggle", "params": {"id": 0}}).to_string();
    let request = format!(
        "POST /rpc HTTP/1.1\r\nContent-Length: {}\r\n\r\n{frame}",
        frame.len()
    );
    let reply: Value = serde_json::from_str(&http(address, &request).await.1).expect("JSON");
    assert_eq!(reply, json!({"id": 1, "src": id, "result": {"was_on": true}}));
    assert!(fleet.stop().await.totals.reply_frames >= 4);
}

#[tokio::test]
async fn a_channel_is_silent_until_it_gave_a_name_and_then_hears_under_that_name() {
    let (fleet, address) = start("plugsg3", None, |options| options.rate = Some(20.0));
    let (mut silent, mut first, mut second) = (
        connect(address).await,
        connect(address).await,
        connect(address).await,
    );
    send(
        &mut first,
        json!({"id": 1, "src": "first", "method": "Sys.GetStatus"}),
    )
    .await;
    send(
        &mut second,
        json!({"id": "1", "src": "second", "method": "Sys.GetStatus"}),
    )
    .await;
    send(&mut silent, json!({"id": 1, "method": "Sys.GetStatus"})).await;
    for (socket, name) in [(&mut first, "first"), (&mut second, "second")] {
        for _ in 0..5 {
            assert_eq!(
                until(socket, |frame| frame["method"] == "NotifyStatus").await["dst"],
                name
            );
        }
    }
    // The nameless one got its answer, and nothing else while the others got many.
    let answer = receive(&mut silent).await;
    assert!(answer["result"]["mac"].is_string() && answer.get("dst").is_none());
    assert!(timeout(Duration::from_millis(300), silent.next()).await.is_err());
    fleet.stop().await;
}

#[tokio::test]
async fn what_one_channel_switches_all_channels_hear() {
    let (fleet, address) = start("pstripg4", None, |_| {});
    let (mut one, mut other) = (connect(address).await, connect(address).await);
    send(
        &mut other,
        json!({"id": 1, "src": "other", "method": "Switch.GetStatus", "params": {"id": 3}}),
    )
    .await;
    until(&mut other, |frame| frame["id"] == 1).await;
    send(
        &mut one,
        json!({"id": 2, "src": "one", "method": "Switch.Toggle", "params": {"id": 3}}),
    )
    .await;
    for socket in [&mut one, &mut other] {
        let delta = until(socket, |frame| frame["params"]["switch:3"]["output"].is_boolean()).await;
        assert_eq!(delta["params"]["switch:3"]["source"], "WS_in");
    }
    fleet.stop().await;
}

#[tokio::test]
async fn six_channels_and_no_more() {
    let (fleet, address) = start("plugsg3", None, |_| {});
    let mut sockets = Vec::new();
    for _ in 0..CHANNELS_MAX {
        sockets.push(connect(address).await);
    }
    assert!(get(address, "/shelly").await.0.starts_with("HTTP/1.1 503"));
    assert!(
        tokio_tungstenite::connect_async(format!("ws://{address}/rpc"))
            .await
            .is_err()
    );
    drop(sockets.pop());
    let again = async {
        while !get(address, "/shelly").await.0.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, again)
        .await
        .expect("a channel that ended is free again");
    fleet.stop().await;
}

#[tokio::test]
async fn a_password_guards_everything_but_the_info() {
    let (fleet, address) = start("plugsg3", Some("s3cret"), |_| {});
    let (_, info) = get(address, "/shelly").await;
    assert_eq!(
        (&info["auth_en"], &info["auth_domain"]),
        (&json!(true), &info["id"])
    );
    assert!(
        get(address, "/rpc/Shelly.GetDeviceInfo")
            .await
            .0
            .starts_with("HTTP/1.1 200")
    );
    let (head, _) = get(address, "/rpc/Shelly.GetStatus").await;
    assert!(head.starts_with("HTTP/1.1 401") && head.contains("WWW-Authenticate: Digest qop=\"auth\""));
    let mut socket = connect(address).await;
    send(
        &mut socket,
        json!({"id": 9, "src": "x", "method": "Shelly.GetStatus"}),
    )
    .await;
    let refused = until(&mut socket, |frame| frame["id"] == 9).await;
    assert_eq!(refused["error"]["code"], 401);
    let challenge: Value =
        serde_json::from_str(refused["error"]["message"].as_str().expect("text")).expect("JSON in a string");
    assert_eq!((&challenge["realm"], &challenge["nc"]), (&info["id"], &json!(1)));
    assert!(challenge["nonce"].is_u64());
    fleet.stop().await;
}

#[tokio::test]
async fn firmware_two_hands_out_opaque_nonces_and_locks_out_guessers() {
    let (fleet, address) = start("plugsg3", Some("s3cret"), |options| {
        options.firmware = Some("2.0.0".parse().expect("a version"));
    });
    let mut socket = connect(address).await;
    let mut codes = Vec::new();
    for id in 0..20 {
        let auth = json!({"realm": "x", "username": "admin", "nonce": "x", "nc": id, "cnonce": "x", "response": "x"});
        assert!(Signature::from_frame(&auth).is_some() && WEBSOCKET_HA2.len() == 64);
        send(
            &mut socket,
            json!({"id": id, "src": "x", "method": "Switch.Toggle", "params": {"id": 0}, "auth": auth}),
        )
        .await;
        codes.push(
            until(&mut socket, |frame| frame["id"] == id).await["error"]["code"]
                .as_i64()
                .expect("an error"),
        );
    }
    assert_eq!((codes[0], codes[19]), (401, 429));
    fleet.stop().await;
}

#[tokio::test]
async fn garbage_is_refused_and_disturbs_no_neighbour() {
    let (fleet, address) = start("plugsg3", None, |_| {});
    let mut good = connect(address).await;
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000)), "431"),
        (
            "POST /rpc HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n".to_owned(),
            "413",
        ),
        (
            "POST /rpc HTTP/1.1\r\nContent-Length: 3\r\n\r\n{x}".to_owned(),
            "400",
        ),
        ("PUT /rpc HTTP/1.1\r\n\r\n".to_owned(), "405"),
    ] {
        let (head, _) = http(address, &request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
    let mut bad = connect(address).await;
    for text in ["", "{", "[1]", "{\"id\":1}", "\u{0}"] {
        bad.send(Message::Text(text.into())).await.expect("sent");
    }
    bad.send(Message::Binary(vec![0; 100].into()))
        .await
        .expect("sent");
    send(&mut bad, json!({"id": 1, "method": "Ws.GetStatus"})).await;
    assert_eq!(receive(&mut bad).await["id"], 1);
    // Too large a frame ends the connection that sent it, and only that.
    let _ = bad.send(Message::Text("x".repeat(100_000).into())).await;
    while let Ok(Some(Ok(_))) = timeout(PATIENCE, bad.next()).await {}
    send(&mut good, json!({"id": 2, "method": "Ws.GetStatus"})).await;
    assert_eq!(receive(&mut good).await["id"], 2);
    fleet.stop().await;
}

#[tokio::test]
async fn a_reboot_drops_all_channels_and_the_device_comes_back() {
    let (fleet, address) = start("plugsg3", None, |_| {});
    let mut socket = connect(address).await;
    send(
        &mut socket,
        json!({"id": 1, "src": "x", "method": "Shelly.Reboot", "params": {"delay_ms": 50}}),
    )
    .await;
    assert_eq!(
        until(&mut socket, |frame| frame["id"] == 1).await["result"],
        Value::Null
    );
    while let Ok(Some(Ok(_))) = timeout(PATIENCE, socket.next()).await {}
    let back = async {
        loop {
            if let Ok((mut socket, _)) = tokio_tungstenite::connect_async(format!("ws://{address}/rpc")).await
            {
                send(
                    &mut socket,
                    json!({"id": 2, "src": "x", "method": "Sys.GetStatus"}),
                )
                .await;
                return until(&mut socket, |frame| frame["id"] == 2).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let status = timeout(PATIENCE, back).await.expect("back");
    assert!(
        status["result"]["uptime"]
            .as_u64()
            .is_some_and(|seconds| seconds < 20)
    );
    fleet.stop().await;
}

#[tokio::test]
async fn every_device_has_its_own_address() {
    let mut options = FleetOptions::lan(
        LanBind::Ports {
            ip: Ipv4Addr::LOCALHOST,
            first: 65_535,
        },
        None,
        2,
    )
    .expect("options");
    assert_eq!(
        Fleet::start(options.clone()).expect_err("refused"),
        FleetError::NoAddress(1)
    );
    let (fleet, taken) = start("plugsg3", None, |_| {});
    options.reach = cauce_fleet::Reach::Lan {
        bind: LanBind::Addresses {
            first: Ipv4Addr::LOCALHOST,
            port: taken.port(),
        },
        password: None,
    };
    assert!(
        matches!(Fleet::start(options.clone()).expect_err("refused"), FleetError::Bind(address, _) if address == taken)
    );
    options.reach = cauce_fleet::Reach::Lan {
        bind: LanBind::Addresses {
            first: Ipv4Addr::new(127, 77, 0, 1),
            port: taken.port(),
        },
        password: None,
    };
    let spread = Fleet::start(options).expect("started");
    assert_eq!(
        spread.addresses()[1],
        SocketAddr::from(([127, 77, 0, 2], taken.port()))
    );
    assert!(
        get(spread.addresses()[1], "/shelly")
            .await
            .0
            .starts_with("HTTP/1.1 200")
    );
    spread.stop().await;
    fleet.stop().await;
}
