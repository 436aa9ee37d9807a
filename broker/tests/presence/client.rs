//! A tenant whose rooms keep presence, and a client that tells changes from answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use cauce_broker::auth::Pattern;
use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::{PresenceMode, RoomClass};
use cauce_protocol::Code;
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome, server_frame::Message};

use crate::support::raw::ProtoPeer;
use crate::support::{Broker, PATIENCE, token};

pub(crate) const ROOM: &str = "lobby";

/// Long enough that nothing in a test outlasts it.
pub(crate) const FOR_EVER_MS: u64 = 3_600_000;

/// Presence is kept in rooms other than `dark.*`.
pub(crate) fn keep(broker: &Broker, tenant: &str, grace_ms: u64) {
    let class = |presence| {
        Arc::new(RoomClass {
            presence,
            ..RoomClass::default()
        })
    };
    let classes = RoomClasses::new(
        vec![
            (
                Pattern::new("dark.*").expect("a pattern"),
                class(PresenceMode::Off),
            )
                .into(),
        ],
        class(PresenceMode::On { grace_ms }),
    );
    let tenant = broker.server.hub().tenants.get(tenant).expect("a tenant");
    tenant.configure(TenantSettings {
        classes,
        ..(*tenant.settings()).clone()
    });
}

/// A client that tells changes from answers.
pub(crate) struct Client {
    pub(crate) peer: ProtoPeer,
    pub(crate) changes: VecDeque<wire::PresenceChange>,
}

impl Client {
    pub(crate) async fn join(broker: &Broker, token: &str) -> Self {
        Self {
            peer: ProtoPeer::join(broker.address, token).await,
            changes: VecDeque::new(),
        }
    }

    /// A user of tenant `a` who is in the room.
    pub(crate) async fn enter(broker: &Broker, user: &str) -> Self {
        let mut client = Self::join(broker, &token("a", user)).await;
        client
            .subscribe(ROOM, wire::Watch::None)
            .await
            .expect("subscribed");
        client
    }

    pub(crate) async fn ask(&mut self, request: Request) -> Result<Outcome, Code> {
        self.peer.ask(7, request).await;
        loop {
            match self.receive().await {
                Message::Reply(wire::Reply {
                    outcome: Some(Outcome::Error(error)),
                    ..
                }) => {
                    let code = u16::try_from(error.code).ok().and_then(Code::from_number);
                    return Err(code.expect("a code"));
                }
                Message::Reply(reply) => return Ok(reply.outcome.expect("an outcome")),
                Message::PresenceChange(change) => self.changes.push_back(change),
                _ => {}
            }
        }
    }

    pub(crate) async fn receive(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.peer.receive())
            .await
            .expect("a message within the test's patience")
    }

    pub(crate) async fn subscribe(&mut self, room: &str, watch: wire::Watch) -> Result<(), Code> {
        let subscription = wire::Subscription {
            room: room.into(),
            presence: watch.into(),
            ..wire::Subscription::default()
        };
        let subscribe = wire::Subscribe {
            subscriptions: vec![subscription],
            ..wire::Subscribe::default()
        };
        self.ask(Request::Subscribe(subscribe)).await.map(drop)
    }

    pub(crate) async fn unsubscribe(&mut self, room: &str) {
        let rooms = vec![room.to_owned()];
        self.ask(Request::Unsubscribe(wire::Unsubscribe { rooms }))
            .await
            .expect("unsubscribed");
    }

    pub(crate) async fn page(&mut self, room: &str) -> Result<wire::PresencePage, Code> {
        let presence = wire::Presence {
            room: room.into(),
            ..wire::Presence::default()
        };
        match self.ask(Request::Presence(presence)).await? {
            Outcome::PresencePage(page) => Ok(page),
            other => panic!("{other:?}"),
        }
    }

    /// The page, once it is so.
    pub(crate) async fn page_when(
        &mut self,
        is_so: impl Fn(&wire::PresencePage) -> bool,
    ) -> wire::PresencePage {
        let started = Instant::now();
        loop {
            let page = self.page(ROOM).await.expect("a page");
            if is_so(&page) {
                return page;
            }
            assert!(started.elapsed() < PATIENCE, "{page:?}");
        }
    }

    pub(crate) async fn change(&mut self) -> wire::PresenceChange {
        if let Some(change) = self.changes.pop_front() {
            return change;
        }
        loop {
            if let Message::PresenceChange(change) = self.receive().await {
                return change;
            }
        }
    }

    /// Joins (`+ann`) and leaves (`-ann`) as they are told, up to this one.
    pub(crate) async fn news_until(&mut self, last: &str) -> Vec<String> {
        let mut news = Vec::new();
        while !news.iter().any(|word| word == last) {
            let change = self.change().await;
            assert!(!change.truncated, "{change:?}");
            news.extend(change.left.iter().map(|user| format!("-{user}")));
            news.extend(change.joined.iter().map(|present| format!("+{}", present.user)));
        }
        news
    }
}

pub(crate) async fn watcher(broker: &Broker, watch: wire::Watch) -> Client {
    let mut watcher = Client::join(broker, &token("a", "watcher")).await;
    watcher.subscribe(ROOM, watch).await.expect("subscribed");
    watcher
}

pub(crate) fn count(news: &[String], word: &str) -> usize {
    news.iter().filter(|other| *other == word).count()
}
