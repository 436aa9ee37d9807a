//! What goes wrong, as often as asked.

use crate::bench::{Bench, Line, START};
use cauce_fleet::{Ending, Fault, FaultPlan, FrameKind, Setup};
use std::time::Duration;

#[test]
fn terse_devices_leave_out_dst_and_ts() {
    let setup = Setup {
        faults: "terse=1".parse().expect("a plan"),
        ..Setup::default()
    };
    let mut bench = Bench::new("plugsg3", 1, setup);
    bench.run_for(120);
    for line in bench
        .of_kind(FrameKind::Status)
        .chain(bench.of_kind(FrameKind::Full))
    {
        assert!(line.frame.get("dst").is_none() && line.frame["params"].get("ts").is_none());
    }
}

#[test]
fn a_herd_drops_everyone_at_its_moment_once() {
    for index in 0..10 {
        let setup = Setup {
            faults: "herd@30s".parse().expect("a plan"),
            ..Setup::default()
        };
        let mut bench = Bench::new("plugsg3", index, setup);
        bench.run_for(120);
        assert_eq!(
            bench.endings,
            [(START.plus(Duration::from_secs(30)), Ending::Drop)]
        );
        assert_eq!(bench.of_kind(FrameKind::Full).count(), 2);
    }
}

#[test]
fn faults_strike_at_their_rate() {
    let mut drops = 0;
    for index in 0..50 {
        let setup = Setup {
            faults: FaultPlan::default().with(Fault::Drop, 2.0),
            ..Setup::default()
        };
        let mut bench = Bench::new("plugsg3", index, setup);
        bench.run_for(600);
        drops += bench.endings.len();
    }
    // 50 devices, ten minutes, two a minute.
    assert!((900..1100).contains(&drops), "{drops} drops");
}

#[test]
fn half_open_devices_vanish_and_half_of_them_reboot() {
    let (mut vanished, mut rebooted) = (0, 0);
    for index in 0..20 {
        let setup = Setup {
            faults: FaultPlan::default().with(Fault::HalfOpen, 0.5),
            ..Setup::default()
        };
        let mut bench = Bench::new("plugsg3", index, setup);
        bench.run_for(600);
        assert!(bench.endings.iter().all(|(_, ending)| *ending == Ending::Vanish));
        vanished += bench.endings.len();
        let fresh = |line: &&Line| line.frame["params"]["ts"].as_f64().is_some_and(|ts| ts < 30.0);
        rebooted += bench.of_kind(FrameKind::Full).skip(1).filter(fresh).count();
    }
    assert!(
        vanished > 40 && rebooted * 4 > vanished && rebooted < vanished,
        "{rebooted} of {vanished}"
    );
}

#[test]
fn scan_events_weigh_about_two_kilobytes() {
    let setup = Setup {
        faults: FaultPlan::default().with(Fault::Ble, 10.0),
        ..Setup::default()
    };
    let mut bench = Bench::new("plugsg3", 1, setup);
    bench.run_for(120);
    let events: Vec<_> = bench.of_kind(FrameKind::Event).collect();
    assert!(events.len() > 10);
    for event in events {
        assert!(
            (2000..2700).contains(&event.text.len()),
            "{} bytes",
            event.text.len()
        );
        assert_eq!(event.frame["params"]["events"][0]["event"], "ble.scan_result");
    }
}

#[test]
fn repeats_are_counted_apart_because_they_change_nothing() {
    let setup = Setup {
        faults: FaultPlan::default().with(Fault::Repeat, 6.0),
        ..Setup::default()
    };
    let mut bench = Bench::new("plugsg3", 1, setup);
    bench.run_for(600);
    assert!(bench.of_kind(FrameKind::Repeat).count() > 20);
    assert!(bench.of_kind(FrameKind::Repeat).all(|line| !line.changed));
    assert!(bench.of_kind(FrameKind::Status).all(|line| line.changed));
}
