//! What few subscribers ask for: a filter, or another policy than `reliable` for when they read too slowly.
//!
//! What must stay true: whatever waits here is bounded in messages and bytes, and what gives way is named as lost.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use bytes::Bytes;
use cauce_protocol::message::{Filter, Policy};
use cauce_protocol::wire::Feature;

use super::deliver::knows;
use super::peer::Peer;
use crate::publication::{Publication, Shared};
use crate::rooms::Lost;

/// Messages that wait for one subscriber under `latest` and `sample`: keys of which the newest is held.
pub(super) const NEWEST_KEYS_MAX: usize = 1_000;

/// Messages that wait for one subscriber under `drop_oldest`.
pub(super) const DROP_OLDEST_MESSAGES_MAX: usize = 256;

/// Messages that a filter keeps back before the client is told how far the room has come, so that its position is never
/// far behind.
const SKIPPED_MAX: u32 = 256;

/// What a subscriber asked for.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) policy: Policy,
    filter: Option<Box<Filter>>,
    skipped: u32,
    pub(super) waiting: Waiting,
    /// Under `sample`: nothing is sent before the present interval ends.
    pub(super) interval: Option<Interval>,
}

/// The timer of an interval. It ends with the subscription, or those who come and go would leave an hour's timers behind.
#[derive(Debug)]
pub(super) struct Interval(pub(super) tokio::task::AbortHandle);

impl Drop for Interval {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is to be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Into the outbox; if there is no room, the subscriber is behind.
    Give,
    /// Nothing.
    Skip,
    /// Nothing, but it is time to tell how far the room has come.
    Tell,
    /// Into the outbox if nothing waits before it, otherwise among what waits.
    Keep,
}

impl Options {
    /// `None` for one who wants everything, reliably.
    pub(super) fn new(policy: Policy, filter: Option<Box<Filter>>) -> Option<Box<Self>> {
        if policy == Policy::Reliable && filter.is_none() {
            return None;
        }
        Some(Box::new(Self {
            policy,
            filter,
            skipped: 0,
            waiting: Waiting::new(policy),
            interval: None,
        }))
    }

    /// Whether a message passes the filter.
    pub(super) fn passes(&self, publication: &Publication) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| filter.passes(publication.event.as_str(), publication.topic.as_str()))
    }

    pub(super) fn judge(&mut self, publication: &Publication, peer: &Rc<Peer>) -> Verdict {
        if !self.passes(publication) {
            self.skipped += 1;
            if self.skipped < SKIPPED_MAX || !knows(peer, Feature::Advance) || !self.waiting.is_empty() {
                return Verdict::Skip;
            }
            self.skipped = 0;
            return Verdict::Tell;
        }
        self.skipped = 0;
        match self.policy {
            Policy::Reliable => Verdict::Give,
            Policy::Latest | Policy::DropOldest | Policy::Sample { .. } => Verdict::Keep,
        }
    }
}

/// Whether a message is for the subscriber, or excludes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    Yes,
    No,
}

/// Messages that wait for a slow reader, lowest number first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    messages: BTreeMap<u64, Shared>,
    /// Number of the newest message of each key; not used under `drop_oldest`.
    newest: HashMap<Bytes, u64, foldhash::fast::RandomState>,
    by_key: bool,
    bytes: usize,
    lost: Option<Lost>,
}

impl Waiting {
    fn new(policy: Policy) -> Self {
        Self {
            by_key: policy != Policy::DropOldest,
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.lost.is_none()
    }

    /// Adds the newest message; older ones give way. One that is not `for_it` waits to be told as such, and takes nobody's
    /// place.
    pub(super) fn add(&mut self, publication: &Shared, for_it: Meant, bytes_max: usize) {
        if self.by_key && for_it == Meant::Yes {
            let key = publication.topic.as_bytes().clone();
            if let Some(older) = self.newest.insert(key, publication.seq.0) {
                // Replaced, not lost: that is what the subscriber asked for.
                self.take(older);
            }
        }
        self.bytes += publication.cost();
        self.messages.insert(publication.seq.0, publication.clone());
        let messages_max = match self.by_key {
            true => NEWEST_KEYS_MAX,
            false => DROP_OLDEST_MESSAGES_MAX,
        };
        while self.messages.len() > messages_max || (self.bytes > bytes_max && self.messages.len() > 1) {
            let Some((seq, oldest)) = self.messages.pop_first() else {
                break;
            };
            self.forget(&oldest);
            let from = self.lost.map_or(seq, |lost| lost.from);
            self.lost = Some(Lost { from, to: seq });
        }
    }

    /// The first number that the subscriber has still to be given or told.
    pub(super) fn begins(&self) -> Option<u64> {
        let first = self.messages.first_key_value().map(|(&seq, _)| seq);
        self.lost.map(|lost| lost.from).into_iter().chain(first).min()
    }

    /// What has given way since it was last asked.
    pub(super) fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// The loss has been told.
    pub(super) fn told(&mut self) {
        self.lost = None;
    }

    /// The next message to be sent.
    pub(super) fn first(&self) -> Option<&Shared> {
        self.messages.first_key_value().map(|(_, message)| message)
    }

    /// It has been sent.
    pub(super) fn sent(&mut self, seq: u64) {
        if let Some(publication) = self.take(seq) {
            let key = publication.topic.as_bytes();
            if self.newest.get(key) == Some(&seq) {
                self.newest.remove(key);
            }
        }
    }

    fn take(&mut self, seq: u64) -> Option<Shared> {
        let publication = self.messages.remove(&seq)?;
        self.bytes -= publication.cost();
        Some(publication)
    }

    fn forget(&mut self, publication: &Publication) {
        self.bytes -= publication.cost();
        let key = publication.topic.as_bytes();
        if self.newest.get(key) == Some(&publication.seq.0) {
            self.newest.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::publication::{Draft, RoomKey};
    use cauce_protocol::message::Text;
    use cauce_protocol::{Epoch, Payload, RoomId, Seq};
    use proptest::prelude::*;

    fn message(seq: u64, key: &str, bytes: usize) -> Shared {
        let draft = Draft {
            topic: Text::from(key),
            ..Draft::new(Text::from("e"), Payload::text("x".repeat(bytes)))
        };
        let mut publication = Publication::draft(draft, RoomKey(1), RoomId(1), Epoch(1));
        publication.seq = Seq(seq);
        Arc::new(publication)
    }

    proptest! {
        #[test]
        fn the_newest_of_each_key_waits_and_is_sent_in_order(
            steps in prop::collection::vec((prop::option::of(0u8..5), 0usize..50), 1..200),
        ) {
            let mut waiting = Waiting::new(Policy::Latest);
            let mut model: BTreeMap<String, u64> = BTreeMap::new();
            let (mut seq, mut last_sent) = (0, BTreeMap::<String, u64>::new());
            for (key, bytes) in steps {
                match key {
                    Some(key) => {
                        seq += 1;
                        waiting.add(&message(seq, &key.to_string(), bytes), Meant::Yes, usize::MAX);
                        model.insert(key.to_string(), seq);
                    }
                    None => {
                        let first = waiting.first().cloned();
                        let expected = model.iter().min_by_key(|(_, seq)| **seq).map(|(k, s)| (k.clone(), *s));
                        prop_assert_eq!(first.as_ref().map(|m| (m.topic.as_str().to_owned(), m.seq.0)), expected.clone());
                        if let Some((key, seq)) = expected {
                            waiting.sent(seq);
                            model.remove(&key);
                            prop_assert!(last_sent.insert(key, seq).is_none_or(|before| before < seq));
                        }
                    }
                }
                prop_assert_eq!(waiting.messages.len(), model.len());
                prop_assert_eq!(waiting.newest.len(), model.len());
                prop_assert_eq!(waiting.lost(), None);
            }
        }
    }

    #[test]
    fn what_waits_first_or_is_lost_is_where_the_subscriber_stands() {
        let mut waiting = Waiting::new(Policy::DropOldest);
        assert_eq!(waiting.begins(), None);
        for seq in 5..=5 + DROP_OLDEST_MESSAGES_MAX as u64 {
            waiting.add(&message(seq, "", 10), Meant::Yes, usize::MAX);
            assert_eq!(waiting.begins(), Some(5));
        }
        waiting.told();
        assert_eq!(waiting.begins(), Some(6));
    }

    #[test]
    fn the_oldest_gives_way_and_is_named() {
        let mut waiting = Waiting::new(Policy::DropOldest);
        for seq in 1..=DROP_OLDEST_MESSAGES_MAX as u64 + 3 {
            waiting.add(&message(seq, "same", 10), Meant::Yes, usize::MAX);
        }
        assert_eq!(waiting.lost(), Some(Lost { from: 1, to: 3 }));
        assert_eq!(waiting.first().unwrap().seq.0, 4);
        assert_eq!(waiting.begins(), Some(1));
        waiting.told();
        assert_eq!((waiting.lost(), waiting.begins()), (None, Some(4)));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut waiting = Waiting::new(Policy::Latest);
        let cost = message(1, "a", 1_000).cost();
        for (seq, key) in [(1, "a"), (2, "b"), (3, "c")] {
            waiting.add(&message(seq, key, 1_000), Meant::Yes, 2 * cost);
        }
        assert_eq!(waiting.lost(), Some(Lost { from: 1, to: 1 }));
        assert!(waiting.bytes <= 2 * cost);
        // A key that gave way is taken again like a new one.
        waiting.add(&message(4, "a", 10), Meant::Yes, 2 * cost);
        assert_eq!(waiting.newest.len(), waiting.messages.len());
    }

    #[test]
    fn a_filter_asks_for_event_and_key() {
        let filter = Filter {
            events: vec!["e".into()],
            keys: vec!["k".into(), "l".into()],
        };
        let options = Options::new(Policy::Reliable, Some(Box::new(filter))).unwrap();
        assert!(options.passes(&message(1, "k", 0)));
        assert!(!options.passes(&message(1, "m", 0)));
        assert!(Options::new(Policy::Reliable, None).is_none());
    }
}
