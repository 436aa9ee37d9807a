//! What devices answer.

use crate::bench::{Bench, START};
use cauce_fleet::{Door, FrameKind, Mode, Model, Setup};
use serde_json::{Map, json};

#[test]
fn ids_keep_their_type_and_dst_needs_a_src() {
    let mut bench = Bench::natural("plugsg3", 1);
    bench.run_for(1);
    for id in [json!(7), json!("7"), json!(1.5), json!(-1), json!("")] {
        let reply = bench
            .exchange(&json!({"id": id, "method": "Ws.GetStatus"}))
            .expect("an answer");
        assert_eq!(reply["id"], id);
        assert!(reply.get("dst").is_none());
        let reply = bench
            .exchange(&json!({"id": id, "src": "me", "method": "ws.getstatus", "jsonrpc": "2.0"}))
            .expect("an answer");
        assert_eq!(
            (&reply["id"], &reply["dst"], &reply["result"]),
            (&id, &json!("me"), &json!({"connected": true}))
        );
    }
}

#[test]
fn what_is_no_call_gets_no_answer() {
    let mut bench = Bench::natural("plugsg3", 1);
    bench.run_for(1);
    let before = bench.lines.len();
    let mut out = Vec::new();
    for text in [
        "",
        "nonsense",
        "[]",
        "17",
        r#"{"id":1}"#,
        r#"{"method":"Shelly.GetStatus"}"#,
        r#"{"id":null,"method":"x"}"#,
        r#"{"id":1,"result":{}}"#,
    ] {
        bench.device.handle_frame(bench.now, text, &mut out);
    }
    bench.take(&mut out);
    assert_eq!(bench.lines.len(), before);
}

#[test]
fn errors_have_the_codes_of_the_firmware() {
    let mut bench = Bench::natural("plugsg3", 1);
    bench.run_for(1);
    for (method, params, code) in [
        ("Switch.Set", json!({"on": true}), -103),
        ("Switch.Set", json!({"id": 0}), -103),
        ("Switch.Set", json!({"id": 0, "on": "yes"}), -103),
        ("Switch.Set", json!({"id": "0", "on": true}), -103),
        (
            "Switch.Set",
            json!({"id": 0, "on": true, "toggle_after": -1}),
            -103,
        ),
        ("Switch.Set", json!({"id": 1, "on": true}), -105),
        ("Switch.GetStatus", json!({"id": 4}), -105),
        ("Switch.GetStatus", json!({}), -103),
        ("Cover.Close", json!({"id": 0}), 404),
        ("EM.GetStatus", json!({"id": 0}), 404),
        ("Nonsense", json!({}), 404),
        ("Ws.SetConfig", json!({}), -103),
        ("Ws.SetConfig", json!({"config": 1}), -103),
        (
            "Ws.SetConfig",
            json!({"config": {"server": "x".repeat(20_000)}}),
            -108,
        ),
        (
            "Switch.ResetCounters",
            json!({"id": 0, "type": ["nonsense"]}),
            -103,
        ),
        ("Shelly.Reboot", json!({"delay_ms": -1}), -103),
    ] {
        let answer = bench.call(method, params.clone());
        assert_eq!(answer["error"]["code"], code, "{method} {params}");
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
        assert!(answer.get("result").is_none());
    }
    assert_eq!(
        bench.call("EM.GetStatus", json!({}))["error"]["message"],
        "No handler for EM.GetStatus"
    );
    assert_eq!(
        bench.call("Switch.GetStatus", json!({"id": 1}))["error"]["message"],
        "Argument 'id', value 1 not found!"
    );
}

#[test]
fn a_configuration_change_is_told_as_event_and_as_revision() {
    let mut bench = Bench::natural("plugsg3", 1);
    bench.run_for(1);
    let before = bench.known["sys"]["cfg_rev"].as_u64().expect("a revision");
    let answer = bench.call(
        "Ws.SetConfig",
        json!({"config": {"enable": false, "server": "wss://elsewhere/"}}),
    );
    assert_eq!(answer["result"], json!({"restart_required": true}));
    let event = bench.of_kind(FrameKind::Event).last().expect("an event");
    assert_eq!(event.frame["params"]["events"][0]["event"], "config_changed");
    assert_eq!(bench.known["sys"]["cfg_rev"], json!(before + 1));
    assert_eq!(
        bench.call("Ws.GetConfig", json!({}))["result"]["server"],
        "wss://elsewhere/"
    );
    assert_eq!(
        bench.call("Shelly.GetConfig", json!({}))["result"]["sys"]["cfg_rev"],
        json!(before + 1)
    );
}

#[test]
fn components_come_in_pages() {
    let mut bench = Bench::natural("blugwg3", 1);
    bench.run_for(1);
    let mut seen = 0;
    loop {
        let page = bench.call(
            "Shelly.GetComponents",
            json!({"dynamic_only": true, "offset": seen}),
        )["result"]
            .clone();
        assert_eq!((&page["total"], &page["offset"]), (&json!(27), &json!(seen)));
        let components = page["components"].as_array().expect("a list").len();
        assert!(components <= 5);
        seen += components;
        if components == 0 {
            break;
        }
    }
    assert_eq!(seen, 27);
    let all = bench.call("Shelly.GetComponents", json!({"include": ["status"]}));
    assert!(all["result"]["total"].as_u64().is_some_and(|total| total > 27));
    assert!(all["result"]["components"][0].get("config").is_none());
}

#[test]
fn identity_is_consistent_across_answers() {
    for name in Model::names() {
        let mut bench = Bench::new(
            name,
            9,
            Setup {
                mode: Mode::Lan,
                ..Setup::default()
            },
        );
        bench.linked = true;
        let (id, mac) = (bench.device.id().to_string(), bench.device.mac().to_upper_hex());
        let model = Model::load(name).expect("in the catalogue");
        let mut out = Vec::new();
        let mut ask = |method| {
            bench
                .device
                .call(START, method, &Map::new(), Door::LanWebSocket, &mut out)
                .expect("an answer")
        };
        let (info, status, config) = (
            ask("Shelly.GetDeviceInfo"),
            ask("Shelly.GetStatus"),
            ask("Shelly.GetConfig"),
        );
        assert_eq!((&info["id"], &info["mac"]), (&json!(id), &json!(mac)), "{name}");
        assert_eq!(status["sys"]["mac"], json!(mac), "{name}");
        for text in [info.to_string(), status.to_string(), config.to_string()] {
            assert!(
                !text.to_uppercase().contains(&model.captured_mac_hex()),
                "{name} still names its original"
            );
        }
    }
}

#[test]
fn methods_listed_are_methods_answered() {
    let mut bench = Bench::natural("pstripg4", 1);
    bench.run_for(1);
    let methods = bench.call("Shelly.ListMethods", json!({}))["result"]["methods"].clone();
    for method in methods.as_array().expect("a list") {
        let method = method.as_str().expect("a name");
        if method == "Shelly.Reboot" {
            continue;
        }
        let answer = bench.call(method, json!({"id": 0, "on": true, "config": {}}));
        assert!(answer.get("result").is_some(), "{method}: {answer}");
    }
}
