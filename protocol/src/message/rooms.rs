//! Requests about rooms: joining with a position, a policy and a filter; history; presence.

use std::collections::HashSet;

use crate::code::{Code, Refusal};
use crate::ids::{Epoch, Position, RoomName, Seq, UserId};
use crate::limits::{
    FILTER_EVENTS_MAX, FILTER_KEYS_MAX, PAGE_MAX, REQUEST_ENTRIES_MAX, ROOMS_A_REQUEST_MAX, SAMPLE_MS_MAX,
    SAMPLE_MS_MIN,
};
use crate::wire;

use super::{bounded_count, check_event, check_key, invalid, unknown, whole};

/// A room to join, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub room: RoomName,
    /// Up to where the client has seen the room.
    pub since: Option<Position>,
    /// Without a position: how many messages back to begin.
    pub recent: u32,
    /// `None` leaves it to the room's class.
    pub policy: Option<Policy>,
    /// `None` lets everything pass.
    pub filter: Option<Box<Filter>>,
    pub watch: Watch,
}

impl Subscription {
    /// From now on, everything, as the class says.
    pub fn new(room: RoomName) -> Self {
        Self {
            room,
            since: None,
            recent: 0,
            policy: None,
            filter: None,
            watch: Watch::None,
        }
    }
}

/// What happens when a reader falls behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Everything in order, from history if need be; what is lost is told.
    #[default]
    Reliable,
    /// The newest of each key.
    Latest,
    /// The oldest of what waits is lost, and told.
    DropOldest,
    /// The newest of each key, once in this many milliseconds.
    Sample { every_ms: u32 },
}

/// Which messages a subscriber wants. An empty list lets everything pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub events: Vec<Box<str>>,
    pub keys: Vec<Box<str>>,
}

impl Filter {
    /// Whether a message with this event and key passes.
    pub fn passes(&self, event: &str, key: &str) -> bool {
        let listed =
            |list: &[Box<str>], name: &str| list.is_empty() || list.iter().any(|entry| **entry == *name);
        listed(&self.events, event) && listed(&self.keys, key)
    }
}

/// What a subscriber is told of those who come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watch {
    #[default]
    None,
    Counts,
    Users,
}

/// A page of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub room: RoomName,
    /// `None` means the present numbering.
    pub epoch: Option<Epoch>,
    pub from: Seq,
    pub direction: Direction,
    /// 0 means the default.
    pub limit: u32,
}

/// Which way a page of history goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Messages after `from`, oldest first.
    #[default]
    Forwards,
    /// Messages before `from`, newest first; 0 means from the newest.
    Backwards,
}

/// A page of those present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    pub room: RoomName,
    pub after: Option<UserId>,
    /// 0 means the default.
    pub limit: u32,
    pub counts_only: bool,
}

pub(super) fn check_subscribe(subscribe: &wire::Subscribe) -> Result<Vec<Subscription>, Refusal> {
    let count = subscribe.rooms.len() + subscribe.subscriptions.len();
    if count == 0 {
        return Err(Refusal::new(
            Code::Invalid,
            "rooms is empty: name at least one room",
        ));
    }
    bounded_count("rooms", count, ROOMS_A_REQUEST_MAX)?;
    let filters = subscribe
        .subscriptions
        .iter()
        .map(|s| s.events.len() + s.keys.len());
    bounded_count("all filters together", filters.sum(), REQUEST_ENTRIES_MAX)?;
    check_once(subscribe)?;
    let plain = subscribe
        .rooms
        .iter()
        .map(|room| check_room(room).map(Subscription::new));
    plain
        .chain(subscribe.subscriptions.iter().map(check_subscription))
        .collect()
}

/// A room with options may be named once: with two positions or two policies, nobody could tell which was meant. Plain rooms
/// may repeat themselves, as ever.
fn check_once(subscribe: &wire::Subscribe) -> Result<(), Refusal> {
    if subscribe.subscriptions.is_empty() {
        return Ok(());
    }
    let mut named: HashSet<&str> = subscribe.rooms.iter().map(String::as_str).collect();
    match subscribe.subscriptions.iter().find(|s| !named.insert(&s.room)) {
        None => Ok(()),
        // The name is not repeated here: it has not been checked.
        Some(_) => Err(Refusal::new(
            Code::Invalid,
            "a room with options is named twice; name it once",
        )),
    }
}

fn check_subscription(subscription: &wire::Subscription) -> Result<Subscription, Refusal> {
    let wire::Subscription {
        room,
        epoch,
        seq,
        recent,
        delivery,
        sample_ms,
        events,
        keys,
        presence,
    } = subscription;
    let filter = if events.is_empty() && keys.is_empty() {
        None
    } else {
        bounded_count("events", events.len(), FILTER_EVENTS_MAX)?;
        bounded_count("keys", keys.len(), FILTER_KEYS_MAX)?;
        events.iter().try_for_each(|event| check_event(event))?;
        keys.iter().try_for_each(|key| check_key(key))?;
        let boxed = |list: &[String]| list.iter().map(|entry| entry.as_str().into()).collect();
        Some(Box::new(Filter {
            events: boxed(events),
            keys: boxed(keys),
        }))
    };
    Ok(Subscription {
        room: check_room(room)?,
        since: match whole("epoch", *epoch)? {
            0 => None,
            epoch => Some(Position {
                epoch: Epoch(epoch),
                seq: Seq(whole("seq", *seq)?),
            }),
        },
        recent: *recent,
        policy: check_policy(*delivery, *sample_ms)?,
        filter,
        watch: check_watch(*presence)?,
    })
}

fn check_policy(delivery: i32, sample_ms: u32) -> Result<Option<Policy>, Refusal> {
    use wire::Delivery;
    Ok(Some(match Delivery::try_from(delivery) {
        Ok(Delivery::Default) => return Ok(None),
        Ok(Delivery::Reliable) => Policy::Reliable,
        Ok(Delivery::Latest) => Policy::Latest,
        Ok(Delivery::DropOldest) => Policy::DropOldest,
        Ok(Delivery::Sample) if (SAMPLE_MS_MIN..=SAMPLE_MS_MAX).contains(&sample_ms) => {
            Policy::Sample { every_ms: sample_ms }
        }
        Ok(Delivery::Sample) => {
            let message = format!("sample_ms must be from {SAMPLE_MS_MIN} to {SAMPLE_MS_MAX}");
            return Err(Refusal::new(Code::Invalid, message));
        }
        Err(_) => return Err(unknown("delivery")),
    }))
}

fn check_watch(watch: i32) -> Result<Watch, Refusal> {
    match wire::Watch::try_from(watch) {
        Ok(wire::Watch::None) => Ok(Watch::None),
        Ok(wire::Watch::Counts) => Ok(Watch::Counts),
        Ok(wire::Watch::Users) => Ok(Watch::Users),
        Err(_) => Err(unknown("presence")),
    }
}

pub(super) fn check_rooms(rooms: &[String]) -> Result<Vec<RoomName>, Refusal> {
    if rooms.is_empty() {
        return Err(Refusal::new(
            Code::Invalid,
            "rooms is empty: name at least one room",
        ));
    }
    bounded_count("rooms", rooms.len(), ROOMS_A_REQUEST_MAX)?;
    rooms.iter().map(|room| check_room(room)).collect()
}

pub(super) fn check_history(history: &wire::History) -> Result<History, Refusal> {
    let wire::History {
        room,
        epoch,
        from,
        backwards,
        limit,
    } = history;
    check_limit(*limit)?;
    Ok(History {
        room: check_room(room)?,
        epoch: match whole("epoch", *epoch)? {
            0 => None,
            epoch => Some(Epoch(epoch)),
        },
        from: Seq(whole("from", *from)?),
        direction: match backwards {
            false => Direction::Forwards,
            true => Direction::Backwards,
        },
        limit: *limit,
    })
}

pub(super) fn check_presence(presence: &wire::Presence) -> Result<Presence, Refusal> {
    let wire::Presence {
        room,
        after,
        limit,
        counts_only,
    } = presence;
    check_limit(*limit)?;
    Ok(Presence {
        room: check_room(room)?,
        after: match after.as_str() {
            "" => None,
            after => Some(UserId::new(after).map_err(|e| invalid("after", e))?),
        },
        limit: *limit,
        counts_only: *counts_only,
    })
}

/// Entries of a page.
pub(super) fn check_limit(limit: u32) -> Result<(), Refusal> {
    if limit as usize <= PAGE_MAX {
        return Ok(());
    }
    Err(Refusal::new(
        Code::TooLarge,
        format!("limit is {limit}, a page has at most {PAGE_MAX} entries"),
    ))
}

fn check_room(room: &str) -> Result<RoomName, Refusal> {
    RoomName::new(room).map_err(|e| invalid("room", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(events: &[&str], keys: &[&str]) -> Filter {
        let boxed = |list: &[&str]| list.iter().map(|&entry| entry.into()).collect();
        Filter {
            events: boxed(events),
            keys: boxed(keys),
        }
    }

    #[test]
    fn a_message_passes_a_filter_by_event_and_by_key() {
        let passing = |filter: Filter| {
            let messages = [("a", ""), ("a", "1"), ("b", "1"), ("b", "2")];
            messages.map(|(event, key)| filter.passes(event, key))
        };
        assert_eq!(passing(filter(&[], &[])), [true; 4]);
        assert_eq!(passing(filter(&["a"], &[])), [true, true, false, false]);
        assert_eq!(passing(filter(&[], &["1"])), [false, true, true, false]);
        assert_eq!(
            passing(filter(&["a", "b"], &["1", ""])),
            [true, true, true, false]
        );
        assert_eq!(passing(filter(&["A"], &[])), [false; 4]);
    }

    #[test]
    fn a_position_needs_an_epoch_and_an_option_that_is_not_used_is_harmless() {
        let plain = wire::Subscription {
            room: "r".into(),
            seq: 7,
            sample_ms: 1,
            ..wire::Subscription::default()
        };
        let expected = Subscription::new(RoomName::new("r").unwrap());
        assert_eq!(check_subscription(&plain), Ok(expected.clone()));
        let positioned = wire::Subscription {
            epoch: 3,
            recent: 9,
            ..plain
        };
        let since = Some(Position {
            epoch: Epoch(3),
            seq: Seq(7),
        });
        assert_eq!(
            check_subscription(&positioned),
            Ok(Subscription {
                since,
                recent: 9,
                ..expected
            })
        );
    }

    #[test]
    fn plain_rooms_may_repeat_themselves_and_those_with_options_not() {
        let subscribe = |rooms: &[&str], subscriptions: &[&str]| {
            let with_options = |&room: &&str| wire::Subscription {
                room: room.into(),
                ..wire::Subscription::default()
            };
            check_subscribe(&wire::Subscribe {
                rooms: rooms.iter().map(|&room| room.into()).collect(),
                subscriptions: subscriptions.iter().map(with_options).collect(),
            })
            .map(|checked| checked.len())
            .map_err(|refusal| refusal.code)
        };
        assert_eq!(subscribe(&["a", "a"], &[]), Ok(2));
        assert_eq!(subscribe(&["a", "a"], &["b"]), Ok(3));
        assert_eq!(subscribe(&["a"], &["a"]), Err(Code::Invalid));
        assert_eq!(subscribe(&[], &["a", "b", "a"]), Err(Code::Invalid));
    }
}
