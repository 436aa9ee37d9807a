//! Whether the generator was the bottleneck: then nothing may be claimed. Pure.

use crate::engine::Pace;

/// Lateness above this share of the latency that is claimed ...
const LATE_SHARE_MAX: f64 = 0.25;
/// ... is the generator's fault, unless it is below what waking a thread and reading ten messages cost anyway, in microseconds.
const LATE_FLOOR_US: f64 = 100.0;
/// Lateness above this is its fault in any case, in microseconds.
const LATE_US_MAX: f64 = 500.0;
/// A thread that waits less than this share of the time has no time left.
const IDLE_SHARE_MIN: f64 = 0.05;
/// A server that leaves less than this share of its cores has none left either.
const SERVER_FULL_SHARE: f64 = 0.95;

/// What the rule about the bottleneck looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strain {
    pub(crate) pace: Pace,
    pub(crate) lateness_p99_us: f64,
    pub(crate) latency_p99_us: f64,
    /// Of the busiest thread.
    pub(crate) busy: f64,
    /// Share of its cores that the server used, where known.
    pub(crate) server_full: Option<f64>,
}

/// Why the generator was the bottleneck, if it was.
pub(crate) fn generator_bound(strain: &Strain) -> Option<String> {
    let Strain {
        pace,
        lateness_p99_us: late,
        latency_p99_us: latency,
        busy,
        server_full,
    } = *strain;
    if let Pace::Open { .. } = pace {
        if late > LATE_US_MAX {
            return Some(format!(
                "it sent up to {late:.0} µs late (p99), more than {LATE_US_MAX} µs"
            ));
        }
        if late > LATE_FLOOR_US && late > LATE_SHARE_MAX * latency {
            return Some(format!(
                "it sent up to {late:.0} µs late (p99), more than a quarter of the latency of {latency:.0} µs"
            ));
        }
    }
    let server_had_time = server_full.is_none_or(|full| full < SERVER_FULL_SHARE);
    (busy > 1.0 - IDLE_SHARE_MIN && server_had_time).then(|| {
        format!(
            "its busiest thread worked {:.0} % of the time, while the server {}",
            busy * 100.0,
            server_full.map_or_else(
                || "was not watched (--pid)".to_owned(),
                |full| format!("used {:.0} % of its cores", full * 100.0)
            )
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Strain = Strain {
        pace: Pace::Open {
            messages_per_second: 1.0,
            burst: 1,
        },
        lateness_p99_us: 40.0,
        latency_p99_us: 100.0,
        busy: 0.5,
        server_full: Some(0.5),
    };

    #[test]
    fn what_waking_up_costs_is_nobodys_fault() {
        assert_eq!(generator_bound(&CALM), None);
    }

    #[test]
    fn a_generator_that_sends_late_claims_nothing() {
        let late = |lateness_p99_us, latency_p99_us| {
            generator_bound(&Strain {
                lateness_p99_us,
                latency_p99_us,
                ..CALM
            })
        };
        assert!(late(110.0, 400.0).unwrap().contains("quarter"));
        assert_eq!(late(110.0, 500.0), None);
        assert_eq!(late(90.0, 100.0), None);
        assert!(late(501.0, 1e6).unwrap().contains("500"));
    }

    #[test]
    fn a_full_generator_beside_an_idle_server_claims_nothing() {
        let full = |busy, server_full| {
            generator_bound(&Strain {
                pace: Pace::Closed { outstanding: 1 },
                busy,
                server_full,
                lateness_p99_us: 9e9,
                ..CALM
            })
        };
        assert!(full(0.99, Some(0.6)).is_some());
        assert!(full(0.99, None).is_some());
        assert_eq!(full(0.99, Some(0.97)), None);
        assert_eq!(full(0.8, Some(0.6)), None);
    }
}
