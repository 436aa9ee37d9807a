//! One connection of a user: what it asks is answered in order, and what it was told unasked waits until a test looks.

use std::collections::VecDeque;

use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::wire::server_frame::Message;
use cauce_protocol::wire::{self, Feature};

use crate::support::Broker;
use crate::support::raw::ProtoPeer;

/// A connection of a user, and what it was told unasked.
pub(crate) struct Tab {
    peer: ProtoPeer,
    next: u32,
    told: VecDeque<Message>,
}

impl Tab {
    /// One that wants to know of notifications.
    pub(crate) async fn open(broker: &Broker, token: &str) -> Self {
        let mut tab = Self::deaf(broker, token).await;
        let hello = wire::Hello {
            version: 1,
            features: Feature::Notifications as u64,
            ..Default::default()
        };
        match tab.ask(Request::Hello(hello)).await {
            Outcome::Welcome(welcome) => assert_eq!(welcome.features, Feature::Notifications as u64),
            other => panic!("{other:?}"),
        }
        tab
    }

    /// One that does not.
    pub(crate) async fn deaf(broker: &Broker, token: &str) -> Self {
        Self {
            peer: ProtoPeer::join(broker.address, token).await,
            next: 0,
            told: VecDeque::new(),
        }
    }

    pub(crate) async fn ask(&mut self, request: Request) -> Outcome {
        self.next += 1;
        self.peer.ask(self.next, request).await;
        loop {
            match self.peer.receive().await {
                Message::Reply(reply) if reply.id == self.next => return reply.outcome.expect("an outcome"),
                told => self.told.push_back(told),
            }
        }
    }

    pub(crate) async fn list(&mut self, asked: wire::Notifications) -> wire::NotificationPage {
        match self.ask(Request::Notifications(asked)).await {
            Outcome::NotificationPage(page) => page,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn all(&mut self) -> wire::NotificationPage {
        self.list(wire::Notifications::default()).await
    }

    pub(crate) async fn read(&mut self, ids: &[u64], up_to: u64) -> wire::NotificationsRead {
        let ids = ids.to_vec();
        match self.ask(Request::MarkRead(wire::MarkRead { ids, up_to })).await {
            Outcome::NotificationsRead(read) => read,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn told(&mut self) -> Message {
        match self.told.pop_front() {
            Some(told) => told,
            None => self.peer.receive().await,
        }
    }

    pub(crate) async fn notified(&mut self) -> wire::Notification {
        match self.told().await {
            Message::Notification(notification) => notification,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that came before an answer to a question asked now.
    pub(crate) async fn told_so_far(&mut self) -> Vec<Message> {
        self.ask(Request::Ping(wire::Ping {})).await;
        self.told.drain(..).collect()
    }
}
