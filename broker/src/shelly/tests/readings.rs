use serde_json::json;

use super::super::*;
use super::{partial, say, told};

fn readings(outcome: &Outcome) -> &[Reading] {
    outcome.changes.as_ref().map_or(&[], |changes| &changes.readings)
}

#[test]
fn a_reading_is_complete_even_when_the_frame_is_not() {
    let mut device = told(
        json!({ "switch:0": { "output": true, "apower": 9, "voltage": 230.1, "current": 0.04,
        "aenergy": { "total": 10 }, "temperature": { "tC": 41.5, "tF": 106.7 } }, "wifi": { "rssi": -52 } }),
    );
    let outcome = say(
        &mut device,
        10,
        partial(json!({ "switch:0": { "apower": 12.5 } })),
    );
    let expected = Reading {
        channel: "switch:0".into(),
        output: Some(true),
        power_w: Some(12.5),
        voltage_v: Some(230.1),
        current_a: Some(0.04),
        energy_wh: Some(10.0),
        consumed_wh: Some(0.0),
        temperature_c: Some(41.5),
        power_derived: false,
    };
    assert_eq!(readings(&outcome), [expected]);
    assert_eq!(
        device.vitals(),
        Vitals {
            firmware: None,
            rssi_dbm: Some(-52.0)
        }
    );
}

#[test]
fn a_missing_output_is_unknown_not_off() {
    let mut device = told(json!({ "sys": {} }));
    let outcome = say(&mut device, 10, partial(json!({ "switch:0": { "apower": 60 } })));
    assert_eq!(
        (readings(&outcome)[0].output, readings(&outcome)[0].power_w),
        (None, Some(60.0))
    );
}

#[test]
fn words_where_numbers_belong_are_no_measurements() {
    let mut device = told(json!({ "sys": {} }));
    let outcome = say(
        &mut device,
        10,
        partial(
            json!({ "switch:0": { "output": 1, "apower": "60", "voltage": true, "current": [], "aenergy": 4,
            "temperature": { "tC": null } } }),
        ),
    );
    assert!(readings(&outcome).is_empty(), "{outcome:?}");
}

#[test]
fn a_meter_without_output_is_read() {
    let mut device = told(json!({ "sys": {} }));
    let outcome = say(
        &mut device,
        10,
        partial(json!({ "pm1:0": { "apower": 27, "voltage": 233.3, "current": 0.123 } })),
    );
    let reading = &readings(&outcome)[0];
    assert_eq!(
        (reading.channel.as_str(), reading.output, reading.power_w),
        ("pm1:0", None, Some(27.0))
    );
}

#[test]
fn each_outlet_of_a_strip_is_a_channel_and_only_those_touched_are_read() {
    let mut device = told(json!({ "switch:0": { "output": true }, "switch:1": { "output": true } }));
    let outcome = say(
        &mut device,
        10,
        partial(json!({ "switch:1": { "output": false }, "switch:0": { "output": true } })),
    );
    assert_eq!(
        readings(&outcome)
            .iter()
            .map(|r| r.channel.as_str())
            .collect::<Vec<_>>(),
        ["switch:1"]
    );
}

#[test]
fn a_three_phase_meter_gives_its_phases_and_its_total_once() {
    let mut device = told(json!({ "sys": {} }));
    let outcome = say(
        &mut device,
        10,
        partial(json!({
            "em:0": { "a_act_power": 10.5, "a_voltage": 230, "a_current": 0.1, "b_act_power": 0, "total_act_power": 10.5,
                "total_current": 0.1, "n_current": null },
            "emdata:0": { "a_total_act_energy": 5.5, "total_act": 7 },
        })),
    );
    let seen: Vec<_> = readings(&outcome)
        .iter()
        .map(|r| (r.channel.as_str(), r.power_w, r.energy_wh))
        .collect();
    assert_eq!(
        seen,
        [
            ("em:0.a", Some(10.5), Some(5.5)),
            ("em:0.b", Some(0.0), None),
            ("em:0", Some(10.5), Some(7.0))
        ]
    );
    let outcome = say(
        &mut device,
        20,
        partial(json!({ "emdata:0": { "total_act": 8 } })),
    );
    assert_eq!(readings(&outcome).last().unwrap().consumed_wh, Some(1.0));
}

#[test]
fn a_single_phase_meter_joins_its_data() {
    let mut device = told(json!({ "em1:1": { "act_power": -5, "voltage": 229, "current": 0.2 } }));
    let outcome = say(
        &mut device,
        10,
        partial(json!({ "em1data:1": { "total_act_energy": 3 } })),
    );
    let reading = &readings(&outcome)[0];
    assert_eq!(
        (reading.channel.as_str(), reading.power_w, reading.energy_wh),
        ("em1:1", Some(-5.0), Some(3.0))
    );
}

#[test]
fn a_cover_has_power_but_no_output() {
    let mut device = told(json!({ "sys": {} }));
    let outcome = say(
        &mut device,
        1,
        partial(json!({ "cover:0": { "state": "opening", "apower": 80.5 } })),
    );
    assert_eq!(
        (readings(&outcome)[0].output, readings(&outcome)[0].power_w),
        (None, Some(80.5))
    );
}

#[test]
fn a_counter_that_goes_back_is_a_new_baseline_never_negative_consumption() {
    let mut device = told(json!({ "switch:0": { "aenergy": { "total": 1000.5 } } }));
    let mut consumed = Vec::new();
    let mut resets = 0;
    for (step, total) in [1001.0, 0.0, 2.5, 2.5, 3.5].into_iter().enumerate() {
        let minute = json!({ "switch:0": { "aenergy": { "total": total, "minute_ts": step } } });
        let outcome = say(&mut device, 60_000 * (step as u64 + 1), partial(minute));
        consumed.push(readings(&outcome)[0].consumed_wh);
        resets += outcome.counters.energy_resets;
    }
    assert_eq!(consumed, [Some(0.5), Some(0.0), Some(2.5), Some(0.0), Some(1.0)]);
    assert_eq!(resets, 1);
}

#[test]
fn the_first_energy_ever_is_a_baseline_and_no_consumption() {
    let mut device = told(json!({ "sys": {} }));
    let outcome = say(
        &mut device,
        1,
        partial(json!({ "switch:0": { "aenergy": { "total": 30473.355 } } })),
    );
    assert_eq!(readings(&outcome)[0].consumed_wh, None);
}

#[test]
fn a_single_phase_meter_whose_data_comes_along_is_one_reading() {
    let mut device = told(json!({ "sys": {} }));
    let both = json!({ "em1:0": { "act_power": 5 }, "em1data:0": { "total_act_energy": 3 } });
    let outcome = say(&mut device, 10, partial(both));
    assert_eq!(readings(&outcome).len(), 1);
}
