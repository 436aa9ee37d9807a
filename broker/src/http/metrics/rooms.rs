//! Figures of rooms: who fell behind, what was had again and what was lost, who is there.

use std::fmt;

use super::Node;
use crate::http::exposition::Writer;
use crate::metrics::{Counter, ShardMetrics};

impl Node {
    pub(super) fn recovery(&self, out: &mut Writer<'_>) -> fmt::Result {
        let mut sum =
            |name, help, counter: fn(&ShardMetrics) -> &Counter| out.counter(name, help, self.total(counter));
        sum(
            "cauce_subscribers_fell_behind",
            "Subscribers that read too slowly and went on from history",
            |m| &m.fell_behind,
        )?;
        sum(
            "cauce_messages_recovered",
            "Messages given from history, to who came back or was slow",
            |m| &m.recovered,
        )?;
        sum(
            "cauce_gaps",
            "Losses that subscribers were told of, or closed for",
            |m| &m.gaps,
        )?;
        sum(
            "cauce_messages_lost",
            "Messages in them, one for each subscriber that lost it",
            |m| &m.lost,
        )?;
        let mut history = 0;
        self.0
            .hub
            .tenants
            .for_each(|tenant| history += tenant.rooms.history_bytes() as u64);
        out.gauge(
            "cauce_history_bytes",
            "Bytes of history that rooms keep in memory",
            history,
        )
    }

    pub(super) fn presence(&self, out: &mut Writer<'_>) -> fmt::Result {
        let mut sum =
            |name, help, counter: fn(&ShardMetrics) -> &Counter| out.counter(name, help, self.total(counter));
        sum(
            "cauce_presence_changes",
            "Changes of who is in a room that were handed to watchers",
            |m| &m.presence_changes,
        )?;
        sum(
            "cauce_presence_truncated",
            "Those among them that told counts because names were too many or had been missed",
            |m| &m.presence_truncated,
        )?;
        sum(
            "cauce_presence_missed",
            "Changes of who is in a room that a watcher did not get because he reads slowly",
            |m| &m.presence_missed,
        )?;
        out.gauge(
            "cauce_presence_users",
            "Users in rooms that keep presence; one in two rooms counts twice",
            self.0.hub.presence.present() as u64,
        )
    }
}
