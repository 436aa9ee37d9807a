//! `slow`: the others, while some do not read, against the same others while all do: by turns, over the same connections.
//!
//! What is looked for is a difference of a few percent in a 99th percentile, and two runs on one machine differ by more. So both states are
//! measured in one session, in short turns right beside each other: what the machine does meanwhile meets both, and a pair of neighbours in which
//! the generator was late is left out as a pair. The order is stalled, calm, calm, stalled, and again, so that a drift falls on both alike.
//!
//! What must stay true: before each change of state the same burst goes to all, as much as it takes until the server's bound for one reader
//! is passed; so in a stalled turn the bound is reached and not only approached, and a calm turn comes after the same work.

use crate::dialect::Dialect;
use crate::disturbed;
use crate::engine::Dialled;
use crate::http::Door;
use crate::median::{interval, median};
use crate::metrics;
use crate::report::{Better, Figures, Outcome, Unit, micros};
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
/// Of a turn's latencies, what is compared.
const P99: f64 = 0.99;
/// What the server counts when a reader's bound is passed.
const FELL_BEHIND: &str = "cauce_fell_behind_total";

/// Who reads in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not those who are to stop.
    Stalled,
    Calm,
}

/// The states of a pair's two turns.
fn order(pair: u32) -> [State; 2] {
    match pair % 2 {
        0 => [State::Stalled, State::Calm],
        _ => [State::Calm, State::Stalled],
    }
}

/// What both states came to.
#[derive(Debug)]
pub(crate) struct Found {
    /// All stalled turns together.
    pub(crate) here: Outcome,
    /// All calm ones.
    pub(crate) calm: Outcome,
    /// Of each pair, the 99th percentiles of its stalled turn and of its calm one, in microseconds.
    pub(crate) p99: Vec<(f64, f64)>,
}

/// Runs `turns` turns in each state, which share the scenario's seconds. Of pairs of neighbours in which the generator was late, none counts
/// if most others do. `names` are the scenario's, the server's, and the undisturbed server's.
///
/// # Errors
/// If it could not be run; in words for people.
pub(crate) fn run(scenario: &Scenario, turns: u32, names: [&str; 3], place: &Place) -> Result<Found, String> {
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
        door: telling(place),
        fell_behind: 0,
    };
    let mut pairs: Vec<[Measured; 2]> = Vec::new();
    for pair in 0..turns {
        let [first, second] = order(pair);
        let (one, other) = (both.turn(first, turns)?, both.turn(second, turns)?);
        pairs.push(match first {
            State::Stalled => [one, other],
            State::Calm => [other, one],
        });
    }
    // A pair in which the generator was late says nothing; neither do the others if most are like that.
    let is_sound = |pair: &[Measured; 2]| pair.iter().all(|turn| turn.generator_bound().is_none());
    let sound = pairs.iter().filter(|pair| is_sound(pair)).count();
    if sound * 2 > pairs.len() {
        pairs.retain(is_sound);
    }
    let account = Account::of(&both.session);
    let together = |state: State| {
        let mut turns = pairs.iter().map(|pair| &pair[state as usize]);
        let mut all = turns.next()?.clone();
        turns.for_each(|turn| all.add(turn));
        Some(all)
    };
    let (Some(stalled), Some(calm)) = (together(State::Stalled), together(State::Calm)) else {
        return Err("shape.turns must be at least 1".to_owned());
    };
    let mut here = both.tell(stalled, State::Stalled, &account);
    let calm = both.tell(calm, State::Calm, &account);
    let mut figures = Figures::default();
    if both.door.is_some() {
        figures.count("fell_behind", both.fell_behind);
    }
    figures.count("thrown_out", account.tally.thrown_out);
    let private = |state: State| {
        let turns = pairs.iter().map(|pair| &pair[state as usize]);
        median(turns.filter_map(|turn| Some(turn.server?.private_bytes as f64)))
    };
    let (stalled_bytes, calm_bytes) = (private(State::Stalled), private(State::Calm));
    if let Some((stalled, calm)) = stalled_bytes.zip(calm_bytes) {
        figures.put("server_private_added", stalled - calm, Unit::Bytes, Better::Lower);
    }
    figures.count("pairs", pairs.len() as u64);
    here.metrics.extend(figures.0);
    disturbed::hold_against(&mut here, &calm);
    let p99_of = |turn: &Measured| micros(turn.latency().value_at_quantile(P99));
    let p99: Vec<_> = pairs
        .iter()
        .map(|[stalled, calm]| (p99_of(stalled), p99_of(calm)))
        .collect();
    by_pairs(&mut here, &p99);
    if both.door.is_none() {
        here.notes.push(
            "whether the stalled have filled what the server keeps for them is not known: it was not asked"
                .to_owned(),
        );
    } else if both.fell_behind == 0 {
        here.notes
            .push("nobody has filled what the server keeps for a reader".to_owned());
    }
    Ok(Found { here, calm, p99 })
}

/// The ratio of the 99th percentiles is that of the pair in the middle: a machine that becomes slower for some seconds makes both turns of a pair
/// slower, and decides the 99th percentile of all turns together by itself.
fn by_pairs(here: &mut Outcome, p99: &[(f64, f64)]) {
    let ratios: Vec<f64> = p99
        .iter()
        .filter(|(_, calm)| *calm > 0.0)
        .map(|(stalled, calm)| stalled / calm)
        .collect();
    let Some(ratio) = median(ratios.iter().copied()) else {
        return;
    };
    let mut figures = Figures::default();
    figures.put("p99_ratio", ratio, Unit::Share, Better::Lower);
    if let Some((low, high)) = interval(&ratios) {
        figures.put("p99_ratio_at_least", low, Unit::Share, Better::Neither);
        figures.put("p99_ratio_at_most", high, Unit::Share, Better::Neither);
    }
    here.metrics.retain(|metric| metric.name != "p99_ratio");
    here.metrics.extend(figures.0);
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
    /// Where the server tells who fell behind.
    door: Option<Door>,
    /// Readers that did, in all.
    fell_behind: u64,
}

impl Both<'_> {
    fn turn(&mut self, state: State, turns: u32) -> Result<Measured, String> {
        if self.state != Some(state) {
            self.change(state)?;
        }
        let mut turn = self.scenario.clone();
        turn.load.seconds /= f64::from(turns);
        steady::window(&mut self.session, &turn, self.place)
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
        if let Some(door) = self.door.clone().filter(|_| state == State::Stalled) {
            let before = counted(&door)?;
            self.slices = 0;
            while self.slices < BURST_SLICES_MAX && counted(&door)? == before {
                self.burst(1)?;
                self.slices += 1;
            }
            // A server that has started anew counts from nothing.
            self.fell_behind += counted(&door)?.saturating_sub(before);
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
}

/// How many readers have fallen behind since the server started.
fn counted(door: &Door) -> Result<u64, String> {
    Ok(metrics::sum(&metrics::read(door)?, FELL_BEHIND, "") as u64)
}

/// Where the server tells who has fallen behind; None if it does not.
fn telling(place: &Place) -> Option<Door> {
    if place.dialect != Dialect::Cauce {
        return None;
    }
    let door = place.door().ok()?;
    let tells = metrics::read(&door).is_ok_and(|text| text.contains(FELL_BEHIND));
    tells.then_some(door)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_ratio_is_that_of_the_pair_in_the_middle_whatever_becomes_of_the_machine() {
        let mut figures = Figures::default();
        figures.put("p99_ratio", 9.0, Unit::Share, Better::Lower);
        let mut here = crate::assertion::tests::outcome(figures);
        // The machine is half as fast from the third pair on, and something else took a moment of the last but one.
        let pairs = [
            (1_020.0, 1_000.0),
            (1_030.0, 1_000.0),
            (2_060.0, 2_000.0),
            (2_080.0, 2_000.0),
            (9_000.0, 2_000.0),
            (2_000.0, 2_000.0),
        ];
        by_pairs(&mut here, &pairs);
        let value = |name: &str| here.metric(name).map(|metric| metric.value);
        assert_eq!(value("p99_ratio"), Some(1.03));
        assert_eq!(value("p99_ratio_at_least"), Some(1.0));
        assert_eq!(value("p99_ratio_at_most"), Some(4.5));
        by_pairs(&mut here, &pairs[..5]);
        assert_eq!(here.metrics.iter().filter(|m| m.name == "p99_ratio").count(), 1);
    }
}
