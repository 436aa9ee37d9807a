//! A fleet against a real server on a real socket: what arrives is what was counted.

use cauce_fleet::{Fleet, FleetError, FleetOptions, FleetStats, ModelMix, Stamp, TargetError, Tokens};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// How long a test waits for something that should come at once.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Seen {
    Opened {
        token: Option<String>,
        offers: Vec<String>,
    },
    Frame(Value),
    Closed {
        reason: Option<String>,
    },
}

/// A server that reports what it sees and, on each full status, sends the call it was given.
async fn serve(call: Option<Value>) -> (String, mpsc::UnboundedReceiver<Seen>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (seen, receiver) = mpsc::unbounded_channel();
    let call = Arc::new(call);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream, seen.clone(), call.clone()));
        }
    });
    (format!("ws://{address}/shelly"), receiver)
}

#[allow(clippy::result_large_err)] // The signature is the library's.
async fn talk(stream: tokio::net::TcpStream, seen: mpsc::UnboundedSender<Seen>, call: Arc<Option<Value>>) {
    let look = |request: &Request, mut response: Response| {
        let query = request.uri().query().unwrap_or_default();
        let token = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("token="))
            .map(str::to_owned);
        let mut offers = Vec::new();
        for name in ["sec-websocket-protocol", "sec-websocket-extensions", "origin"] {
            offers.extend(
                request
                    .headers()
                    .get(name)
                    .map(|value| format!("{name}={}", value.to_str().unwrap_or("?"))),
            );
        }
        if let Some(protocol) = request.headers().get("sec-websocket-protocol") {
            response
                .headers_mut()
                .insert("sec-websocket-protocol", protocol.clone());
        }
        let _ = seen.send(Seen::Opened { token, offers });
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, look).await else {
        return;
    };
    let mut reason = None;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).expect("devices send JSON");
                if let (Some(call), "NotifyFullStatus") =
                    (&*call, frame["method"].as_str().unwrap_or_default())
                {
                    socket
                        .send(Message::Text(call.to_string().into()))
                        .await
                        .expect("sent");
                }
                let _ = seen.send(Seen::Frame(frame));
            }
            Message::Close(close) => reason = close.map(|close| close.reason.to_string()),
            _ => {}
        }
    }
    let _ = seen.send(Seen::Closed { reason });
}

fn options(url: &str, devices: u32) -> FleetOptions {
    let tokens = Tokens::Shared("s3cret/with +odd&bytes".into());
    FleetOptions {
        ramp: Duration::from_millis(50),
        ..FleetOptions::outbound(url, tokens, devices).expect("options")
    }
}

async fn next(seen: &mut mpsc::UnboundedReceiver<Seen>) -> Seen {
    tokio::time::timeout(PATIENCE, seen.recv())
        .await
        .expect("in time")
        .expect("the server runs")
}

/// Takes what is seen until the fleet's counters satisfy `enough`.
async fn until(fleet: &Fleet, enough: impl Fn(&FleetStats) -> bool) {
    let wait = async {
        while !enough(&fleet.snapshot()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("in time");
}

/// Every frame of the given method that was seen, until the server has seen `connections` closes.
async fn drain(seen: &mut mpsc::UnboundedReceiver<Seen>, mut connections: u64) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    while connections > 0 {
        match next(seen).await {
            Seen::Frame(frame) => {
                *counts
                    .entry(frame["method"].as_str().unwrap_or("reply").to_owned())
                    .or_default() += 1;
            }
            Seen::Closed { .. } => connections -= 1,
            Seen::Opened { .. } => {}
        }
    }
    counts
}

#[tokio::test]
async fn what_the_fleet_counts_is_what_the_server_got() {
    let call = json!({"id": "a", "src": "server", "method": "Shelly.GetDeviceInfo"});
    let (url, mut seen) = serve(Some(call)).await;
    let mut options = options(&url, 20);
    options.rate = Some(20.0);
    options.faults = "drop=6,ble=20,repeat=20".parse().expect("a plan");
    let fleet = Fleet::start(options).expect("started");
    until(&fleet, |stats| {
        stats.totals.status_frames > 600 && stats.totals.disconnects > 3
    })
    .await;
    let stats = fleet.stop().await;
    assert_eq!(stats.totals.connected, 0);
    assert_eq!(stats.totals.connects, stats.totals.disconnects);
    let counts = drain(&mut seen, stats.totals.connects).await;
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    assert_eq!(count("NotifyFullStatus"), stats.totals.full_frames);
    assert_eq!(
        count("NotifyStatus"),
        stats.totals.greeting_frames + stats.totals.status_frames + stats.totals.repeat_frames
    );
    assert_eq!(count("NotifyEvent"), stats.totals.event_frames);
    assert_eq!(count("reply"), stats.totals.reply_frames);
    assert!(
        stats.totals.repeat_frames > 0 && stats.totals.event_frames > 0 && stats.totals.reply_frames >= 20
    );
}

#[tokio::test]
async fn hundreds_of_devices_share_a_thread() {
    let (url, mut seen) = serve(None).await;
    let fleet = Fleet::start(options(&url, 300)).expect("started");
    until(&fleet, |stats| {
        stats.totals.connected == 300 && stats.totals.full_frames == 300
    })
    .await;
    let stats = fleet.stop().await;
    let counts = drain(&mut seen, stats.totals.connects).await;
    assert_eq!(counts["NotifyFullStatus"], 300);
    assert_eq!(counts.values().sum::<u64>(), stats.totals.frames_sent());
}

#[tokio::test]
async fn each_device_shows_its_token_percent_encoded() {
    let (url, mut seen) = serve(None).await;
    let fleet = Fleet::start(options(&url, 1)).expect("started");
    let Seen::Opened { token, .. } = next(&mut seen).await else {
        panic!("first it connects")
    };
    assert_eq!(token.as_deref(), Some("s3cret%2Fwith%20%2Bodd%26bytes"));
    fleet.stop().await;

    let (url, mut seen) = serve(None).await;
    let mut options = options(&url, 3);
    let tokens = Tokens::PerDevice(Arc::new(|id| format!("token-of-{id}")));
    options = FleetOptions {
        ramp: options.ramp,
        ..FleetOptions::outbound(&url, tokens, 3).expect("options")
    };
    let fleet = Fleet::start(options).expect("started");
    let mut expected: Vec<_> = fleet.devices().map(|id| Some(format!("token-of-{id}"))).collect();
    let mut tokens = Vec::new();
    while tokens.len() < 3 {
        if let Seen::Opened { token, .. } = next(&mut seen).await {
            tokens.push(token);
        }
    }
    tokens.sort();
    expected.sort();
    assert_eq!(tokens, expected);
    fleet.stop().await;
}

#[tokio::test]
async fn a_fleet_offers_all_variants_of_the_handshake() {
    let (url, mut seen) = serve(None).await;
    let fleet = Fleet::start(options(&url, 40)).expect("started");
    let mut offers = HashMap::new();
    let mut opened = 0;
    while opened < 40 {
        if let Seen::Opened { offers: offer, .. } = next(&mut seen).await {
            *offers.entry(offer.join(" ")).or_insert(0) += 1;
            opened += 1;
        }
    }
    assert_eq!(offers.len(), 3, "{offers:?}");
    assert!(
        offers
            .keys()
            .any(|offer| offer.contains("json-rpc") && offer.contains("origin"))
    );
    assert!(offers.keys().any(|offer| offer.contains("permessage-deflate")));
    fleet.stop().await;
}

#[tokio::test]
async fn a_device_answers_calls_and_reports_what_they_did() {
    let call = json!({"jsonrpc": "2.0", "id": 3, "src": "wsserver", "method": "Switch.Set", "params": {"id": 0, "on": true, "toggle_after": 1}});
    let (url, mut seen) = serve(Some(call)).await;
    let mut options = options(&url, 1);
    options.models = ModelMix::parse("plugsg3").expect("a list");
    let fleet = Fleet::start(options).expect("started");
    let (mut answered, mut timer_over) = (false, false);
    while !(answered && timer_over) {
        let Seen::Frame(frame) = next(&mut seen).await else {
            continue;
        };
        if frame["id"] == json!(3) {
            assert_eq!(frame["dst"], "wsserver");
            assert!(frame["result"]["was_on"].is_boolean());
            answered = true;
        }
        timer_over |= frame["params"]["switch:0"]["source"] == "timer";
    }
    assert_eq!(fleet.stop().await.totals.reply_frames, 1);
}

#[tokio::test]
async fn stopping_closes_with_a_reason_and_leaves_nothing_behind() {
    let (url, mut seen) = serve(None).await;
    let fleet = Fleet::start(options(&url, 5)).expect("started");
    until(&fleet, |stats| stats.totals.full_frames == 5).await;
    fleet.stop().await;
    let mut closed = 0;
    while closed < 5 {
        if let Seen::Closed { reason } = next(&mut seen).await {
            assert_eq!(reason.as_deref(), Some("fleet stopped"));
            closed += 1;
        }
    }
}

#[tokio::test]
async fn a_sleeper_says_bye_over_the_wire() {
    let (url, mut seen) = serve(None).await;
    let mut options = options(&url, 1);
    options.models = ModelMix::parse("htg3").expect("a list");
    options.wakeup = Some(Duration::from_secs(1));
    let fleet = Fleet::start(options).expect("started");
    let mut last_event = Value::Null;
    loop {
        match next(&mut seen).await {
            Seen::Frame(frame) => last_event = frame["params"]["events"][0]["event"].clone(),
            Seen::Closed { reason } => {
                assert_eq!(reason.as_deref(), Some("Bye"));
                assert_eq!(last_event, "sleep");
                break;
            }
            Seen::Opened { .. } => {}
        }
    }
    // And it wakes again.
    while !matches!(next(&mut seen).await, Seen::Opened { .. }) {}
    fleet.stop().await;
}

#[tokio::test]
async fn a_half_open_device_sends_no_fin_and_dials_again() {
    let (url, mut seen) = serve(None).await;
    let mut options = options(&url, 16);
    options.models = ModelMix::parse("plugsg3").expect("a list");
    options.faults = "half-open=20".parse().expect("a plan");
    let fleet = Fleet::start(options).expect("started");
    until(&fleet, |stats| {
        stats.totals.half_open >= 2 && stats.totals.connects >= 18
    })
    .await;
    while let Ok(event) = seen.try_recv() {
        assert!(
            !matches!(event, Seen::Closed { .. }),
            "a dead device closes nothing"
        );
    }
    fleet.stop().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_dialled_again() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let fleet = Fleet::start(options(&format!("ws://{address}/shelly"), 3)).expect("started");
    until(&fleet, |stats| stats.totals.connect_failures >= 6).await;
    let stats = fleet.stop().await;
    assert_eq!(stats.totals.connects, 0);
    assert_eq!(stats.totals.frames_sent(), 0);
}

#[tokio::test]
async fn stamps_allow_to_measure_the_way_from_device_to_server() {
    let (url, mut seen) = serve(None).await;
    let mut options = options(&url, 2);
    options.stamp = Stamp::EmissionTime;
    let fleet = Fleet::start(options).expect("started");
    let sent = loop {
        if let Seen::Frame(frame) = next(&mut seen).await {
            break frame["params"]["x_sent"]["us"].as_u64().expect("a stamp");
        }
    };
    let now = fleet.clock().now().as_micros();
    assert!(sent <= now && now - sent < 10_000_000, "sent {sent}, now {now}");
    fleet.stop().await;
}

#[tokio::test]
async fn wrong_options_are_refused_before_anything_is_dialled() {
    let good = options("ws://127.0.0.1:1/shelly", 1);
    let refused = |change: &dyn Fn(&mut FleetOptions)| {
        let mut options = good.clone();
        change(&mut options);
        Fleet::start(options).expect_err("refused")
    };
    assert_eq!(refused(&|options| options.devices = 0), FleetError::Devices(0));
    assert_eq!(refused(&|options| options.rate = Some(0.0)), FleetError::Rate);
    assert_eq!(
        refused(&|options| options.rate = Some(f64::NAN)),
        FleetError::Rate
    );
    assert_eq!(
        refused(&|options| options.models = ModelMix::parse("azplug").expect("a list")),
        FleetError::NotOutbound("azplug")
    );
    for url in ["", "http://127.0.0.1/", "ws://", "ws:///x", "nonsense"] {
        let error = refused(&|options| {
            *options = FleetOptions::outbound(url, Tokens::None, 1).expect("options");
        });
        assert!(matches!(error, FleetError::Target(TargetError::Url(_))), "{url}");
    }
}

#[tokio::test]
async fn no_debug_output_shows_a_token() {
    let (url, mut seen) = serve(None).await;
    let options = options(&format!("{url}?token=in-the-url"), 1);
    let mut shown = format!("{:?}", options.reach);
    let fleet = Fleet::start(options).expect("started");
    shown += &format!("{fleet:?}");
    assert!(matches!(next(&mut seen).await, Seen::Opened { .. }));
    assert!(!shown.contains("s3cret") && !shown.contains("in-the-url"));
    fleet.stop().await;
}
