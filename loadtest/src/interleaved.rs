//! `slow`: the others, while some do not read, against the same others while all do: by turns, over the same connections.
//!
//! What is looked for is a difference of a few percent in a 99th percentile, and two runs on one machine differ by more. So both states are
//! measured in one session, in short turns right beside each other, and each turn is compared with its neighbour: what the machine does
//! meanwhile meets both. The order is stalled, calm, calm, stalled, and again, so that a drift falls on both alike.
//!
//! What must stay true: before each change of state the same burst goes to all, as much as it takes until the server's bound for one reader
//! is passed; so in a stalled turn the bound is reached and not only approached, and a calm turn comes after the same work.

use crate::dialect::Dialect;
use crate::engine::Dialled;
use crate::median::{interval, median};
use crate::metrics;
use crate::report::{Better, Figures, Outcome, Unit};
use crate::scenario::{Load, Scenario};
use crate::session::{Place, Session};
use crate::steady::{self, About, Account, IN_FLIGHT, Measured};

/// Messages of the burst that are under way at a time.
const BURST_OUTSTANDING: u32 = 16;
/// Bytes of their payloads at least: what waits is bounded in bytes, and a byte comes cheaper in a longer message.
const BURST_PAYLOAD_BYTES: usize = 1024;
/// The burst comes in slices, in seconds, and ends when a reader has fallen behind ...
const BURST_SLICE_SECONDS: f64 = 0.25;
/// ... or after so many, for a server that never bounds what waits.
const BURST_SLICES_MAX: u32 = 12;
/// How many there are where the server does not tell.
const BURST_SLICES_BLIND: u32 = 4;
/// For who reads again to read what waits, and to learn what has become of its connection, in nanoseconds.
const RESUMED_NS: u64 = 50_000_000;
/// What the server counts when a reader's bound is passed.
const FELL_BEHIND: &str = "cauce_fell_behind_total";

/// Who reads in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not those who are to stop.
    Stalled,
    Calm,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Interleaved {
    /// All stalled turns together, and all calm ones.
    pub(crate) here: Outcome,
    pub(crate) calm: Outcome,
    /// Each stalled turn, which has what is known of the session as a whole too, with the calm one beside it.
    pub(crate) pairs: Vec<(Outcome, Outcome)>,
}

/// The states of a pair's two turns.
fn order(pair: u32) -> [State; 2] {
    match pair % 2 {
        0 => [State::Stalled, State::Calm],
        _ => [State::Calm, State::Stalled],
    }
}

/// Runs `turns` turns in each state, which share the scenario's seconds.
///
/// # Errors
/// If it could not be run; in words for people.
pub(crate) fn run(
    scenario: &Scenario,
    turns: u32,
    names: [&str; 3],
    place: &Place,
) -> Result<Interleaved, String> {
    let mut session = Session::open(scenario, place)?;
    let dialled = session.connect(0..u32::MAX, IN_FLIGHT)?;
    let mut both = Both {
        scenario,
        names,
        place,
        dialled,
        session,
        state: None,
        slices: BURST_SLICES_BLIND,
        counts: counts(place),
        fell_behind: 0,
    };
    let mut all: [Option<Measured>; 2] = [None, None];
    let mut private: [Vec<f64>; 2] = Default::default();
    let mut pairs = Vec::new();
    for pair in 0..turns {
        let mut turn = |state| -> Result<(Measured, Outcome), String> {
            let (measured, outcome) = both.turn(state, turns)?;
            let server = measured.server.iter();
            private[state as usize].extend(server.map(|server| server.private_bytes as f64));
            match &mut all[state as usize] {
                Some(all) => all.add(&measured),
                none => *none = Some(measured.clone()),
            }
            Ok((measured, outcome))
        };
        let [first, second] = order(pair);
        let ((_, one), (_, other)) = (turn(first)?, turn(second)?);
        pairs.push(match first {
            State::Stalled => (one, other),
            State::Calm => (other, one),
        });
    }
    let account = Account::of(&both.session);
    let [Some(here), Some(calm)] = all else {
        return Err("shape.turns must be at least 1".to_owned());
    };
    let mut here = both.tell(here, State::Stalled, &account);
    let calm = both.tell(calm, State::Calm, &account);
    let mut figures = Figures::default();
    if both.counts {
        figures.count("fell_behind", both.fell_behind);
    }
    figures.count("thrown_out", account.tally.thrown_out);
    let [stalled_bytes, calm_bytes] = private.map(|bytes| median(bytes.into_iter()));
    if let Some((stalled, calm)) = stalled_bytes.zip(calm_bytes) {
        figures.put("server_private_added", stalled - calm, Unit::Bytes, Better::Lower);
    }
    for (one, _) in &mut pairs {
        one.metrics.extend(figures.0.iter().cloned());
    }
    compare(&mut figures, &pairs);
    here.metrics.extend(figures.0);
    if !both.counts {
        here.notes.push(
            "whether the stalled have filled what the server keeps for them is not known: it was not asked"
                .to_owned(),
        );
    } else if both.fell_behind == 0 {
        here.notes
            .push("nobody has filled what the server keeps for a reader".to_owned());
    }
    Ok(Interleaved { here, calm, pairs })
}

/// Each stalled turn by its neighbour.
fn compare(figures: &mut Figures, pairs: &[(Outcome, Outcome)]) {
    let both = |name: &str| -> Vec<(f64, f64)> {
        let value = |outcome: &Outcome| outcome.metric(name).map(|metric| metric.value);
        let pairs = pairs.iter();
        pairs
            .filter_map(|(here, calm)| value(here).zip(value(calm)))
            .collect()
    };
    let added = both("p50").into_iter().map(|(here, calm)| here - calm);
    if let Some(added) = median(added) {
        figures.put("p50_added", added, Unit::Micros, Better::Lower);
    }
    let ratios = both("p99").into_iter().filter(|&(_, calm)| calm > 0.0);
    let ratios: Vec<f64> = ratios.map(|(here, calm)| here / calm).collect();
    if let Some(ratio) = median(ratios.iter().copied()) {
        figures.put("p99_ratio", ratio, Unit::Share, Better::Lower);
    }
    if let Some((low, high)) = interval(&ratios) {
        figures.put("p99_ratio_at_least", low, Unit::Share, Better::Neither);
        figures.put("p99_ratio_at_most", high, Unit::Share, Better::Neither);
    }
}

/// Both states of one session.
struct Both<'a> {
    scenario: &'a Scenario,
    /// Of the scenario, of the server, and of the server undisturbed.
    names: [&'a str; 3],
    place: &'a Place,
    dialled: Dialled,
    session: Session,
    state: Option<State>,
    /// Of the last burst that was looked at.
    slices: u32,
    /// The server tells who fell behind.
    counts: bool,
    /// Readers that did, in all.
    fell_behind: u64,
}

impl Both<'_> {
    fn turn(&mut self, state: State, turns: u32) -> Result<(Measured, Outcome), String> {
        if self.state != Some(state) {
            self.change(state)?;
        }
        let mut turn = self.scenario.clone();
        turn.load.seconds /= f64::from(turns);
        let measured = steady::window(&mut self.session, &turn, self.place)?;
        let account = Account::of(&self.session);
        let outcome = self.tell(measured.clone(), state, &account);
        Ok((measured, outcome))
    }

    fn tell(&self, measured: Measured, state: State, account: &Account) -> Outcome {
        let [name, stalled, calm] = self.names;
        let about = About {
            scenario: self.scenario,
            name,
            server: match state {
                State::Stalled => stalled,
                State::Calm => calm,
            },
            positions: self.place.dialect.has_positions(),
            ready: &self.dialled.ready,
        };
        let mut outcome = measured.outcome(about, account);
        outcome.tls = self.session.tls();
        outcome
    }

    /// Puts all connections into a state, and bursts.
    fn change(&mut self, state: State) -> Result<(), String> {
        for shard in &mut self.session.shards {
            match state {
                State::Calm => shard.resume(),
                // A kernel that has once sent much to a connection keeps more for it from then on: a new one begins with little.
                State::Stalled => shard.cut_stalled(),
            }
            shard.pump(RESUMED_NS, |_| false).map_err(|e| e.to_string())?;
        }
        // Who was thrown out comes back too.
        self.session.connect(0..u32::MAX, IN_FLIGHT)?;
        if state == State::Stalled {
            for shard in &mut self.session.shards {
                shard.stall();
            }
        }
        if state == State::Stalled && self.counts {
            let before = self.counted()?;
            self.slices = 0;
            while self.slices < BURST_SLICES_MAX && self.counted()? == before {
                self.burst(1)?;
                self.slices += 1;
            }
            self.fell_behind += self.counted()? - before;
        } else {
            self.burst(self.slices)?;
        }
        self.state = Some(state);
        Ok(())
    }

    fn burst(&mut self, slices: u32) -> Result<(), String> {
        let mut burst = self.scenario.clone();
        burst.load = Load {
            rate: None,
            outstanding: Some(BURST_OUTSTANDING),
            warmup_seconds: 0.0,
            seconds: BURST_SLICE_SECONDS * f64::from(slices.max(1)),
            ..burst.load
        };
        let payload = burst.load.payload_bytes;
        for shard in &mut self.session.shards {
            shard.set_payload(payload.max(BURST_PAYLOAD_BYTES));
        }
        let outcome = steady::window(&mut self.session, &burst, self.place);
        for shard in &mut self.session.shards {
            shard.set_payload(payload);
        }
        outcome.map(|_| ())
    }

    /// How many readers have fallen behind since the server started.
    fn counted(&self) -> Result<u64, String> {
        let text = metrics::read(self.place.api.at(self.place.target))?;
        Ok(metrics::sum(&text, FELL_BEHIND, "") as u64)
    }
}

/// Whether the server tells who has fallen behind. It is asked in the clear: not where TLS is spoken.
fn counts(place: &Place) -> bool {
    place.dialect == Dialect::Cauce
        && !place.tls.is_on()
        && metrics::read(place.api.at(place.target)).is_ok_and(|text| text.contains(FELL_BEHIND))
}

/// Both states as two outcomes, for whoever wants no pairs.
///
/// # Errors
/// As for [`run`].
pub(crate) fn together(
    scenario: &Scenario,
    turns: u32,
    names: [&str; 3],
    place: &Place,
) -> Result<(Outcome, Outcome), String> {
    let Interleaved { here, calm, .. } = run(scenario, turns, names, place)?;
    Ok((here, calm))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::tests::outcome;

    #[test]
    fn neighbours_are_of_both_states_and_the_state_changes_once_a_pair() {
        let turns: Vec<State> = (0..4).flat_map(order).collect();
        for pair in turns.chunks(2) {
            assert_ne!(pair[0], pair[1]);
        }
        let changes = turns.windows(2).filter(|two| two[0] != two[1]).count();
        assert_eq!(changes, 4);
    }

    #[test]
    fn turns_are_compared_with_their_neighbours_and_the_spread_is_told() {
        let run = |p99: f64| {
            let mut figures = Figures::default();
            figures.put("p99", p99, Unit::Micros, Better::Lower);
            outcome(figures)
        };
        // The machine is twice as slow in every second pair.
        let pairs: Vec<_> = (0..7)
            .map(|n| {
                let calm = 100.0 * f64::from(1 + n % 2);
                (run(calm * (1.0 + f64::from(n) / 100.0)), run(calm))
            })
            .collect();
        let mut figures = Figures::default();
        compare(&mut figures, &pairs);
        let of = |name: &str| figures.0.iter().find(|metric| metric.name == name).unwrap().value;
        assert!((of("p99_ratio") - 1.03).abs() < 1e-9);
        assert!(
            (of("p99_ratio_at_least") - 1.0).abs() < 1e-9 && (of("p99_ratio_at_most") - 1.06).abs() < 1e-9
        );
    }
}
