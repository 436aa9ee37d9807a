//! The standard set: which runs stand behind which promise, what each is measured against, and what it must reach. Pure.

use super::judge::{Bound, target};
use super::lines::{Against, Line, Server, Transport, Work};
use crate::limit::Writing;

/// What `Work::Search` keeps, and between which rates it looks.
pub(super) const SEARCH_RULE: &str = "p99<=2ms";
pub(super) const SEARCH_RATES: (f64, f64) = (2_000.0, 100_000.0);

/// Room classes of the measured tenant with all that is asked about in promise 11, and without.
pub(super) const FEATURES_ON: &str =
    r#"[{"rooms": "loadtest:*", "history": {"messages": 1000, "age": "10m"}, "presence": true}]"#;
pub(super) const FEATURES_OFF: &str =
    r#"[{"rooms": "loadtest:*", "history": {"messages": 0}, "presence": false}]"#;

/// Short runs: the rounds bring the confidence.
const SHORT: &[&str] = &["load.warmup_seconds=1", "load.seconds=4"];
/// Long enough that it does not matter that rows wait a second for each other before they are written.
const STORED: &[&str] = &["load.warmup_seconds=1", "load.seconds=5"];
/// Shorter still, for what is sent as fast as it may be: millions of deliveries in three seconds.
const SHORTER: &[&str] = &["load.warmup_seconds=1", "load.seconds=3"];
const SHORTER_CLOSED: &[&str] = &["load.warmup_seconds=1", "load.seconds=3", "load.outstanding=1000"];

const fn limit(writing: Writing) -> Work {
    Work::Runs {
        against: Against::Limit(writing),
        server: Server::OfTheLine,
    }
}

const fn calm(server: Server) -> Work {
    Work::Runs {
        against: Against::Calm,
        server,
    }
}

/// Each a look only: the many turns bring the confidence.
const AMID: &[&str] = &["load.warmup_seconds=0.5", "load.seconds=1.5"];
const AMID_CLOSED: &[&str] = &[
    "load.warmup_seconds=0.5",
    "load.seconds=1.5",
    "load.outstanding=1000",
];
const SIDE_BY_SIDE: Work = Work::SideBySide { runs: 8 };

const FEATURES: Work = Work::Runs {
    against: Against::Features,
    server: Server::OfTheLine,
};

const SEARCHED: Line = Line {
    number: 2,
    title: "rooms 100 of 10, highest rate with p99 ≤ 2 ms",
    transport: Transport::Plain,
    scenario: "rooms",
    changes: &[
        "load.warmup_seconds=0.3",
        "load.seconds=1.5",
        "load.drain_seconds=1",
    ],
    work: Work::Search,
    targets: &[target("messages_per_second", Bound::TimesAtLeast(0.9))],
    round_seconds: 120.0,
    picture: None,
};

const IDLE: Line = Line {
    number: 6,
    title: "idle connections",
    transport: Transport::Plain,
    scenario: "idle",
    changes: &[],
    work: Work::Runs {
        against: Against::Nothing,
        server: Server::OfTheRun,
    },
    targets: &[
        target("bytes_a_connection", Bound::AtMost(2_048.0)),
        target("private_at_1000", Bound::AtMost(25.0 * 1_048_576.0)),
    ],
    round_seconds: 8.0,
    picture: None,
};

const FANOUT: Line = Line {
    number: 1,
    title: "fanout 1 to 1,000, 16 outstanding",
    transport: Transport::Plain,
    scenario: "fanout",
    changes: SHORTER,
    work: limit(Writing::Coalesced),
    targets: &[target("deliveries_per_second", Bound::TimesAtLeast(0.75))],
    round_seconds: 9.0,
    picture: None,
};

const ROOMS: Line = Line {
    number: 2,
    title: "rooms 100 of 10, 1,000 msg/s",
    transport: Transport::Plain,
    scenario: "rooms",
    changes: SHORT,
    work: limit(Writing::OneByOne),
    targets: &[target("server_cpu_per_delivery", Bound::TimesAtMost(1.25))],
    round_seconds: 11.0,
    picture: Some("rooms"),
};

const ROOMS_CLOSED: Line = Line {
    number: 2,
    title: "rooms 100 of 10, 1,000 outstanding",
    transport: Transport::Plain,
    scenario: "rooms",
    changes: SHORTER_CLOSED,
    work: limit(Writing::Coalesced),
    targets: &[target("deliveries_per_second", Bound::TimesAtLeast(0.70))],
    round_seconds: 9.0,
    picture: None,
};

const PAIRS: Line = Line {
    number: 3,
    title: "pairs of 1,000, 10,000 msg/s",
    transport: Transport::Plain,
    scenario: "pairs",
    changes: SHORT,
    work: limit(Writing::OneByOne),
    targets: &[
        target("p50", Bound::AtMost(300.0)),
        target("p99", Bound::AtMost(1_000.0)),
        target("p99.9", Bound::AtMost(2_000.0)),
        target("lost", Bound::AtMost(0.0)),
    ],
    round_seconds: 11.0,
    picture: Some("pairs"),
};

const ECHO: Line = Line {
    number: 4,
    title: "echo",
    transport: Transport::Plain,
    scenario: "echo",
    changes: SHORTER,
    work: limit(Writing::OneByOne),
    targets: &[
        target("p50", Bound::TimesAtMost(1.2)),
        target("p99", Bound::TimesAtMost(1.5)),
    ],
    round_seconds: 8.0,
    picture: Some("echo"),
};

const STORM: Line = Line {
    number: 5,
    title: "storm of 5,000",
    transport: Transport::Plain,
    scenario: "storm",
    changes: &[],
    work: limit(Writing::OneByOne),
    targets: &[
        target("connects_per_second", Bound::AtLeast(6_000.0)),
        target("ready_p99", Bound::AtMost(50_000.0)),
        target("recovered_in", Bound::AtMost(3.0)),
        target("lost", Bound::AtMost(0.0)),
        target("duplicates", Bound::AtMost(0.0)),
    ],
    round_seconds: 5.5,
    picture: None,
};

const DEVICES: Line = Line {
    number: 8,
    title: "rooms 100 of 10, 1,000 msg/s, beside 1,000 plugs with 5 frames/s each",
    transport: Transport::Plain,
    scenario: "devices",
    changes: STORED,
    work: calm(Server::OfTheRun),
    targets: &[
        target("p99", Bound::TimesAtMost(1.2)),
        target("p50_added", Bound::AddsAtMost(5.0)),
        target("device_p99", Bound::AtMost(5_000.0)),
        target("device_lost", Bound::AtMost(0.0)),
        // A row of readings for each frame.
        target("store_readings_per_second", Bound::AtLeast(4_900.0)),
        // It gathers for a second (`store.flush_age`).
        target("store_drained_in", Bound::AtMost(2.0)),
    ],
    round_seconds: 18.0,
    picture: Some("devices"),
};

/// In the order in which they are run: first what wants a server that nobody has used, for those who bring their own.
pub(super) const LINES: [Line; 25] = [
    IDLE,
    FANOUT,
    ROOMS,
    SEARCHED,
    ROOMS_CLOSED,
    PAIRS,
    ECHO,
    STORM,
    Line {
        number: 7,
        title: "one of 1,000 stops reading",
        transport: Transport::Plain,
        scenario: "slow",
        changes: &[
            "load.rate=100",
            "load.warmup_seconds=0.3",
            "load.seconds=18",
            "shape.turns=18",
        ],
        work: Work::Turns,
        targets: &[
            target("p99", Bound::TimesAtMost(1.05)),
            // Or nothing was tried.
            target("fell_behind", Bound::AtLeast(1.0)),
            // What may wait for one reader (1 MiB), and what holding it takes.
            target("server_private_added", Bound::AtMost(2.0 * 1_048_576.0)),
        ],
        round_seconds: 70.0,
        picture: Some("slow"),
    },
    DEVICES,
    Line {
        number: 9,
        title: "another tenant floods",
        transport: Transport::Plain,
        scenario: "noisy",
        changes: SHORT,
        work: calm(Server::OfTheLine),
        targets: &[target("p99", Bound::TimesAtMost(2.0))],
        round_seconds: 12.0,
        picture: Some("noisy"),
    },
    Line {
        number: 10,
        title: "in process, publish to subscriber",
        transport: Transport::Plain,
        scenario: "",
        changes: &[],
        work: Work::InProcess,
        targets: &[
            target("p50", Bound::AtMost(5.0)),
            target("p99", Bound::AtMost(50.0)),
        ],
        round_seconds: 6.0,
        picture: None,
    },
    Line {
        number: 11,
        title: "rooms 100 of 10, 1,000 msg/s, with history, presence and recovery",
        transport: Transport::Plain,
        scenario: "rooms",
        changes: SHORT,
        work: FEATURES,
        targets: &[target("server_cpu_per_delivery", Bound::TimesAtMost(1.15))],
        round_seconds: 11.0,
        picture: None,
    },
    Line {
        number: 11,
        title: "rooms 100 of 10, 1,000 outstanding, with history, presence and recovery",
        transport: Transport::Plain,
        scenario: "rooms",
        changes: SHORTER_CLOSED,
        work: FEATURES,
        targets: &[target("deliveries_per_second", Bound::TimesAtLeast(0.85))],
        round_seconds: 9.0,
        picture: None,
    },
    Line {
        number: 12,
        title: "rooms 100 of 10, 1,000 msg/s, among 100,000 rooms and 10,000 connections",
        transport: Transport::Plain,
        scenario: "growth",
        changes: AMID,
        work: SIDE_BY_SIDE,
        targets: &[target("server_cpu_per_delivery", Bound::TimesAtMost(1.1))],
        round_seconds: 38.0,
        picture: Some("growth"),
    },
    Line {
        number: 12,
        title: "rooms 100 of 10, 1,000 outstanding, among 100,000 rooms and 10,000 connections",
        transport: Transport::Plain,
        scenario: "growth",
        changes: AMID_CLOSED,
        work: SIDE_BY_SIDE,
        targets: &[target("server_cpu_per_delivery", Bound::TimesAtMost(1.1))],
        round_seconds: 38.0,
        picture: None,
    },
    Line {
        title: "idle connections, TLS",
        transport: Transport::Tls,
        targets: &[target("bytes_a_connection", Bound::AtMost(4_096.0))],
        round_seconds: 12.0,
        ..IDLE
    },
    // Before the other lines over TLS: their rounds become fewer where time runs short, and a search cannot.
    SEARCHED.secured("rooms 100 of 10, highest rate with p99 ≤ 2 ms, TLS"),
    FANOUT.secured("fanout 1 to 1,000, 16 outstanding, TLS"),
    ROOMS.secured("rooms 100 of 10, 1,000 msg/s, TLS"),
    ROOMS_CLOSED.secured("rooms 100 of 10, 1,000 outstanding, TLS"),
    PAIRS.secured("pairs of 1,000, 10,000 msg/s, TLS"),
    ECHO.secured("echo, TLS"),
    STORM.secured("storm of 5,000, TLS"),
    DEVICES.secured("rooms 100 of 10, 1,000 msg/s, beside 1,000 plugs with 5 frames/s each, TLS"),
];

/// The lines behind these promises; all if none is named.
///
/// # Errors
/// If there is no such promise; in words for people.
pub(super) fn chosen(numbers: &[u8]) -> Result<Vec<&'static Line>, String> {
    if let Some(unknown) = numbers
        .iter()
        .find(|n| !LINES.iter().any(|line| line.number == **n))
    {
        let mut known: Vec<_> = LINES.iter().map(|line| line.number).collect();
        known.sort_unstable();
        known.dedup();
        let known: Vec<_> = known.iter().map(u8::to_string).collect();
        return Err(format!(
            "--lines: there is no line {unknown}, but {}",
            known.join(", ")
        ));
    }
    let asked_for = |line: &&Line| numbers.is_empty() || numbers.contains(&line.number);
    Ok(LINES.iter().filter(asked_for).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disturbed;
    use crate::scenario::Scenario;

    #[test]
    fn every_line_is_a_scenario_that_loads_and_has_what_it_is_measured_against() {
        for line in &LINES {
            let Work::Runs { against, .. } = line.work else {
                continue;
            };
            let changes: Vec<String> = line.changes.iter().map(|&c| c.to_owned()).collect();
            let scenario = Scenario::load(line.scenario, &changes).unwrap();
            let twin = disturbed::undisturbed(&scenario).is_some();
            assert_eq!(against == Against::Calm, twin, "{}", line.title);
            let relative = line.targets.iter().any(|target| target.bound.is_relative());
            assert!(against != Against::Nothing || !relative, "{}", line.title);
        }
    }

    #[test]
    fn a_round_takes_about_what_the_plan_says() {
        for line in &LINES {
            let Work::Runs { against, .. } = line.work else {
                continue;
            };
            let changes: Vec<String> = line.changes.iter().map(|&c| c.to_owned()).collect();
            let load = Scenario::load(line.scenario, &changes).unwrap().load;
            if matches!(line.scenario, "idle" | "storm") {
                continue;
            }
            let runs = if against == Against::Nothing { 1.0 } else { 2.0 };
            let loaded = runs * (load.warmup_seconds + load.seconds);
            assert!(
                (loaded..loaded + 7.0).contains(&line.round_seconds),
                "{}",
                line.title
            );
        }
    }

    #[test]
    fn the_classes_are_what_the_api_takes() {
        for classes in [FEATURES_ON, FEATURES_OFF] {
            let classes: serde_json::Value = serde_json::from_str(classes).unwrap();
            assert_eq!(classes[0]["rooms"], "loadtest:*");
        }
    }

    #[test]
    fn lines_are_chosen_by_their_promise_and_an_unknown_one_is_refused_in_words() {
        let two = chosen(&[2]).unwrap();
        let numbers: Vec<_> = two.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [2, 2, 2, 2, 2, 2]);
        assert_eq!(chosen(&[]).unwrap().len(), LINES.len());
        assert!(chosen(&[99]).unwrap_err().contains("1, 2, 3"));
    }

    #[test]
    fn over_tls_a_line_is_the_same_run_with_targets_of_its_own_only_for_memory() {
        let secured: Vec<_> = LINES
            .iter()
            .filter(|line| line.transport == Transport::Tls)
            .collect();
        assert_eq!(secured.len(), 9);
        for line in secured {
            let title = line.title.strip_suffix(", TLS").unwrap();
            let plain = LINES.iter().find(|plain| plain.title == title).unwrap();
            assert_eq!(
                (plain.number, plain.scenario, plain.changes, plain.work),
                (line.number, line.scenario, line.changes, line.work)
            );
            let figures = |line: &Line| -> Vec<_> { line.targets.iter().map(|t| t.figure).collect() };
            assert!(
                line.scenario == "idle" || figures(plain) == figures(line),
                "{title}"
            );
        }
    }
}
