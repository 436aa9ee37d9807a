//! The requests that the model predicts to the last number: join, publish, and pages of history.

use cauce_broker::publication::Draft;
use cauce_broker::rooms::Manner;
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::{Payload, wire};

use super::op::Since;
use super::roll::View;
use super::{EVENTS, KEYS, ROOMS, SHOWN, TENANTS, World, mark_of, tenant_of, user_of};
use crate::oracle::{Policy, Said, Sub};

/// A burst is larger than what sockets and outbox hold of one who does not read.
const BURST_MESSAGES: u64 = 120;
const BURST_BYTES: usize = 56 * 1024;

impl World {
    pub(super) async fn subscribe(
        &mut self,
        slot: usize,
        room: usize,
        since: &Since,
        mut sub: Sub,
        watch: bool,
    ) {
        let tenant = tenant_of(slot);
        let (head, first) = (self.rooms[tenant][room].head(), self.rooms[tenant][room].first());
        let remembered = self.slots[slot].positions.get(&room).copied();
        let (epoch, seq, recent) = match (since, remembered, self.rooms[tenant][room].epoch) {
            (Since::Remembered, Some((epoch, seq)), _) => (epoch, seq, 0),
            (Since::Wrong, _, Some(epoch)) => (epoch, head + 1, 0),
            (Since::Wrong, _, None) => (7, 0, 0),
            (Since::Recent(recent), ..) => (0, 0, *recent),
            (Since::Plain | Since::Remembered, ..) => (0, 0, 0),
        };
        let plain = epoch == 0
            && recent == 0
            && !watch
            && sub.policy == Policy::Reliable
            && sub.events.is_empty()
            && sub.keys.is_empty();
        let subscription = wire::Subscription {
            room: ROOMS[room].into(),
            epoch,
            seq,
            recent,
            delivery: match sub.policy {
                Policy::Reliable => wire::Delivery::Reliable,
                Policy::Latest => wire::Delivery::Latest,
                Policy::DropOldest => wire::Delivery::DropOldest,
                Policy::Sample => wire::Delivery::Sample,
            }
            .into(),
            sample_ms: if sub.policy == Policy::Sample { 10 } else { 0 },
            events: sub.events.clone(),
            keys: sub.keys.clone(),
            presence: if watch {
                wire::Watch::Users
            } else {
                wire::Watch::None
            }
            .into(),
        };
        let request = match plain {
            true => wire::Subscribe {
                rooms: vec![ROOMS[room].into()],
                ..wire::Subscribe::default()
            },
            false => wire::Subscribe {
                subscriptions: vec![subscription],
                ..wire::Subscribe::default()
            },
        };
        let outcome = self.ask(slot, Request::Subscribe(request)).await;
        if watch && !self.rolls[tenant].on {
            assert!(
                matches!(&outcome, Outcome::Error(error) if error.name == "conflict"),
                "{outcome:?}"
            );
            return;
        }
        let Outcome::Subscribed(subscribed) = outcome else {
            panic!("{outcome:?}");
        };
        let [told] = &subscribed.rooms[..] else {
            panic!("{subscribed:?}");
        };
        assert_eq!((told.name.as_str(), told.head), (ROOMS[room], head));
        self.rooms[tenant][room].check_epoch(told.epoch);
        let own = &mut self.slots[slot];
        own.numbers.insert(told.room, room);
        if let Some(joined) = own.subs.get_mut(&room) {
            joined.stands_at(&self.rooms[tenant][room], told.seq);
        } else {
            use wire::Recovery::{Continued, None, Partial, Reset};
            let expected = match (epoch, recent) {
                (0, 0) => (None, head, 0, 0),
                (0, recent) => (None, (head.saturating_sub(recent.into())).max(first - 1), 0, 0),
                _ if Some(epoch) != self.rooms[tenant][room].epoch || seq > head => (Reset, head, 0, 0),
                _ if seq + 1 < first => (Partial, first - 1, seq + 1, first - 1),
                _ => (Continued, seq, 0, 0),
            };
            assert_eq!(
                (told.recovery(), told.seq, told.lost_from, told.lost_to),
                expected,
                "epoch {epoch}, seq {seq}, recent {recent}; {first} to {head} are kept"
            );
            sub.from = told.seq;
            sub.after = told.seq;
            own.subs.insert(room, sub);
            if room == SHOWN {
                self.rolls[tenant].enter(user_of(slot));
            }
        }
        if watch && self.slots[slot].view.is_none() {
            // A watcher takes pages, and lays later changes over them.
            self.slots[slot].view = Some(View::default());
            self.take_page(slot).await;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one publish")]
    pub(super) async fn publish(
        &mut self,
        slot: usize,
        room: usize,
        event: &str,
        key: &str,
        myself: bool,
        exclude: Vec<u64>,
        repeat: Option<usize>,
    ) {
        let (tenant, user) = (tenant_of(slot), user_of(slot));
        let mark = self.mark(tenant);
        let repeat = repeat.map(|repeat| format!("i{repeat}"));
        let publish = wire::Publish {
            room: ROOMS[room].into(),
            event: event.into(),
            payload: Some(wire::publish::Payload::Text(mark.clone())),
            idempotency_key: repeat.clone().unwrap_or_default(),
            exclude_sender: myself,
            exclude: exclude.clone(),
            want_receivers: true,
            key: key.into(),
            ..wire::Publish::default()
        };
        let id = self.slots[slot].who.ids[0];
        let expected = match &repeat {
            Some(repeat) => {
                let repeats = &self.rooms[tenant][room].repeats;
                repeats.get(&(user.to_owned(), repeat.clone())).copied()
            }
            None => None,
        };
        let seq = expected.unwrap_or_else(|| {
            let mut excluded = exclude;
            excluded.extend(myself.then_some(id));
            let said = Said {
                event: event.into(),
                key: key.into(),
                mark,
                excluded,
                user: user.into(),
            };
            let log = &mut self.rooms[tenant][room];
            let seq = log.publish(said);
            if let Some(repeat) = repeat {
                log.repeats.insert((user.to_owned(), repeat), seq);
            }
            seq
        });
        let others = self.slots.iter().enumerate();
        let receivers = others
            .filter(|(other, own)| tenant_of(*other) == tenant && own.subs.contains_key(&room))
            .filter(|(other, _)| !(myself && *other == slot))
            .count();
        let outcome = self.ask(slot, Request::Publish(publish)).await;
        let Outcome::Published(published) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!((published.seq, published.repeated), (seq, expected.is_some()));
        if expected.is_none() {
            assert_eq!(published.receivers as usize, receivers);
        }
        self.rooms[tenant][room].check_epoch(published.epoch);
    }

    /// More at once than anyone takes who does not read.
    pub(super) fn burst(&mut self, tenant: usize, room: usize) {
        let hub = self.broker.server.hub().clone();
        let to = hub.tenants.get(TENANTS[tenant]).expect("a tenant");
        for n in 0..BURST_MESSAGES {
            let (event, key) = (EVENTS[n as usize % 2], KEYS[n as usize % 3]);
            let mark = self.mark(tenant);
            let text = format!("{mark} {}", "x".repeat(BURST_BYTES));
            let draft = Draft {
                topic: key.into(),
                ..Draft::new(event.into(), Payload::text(text))
            };
            let accepted = hub
                .publish(&to, ROOMS[room], draft, Manner::default())
                .expect("published");
            let log = &mut self.rooms[tenant][room];
            log.burst = true;
            let seq = log.publish(Said {
                event: event.into(),
                key: key.into(),
                mark,
                excluded: Vec::new(),
                user: String::new(),
            });
            assert_eq!(accepted.seq.0, seq);
            log.check_epoch(accepted.epoch.0);
        }
    }

    pub(super) async fn history(&mut self, slot: usize, room: usize, from: u64, backwards: bool, limit: u32) {
        let history = wire::History {
            room: ROOMS[room].into(),
            epoch: 0,
            from,
            backwards,
            limit,
        };
        let outcome = self.ask_page(slot, Request::History(history)).await;
        let Outcome::HistoryPage(page) = outcome else {
            panic!("{outcome:?}");
        };
        let log = &self.rooms[tenant_of(slot)][room];
        let (first, head) = (log.first(), log.head());
        let none = first > head;
        assert_eq!((page.first, page.head), (if none { 0 } else { first }, head));
        let expected: Vec<u64> = match backwards {
            false => (first.max(from + 1)..=head).collect(),
            true => {
                let end = if from == 0 { head + 1 } else { from.min(head + 1) };
                (first..end).rev().collect()
            }
        };
        let limit = if limit == 0 { 100 } else { limit as usize };
        let numbers: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
        // A page ends for its bytes as well.
        assert!(
            numbers.len() <= limit && expected.starts_with(&numbers),
            "{numbers:?} of {expected:?}"
        );
        assert!(
            log.burst || numbers.len() == limit.min(expected.len()),
            "a page that is not full"
        );
        assert!(!numbers.is_empty() || expected.is_empty());
        assert_eq!(page.more, numbers.len() < expected.len());
        for entry in &page.entries {
            let said = log.get(entry.seq);
            let Some(wire::history_entry::Payload::Text(text)) = &entry.payload else {
                panic!("{entry:?}");
            };
            assert_eq!(
                (&entry.event, &entry.key, mark_of(text), &entry.user),
                (&said.event, &said.key, said.mark.as_str(), &said.user)
            );
        }
    }
}
