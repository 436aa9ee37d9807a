use serde_json::{Value, json};

use super::super::status::weigh;
use super::super::*;
use super::object;

fn state(full: Value) -> State {
    State::new(object(full))
}

fn overlay(state: &mut State, partial: Value) -> Value {
    Value::Object(state.overlay(object(partial)).delta)
}

fn replace(state: &mut State, full: Value) -> Value {
    Value::Object(state.replace(object(full)).delta)
}

fn of(state: &State) -> Value {
    Value::Object(state.components().clone())
}

#[test]
fn objects_merge_arrays_and_scalars_replace_null_removes() {
    let mut state = state(
        json!({ "switch:0": { "output": true, "errors": ["overtemp", "overpower"], "a": { "b": 1, "c": 2 } } }),
    );
    let partial = json!({ "switch:0": { "output": false, "errors": ["overtemp"], "a": { "b": 3, "d": null }, "gone": null } });
    let changed = json!({ "switch:0": { "output": false, "errors": ["overtemp"], "a": { "b": 3 } } });
    assert_eq!(overlay(&mut state, partial.clone()), changed);
    assert_eq!(overlay(&mut state, partial), json!({}));
    assert_eq!(
        of(&state),
        json!({ "switch:0": { "output": false, "errors": ["overtemp"], "a": { "b": 3, "c": 2 } } })
    );
    assert_eq!(
        overlay(&mut state, json!({ "switch:0": { "errors": null } })),
        json!({ "switch:0": { "errors": null } })
    );
    assert_eq!(of(&state)["switch:0"].get("errors"), None);
}

#[test]
fn a_full_status_removes_what_it_does_not_mention() {
    let mut state = state(json!({ "script:1": { "id": 1 }, "switch:0": { "output": true, "apower": 3 } }));
    let delta = replace(
        &mut state,
        json!({ "switch:0": { "output": true }, "wifi": { "rssi": -50, "ssid": null } }),
    );
    assert_eq!(
        delta,
        json!({ "script:1": null, "switch:0": { "apower": null }, "wifi": { "rssi": -50 } })
    );
    assert_eq!(
        of(&state),
        json!({ "switch:0": { "output": true }, "wifi": { "rssi": -50 } })
    );
}

#[test]
fn a_number_spelled_anew_is_no_change() {
    let mut state = state(json!({ "switch:0": { "apower": 0, "freq": 50.0, "by": [0, 1] } }));
    let anew = json!({ "switch:0": { "apower": 0.0, "freq": 50, "by": [0.0, 1.0] } });
    assert_eq!(overlay(&mut state, anew.clone()), json!({}));
    assert_eq!(replace(&mut state, anew), json!({}));
    assert_eq!(of(&state)["switch:0"]["apower"].to_string(), "0");
    // Yet two integers that only a float confuses are different.
    overlay(&mut state, json!({ "kvs": { "n": 9_007_199_254_740_993_u64 } }));
    assert_eq!(
        overlay(&mut state, json!({ "kvs": { "n": 9_007_199_254_740_992_u64 } })),
        json!({ "kvs": { "n": 9_007_199_254_740_992_u64 } })
    );
}

#[test]
fn an_empty_array_in_place_of_an_object_is_an_empty_object() {
    let mut state = state(json!({ "ble": [], "sys": { "available_updates": [], "list": [] } }));
    assert_eq!(
        of(&state),
        json!({ "ble": {}, "sys": { "available_updates": {}, "list": [] } })
    );
    overlay(
        &mut state,
        json!({ "sys": { "available_updates": { "beta": { "version": "2" } }, "own": { "k": 1 } } }),
    );
    assert_eq!(
        overlay(
            &mut state,
            json!({ "sys": { "available_updates": [], "own": [] }, "ble": [] })
        ),
        json!({})
    );
    assert_eq!(
        replace(
            &mut state,
            json!({ "ble": [], "sys": { "available_updates": [], "list": [], "own": [1] } })
        ),
        json!({ "sys": { "available_updates": { "beta": null }, "own": [1] } })
    );
}

#[test]
fn a_real_empty_array_stays_an_array() {
    let mut state = state(json!({ "switch:0": { "errors": ["overtemp"] } }));
    assert_eq!(
        overlay(&mut state, json!({ "switch:0": { "errors": [] } })),
        json!({ "switch:0": { "errors": [] } })
    );
}

#[test]
fn kinds_may_change_under_a_key() {
    let mut state = state(json!({ "x": { "a": 1, "b": { "c": 1 }, "d": [1] } }));
    let delta = overlay(
        &mut state,
        json!({ "x": { "a": { "n": null, "m": 1 }, "b": 5, "d": { "e": {} } } }),
    );
    assert_eq!(
        delta,
        json!({ "x": { "a": { "m": 1 }, "b": 5, "d": { "e": {} } } })
    );
    assert_eq!(of(&state), delta);
}

#[test]
fn beyond_its_bounds_a_state_refuses_new_keys_and_keeps_the_known() {
    let mut state = state(json!({ "switch:0": { "output": true, "note": "short" } }));
    let many: Object = (0..3 * STATE_NODES_MAX)
        .map(|n| (format!("k{n}"), json!(true)))
        .collect();
    let merged = state.overlay(object(json!({ "script:1": many })));
    assert_eq!(state.nodes(), STATE_NODES_MAX);
    assert_eq!(
        merged.refused as usize,
        3 * STATE_NODES_MAX - (STATE_NODES_MAX - 4)
    );
    // What is known still changes.
    assert_eq!(
        overlay(&mut state, json!({ "switch:0": { "output": false } })),
        json!({ "switch:0": { "output": false } })
    );
    assert_eq!(
        state
            .overlay(object(json!({ "switch:1": { "output": true } })))
            .refused,
        1
    );
    // And room that is given back is used again.
    overlay(&mut state, json!({ "script:1": null }));
    assert_eq!(
        state
            .overlay(object(json!({ "switch:1": { "output": true } })))
            .refused,
        0
    );
    assert_eq!((state.nodes(), state.bytes()), weigh(state.components()));
}

#[test]
fn a_value_too_large_for_the_state_is_refused_and_the_old_one_stays() {
    let mut state = state(json!({ "switch:0": { "note": "short" } }));
    let merged = state.overlay(object(
        json!({ "switch:0": { "note": "x".repeat(STATE_BYTES_MAX) } }),
    ));
    assert_eq!((merged.refused, merged.delta.len()), (1, 0));
    assert_eq!(of(&state), json!({ "switch:0": { "note": "short" } }));
    assert_eq!((state.nodes(), state.bytes()), weigh(state.components()));
}

#[test]
fn components_and_key_lengths_are_bounded() {
    let full: Object = (0..COMPONENTS_MAX + 3)
        .map(|n| (format!("switch:{n}"), json!({})))
        .collect();
    let mut state = State::default();
    assert_eq!(state.replace(full).refused, 3);
    assert_eq!(state.components().len(), COMPONENTS_MAX);
    let merged = state.overlay(object(
        json!({ "switch:0": { "k".repeat(KEY_BYTES_MAX + 1): 1, "k".repeat(KEY_BYTES_MAX): 1 } }),
    ));
    assert_eq!(merged.refused, 1);
}

#[test]
fn the_byte_count_is_never_below_the_real_length() {
    let nasty = json!({ "a\"\\\u{1}": { "f": -1.797_693_134_862_315_7e308, "n": u64::MAX, "s": "\n\"\\\u{7f}é", "b": [false, null, [], {}] } });
    let state = state(nasty.clone());
    assert_eq!(of(&state), nasty);
    assert!(state.bytes() >= nasty.to_string().len());
}
