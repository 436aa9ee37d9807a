//! Rules that hold for every model, seed and fault.

use crate::bench::{Bench, START};
use cauce_fleet::{Device, Fault, FaultPlan, FrameKind, Model, ModelMix, Setup, Stamp};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

#[test]
fn every_model_lives_an_hour_without_a_frame_that_breaks_a_rule() {
    for name in Model::names() {
        for index in 0..4 {
            let mut bench = Bench::natural(name, index);
            bench.run_for(3600);
            assert!(
                !bench.lines.is_empty() || !bench.device.is_awake() || index > 0,
                "{name} said nothing"
            );
            for line in &bench.lines {
                assert_eq!(line.frame["dst"], "ws");
                assert!(line.frame["params"]["ts"].is_number());
                assert!(line.text.len() < 7000);
                if line.kind == Some(FrameKind::Status) {
                    assert!(line.changed, "{name}: no change in {}", line.text);
                }
            }
        }
    }
}

#[test]
fn same_seed_same_bytes() {
    let run = |seed| {
        let faults = "drop=1,reboot=0.5,half-open=0.2,ble=2,repeat=2,reset=0.2,slow=1,herd@90s"
            .parse()
            .expect("a plan");
        let setup = Setup {
            seed,
            faults,
            stamp: Stamp::EmissionTime,
            ..Setup::default()
        };
        let mut bench = Bench::new("pstripg4", 11, setup);
        bench.run_for(1800);
        bench.call("Switch.Set", json!({"id": 2, "on": true, "toggle_after": 5}));
        bench.run_for(600);
        bench
            .lines
            .iter()
            .map(|line| line.text.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    };
    let first = run(5);
    assert!(
        first.len() > 50_000,
        "too quiet to compare: {} bytes",
        first.len()
    );
    assert_eq!(first, run(5));
    assert_ne!(first, run(6));
}

/// A changed id would orphan whatever a database, a screenshot or a bug report says about a demonstration.
#[test]
fn the_first_devices_of_seed_one_keep_their_ids_for_ever() {
    let mix = ModelMix::parse("plugsg3,pstripg4,walldisplay").expect("a list");
    let ids: Vec<_> = (0..3)
        .map(|index| {
            let setup = Arc::new(Setup {
                seed: 1,
                ..Setup::default()
            });
            Device::new(mix.model_of(index).clone(), setup, index, START)
                .id()
                .to_string()
        })
        .collect();
    assert_eq!(
        ids,
        [
            "shellyplugsg3-8cbfeaaa94c0",
            "shellypstripg4-d885ac48cc39",
            "ShellyWallDisplay-000822E703B2"
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the seed, model and faults: valid frames with `src` (the bench asserts them), a status is a
    /// change, the greeting comes first on each connection.
    #[test]
    fn any_device_under_any_faults_keeps_the_rules(
        seed: u64,
        index in 0u32..5000,
        model in prop::sample::select(Model::names().collect::<Vec<_>>()),
        rates in prop::array::uniform7(0.0f64..3.0),
        calls in prop::collection::vec((any::<bool>(), 0u64..3, prop::option::of(1u32..20)), 0..12),
    ) {
        let faults = Fault::ALL.into_iter().zip(rates).fold(FaultPlan::default(), |plan, (fault, rate)| plan.with(fault, rate));
        let mut bench = Bench::new(model, index, Setup { seed, faults, ..Setup::default() });
        for (on, id, toggle_after) in calls {
            bench.run_for(40);
            if bench.linked {
                bench.call("Switch.Set", json!({"id": id, "on": on, "toggle_after": toggle_after}));
            }
        }
        bench.run_for(300);
        for line in bench.of_kind(FrameKind::Status) {
            prop_assert!(line.changed, "{}", line.text);
        }
    }

    /// No text from the server makes a device panic, and what it answers is JSON.
    #[test]
    fn no_frame_from_the_server_breaks_a_device(text in "\\PC{0,120}", method in "[A-Za-z0-9]{0,8}\\.?[A-Za-z]{0,12}", id in -3i64..3) {
        let mut bench = Bench::natural("pstripg4", 1);
        bench.run_for(1);
        let mut out = Vec::new();
        bench.device.handle_frame(bench.now, &text, &mut out);
        let request = json!({"id": id, "method": method, "params": {"id": id, "on": id, "config": {"a": id}, "offset": id}});
        bench.device.handle_frame(bench.now, &request.to_string(), &mut out);
        bench.take(&mut out);
    }
}
