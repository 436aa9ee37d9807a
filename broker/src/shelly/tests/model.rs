//! Random lives against naive models.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::fuzz::{fuzz_device, merge_patch};
use super::super::status::{same, weigh};
use super::super::*;
use super::{object, partial};

/// Values over few keys, so that merges meet. Empty arrays are left out: they mean something else by place.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        2 => Just(Value::Null),
        2 => any::<bool>().prop_map(Value::from),
        4 => (-3_i64..3).prop_map(Value::from),
        4 => (-3_i64..3).prop_map(|n| Value::from(n as f64)),
        1 => any::<f64>().prop_map(Value::from),
        2 => "[a-z\"\u{1}é]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 1..3).prop_map(Value::from),
            3 => btree_map("[a-d]", inner, 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn status() -> impl Strategy<Value = Value> {
    btree_map("[a-d]", value(), 0..4).prop_map(|members| members.into_iter().collect())
}

#[derive(Clone, Debug)]
enum Said {
    Full(Value),
    Partial(Value),
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![1 => status().prop_map(Said::Full), 3 => status().prop_map(Said::Partial)]
}

/// The specification, without a thought for speed, bounds or what changed. Objects merge, null removes, all else
/// replaces: that is a merge patch.
fn model_apply(model: &mut Value, said: &Said) {
    match said {
        Said::Full(full) => {
            *model = json!({});
            merge_patch(model, full);
        }
        Said::Partial(partial) => merge_patch(model, partial),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn merging_equals_the_naive_model_and_the_deltas_carry_a_mirror(life in vec(said(), 1..12)) {
        let mut state = State::default();
        let mut model = json!({});
        let mut mirror = json!({});
        for said in life {
            model_apply(&mut model, &said);
            let merged = match said {
                Said::Full(full) => state.replace(object(full)),
                Said::Partial(partial) => state.overlay(object(partial)),
            };
            let before = mirror.clone();
            merge_patch(&mut mirror, &Value::Object(merged.delta.clone()));
            prop_assert_eq!(mirror.as_object(), Some(state.components()));
            prop_assert!(same(&model, &mirror), "model {model}, state {mirror}");
            prop_assert_eq!(same(&before, &mirror), merged.delta.is_empty());
            prop_assert_eq!((state.nodes(), state.bytes()), weigh(state.components()));
            prop_assert!(state.bytes() >= mirror.to_string().len());
            prop_assert_eq!(merged.refused, 0);
        }
    }

    #[test]
    fn a_state_at_its_bounds_stays_consistent(
        life in vec((any::<bool>(), 0_usize..6, 0_usize..900, 0_usize..20_000), 1..12)
    ) {
        let mut state = State::default();
        let mut mirror = json!({});
        for (whole, component, keys, text_bytes) in life {
            let mut members: Object = (0..keys).map(|n| (format!("k{n}"), json!([n, n]))).collect();
            members.insert("text".into(), json!("x".repeat(text_bytes)));
            let status = object(json!({ format!("c:{component}"): members }));
            let merged = if whole { state.replace(status) } else { state.overlay(status) };
            merge_patch(&mut mirror, &Value::Object(merged.delta));
            prop_assert_eq!(mirror.as_object(), Some(state.components()));
            prop_assert_eq!((state.nodes(), state.bytes()), weigh(state.components()));
            prop_assert!(state.nodes() <= STATE_NODES_MAX && state.bytes() <= STATE_BYTES_MAX);
        }
    }

    #[test]
    fn any_bytes_are_survived(data in vec(any::<u8>(), 0..600)) {
        let _ = Frame::parse(&data);
        fuzz_device(&data);
    }

    #[test]
    fn any_text_of_json_shape_is_survived(text in "[\\[\\]{}\",:0-9a-f.eE+\\\\ntrulsNI-]{0,200}") {
        let _ = Frame::parse(text.as_bytes());
        fuzz_device(text.as_bytes());
    }

    #[test]
    fn any_life_keeps_the_promises(
        life in vec(prop_oneof![
            4 => said().prop_map(|said| match said {
                Said::Full(full) => super::notify("NotifyFullStatus", full).to_string(),
                Said::Partial(status) => partial(status).to_string(),
            }),
            4 => (any::<bool>(), prop::option::of(0_u32..100), 0_u32..9).prop_map(|(on, watts, total)| {
                let mut switch = json!({ "output": on, "aenergy": { "total": total } });
                if let Some(watts) = watts { switch["apower"] = json!(watts); }
                partial(json!({ "switch:0": switch })).to_string()
            }),
            1 => (0_u64..40).prop_map(|id| json!({ "id": id, "result": { "switch:0": { "output": true } } }).to_string()),
            1 => (0_u64..40).prop_map(|id| json!({ "id": id, "error": { "code": -109 } }).to_string()),
            1 => Just(super::event(json!([null, { "component": "sys", "event": "sleep" }])).to_string()),
            1 => Just(partial(json!({ "sys": { "wakeup_period": 60 } })).to_string()),
            2 => "t[ -~]{0,6}",
            1 => Just("d".to_owned()),
            2 => Just("cSwitch.Toggle".to_owned()),
            1 => Just("cShelly.GetStatus".to_owned()),
            1 => Just("r".to_owned()),
        ], 0..60)
    ) {
        fuzz_device(life.join("\n").as_bytes());
    }

    #[test]
    fn outgoing_frames_are_json_whatever_the_caller_asks(method in ".{0,70}", params in ".{0,40}") {
        let mut device = super::told(json!({ "sys": {} }));
        for params in [None, Some(params.as_bytes())] {
            if let Ok(frame) = device.call(super::at(1), &method, params, 100, CallToken(1)) {
                prop_assert!(super::json_of(&frame)["method"] == method);
            }
        }
    }
}
