//! What became of the messages of a run, from the ledgers of those who were to get them.

use crate::engine::Tally;
use crate::report::Figures;
use crate::session::Session;

/// The counts of a run, from its ledgers.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) tally: Tally,
    pub(crate) lost: u64,
    pub(crate) doubles: u64,
    pub(crate) late: u64,
}

impl Account {
    pub(crate) fn of(session: &Session) -> Self {
        let topology = &session.world.topology;
        let mut sent = vec![0; topology.publishers.len()];
        for publisher in session.shards.iter().flat_map(|shard| &shard.publishers) {
            sent[publisher.index as usize] = publisher.sent;
        }
        let mut account = Self {
            tally: session.tally(),
            ..Self::default()
        };
        let seats = session.shards.iter().flat_map(|shard| &shard.seats);
        for seat in seats.filter(|seat| !seat.stalled) {
            let rooms = topology.seats[seat.index as usize].rooms.iter();
            let publishers = rooms.flat_map(|room| &topology.rooms[*room as usize].publishers);
            for (publisher, ledger) in publishers.zip(&seat.ledgers) {
                account.lost += ledger.lost(sent[*publisher as usize]);
                account.doubles += u64::from(ledger.doubles);
                account.late += u64::from(ledger.late);
            }
        }
        // What the server refused, and said so, is not lost.
        account.lost = account.lost.saturating_sub(account.tally.refused_receipts);
        account
    }

    /// What is not as it should be, in words.
    pub(crate) fn faults(&self) -> Option<String> {
        let faults = [
            (self.lost, "lost"),
            (self.tally.refused, "refused"),
            (self.doubles, "doubled"),
            (self.late, "out of order"),
            (self.tally.foreign, "not ours"),
            (self.tally.disconnected, "connections ended"),
        ];
        let faults: Vec<_> = faults
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!faults.is_empty()).then(|| faults.join(", "))
    }

    /// Why connections ended and requests were refused.
    pub(super) fn reasons(&self) -> Vec<String> {
        let reasons = self.tally.reasons.iter();
        reasons.map(|(why, n)| format!("{n} × {why}")).collect()
    }

    /// `positions` says whether rooms have sequences: where they have none, none can break.
    pub(super) fn figures(&self, figures: &mut Figures, positions: bool) {
        let tally = &self.tally;
        figures.count("sent", tally.sent);
        figures.count("received", tally.received);
        figures.fault("lost", self.lost);
        figures.fault("refused", tally.refused);
        figures.fault("duplicates", self.doubles);
        figures.fault("reordered", self.late);
        if positions {
            figures.fault("sequence_breaks", tally.sequence_breaks);
            figures.fault("told_lost", tally.told_lost);
        }
        figures.fault("foreign", tally.foreign);
        figures.fault("disconnected", tally.disconnected);
        if tally.churned > 0 {
            figures.count("churned", tally.churned);
            figures.count("continued", tally.recovered.continued);
            figures.fault("partial", tally.recovered.partial);
            figures.fault("reset", tally.recovered.reset);
        }
    }
}
