#![doc = include_str!("../README.md")]

mod backoff;
mod call;
mod client;
mod connection;
mod driver;
mod error;
mod event;
mod history;
mod notifications;
mod options;
mod presence;
mod queue;
mod request;
mod room;
mod serve;
mod status;
mod subscribe;
mod transport;

pub use cauce_protocol::message::{NotificationKind, Policy, Priority, Watch};
pub use cauce_protocol::{
    Advice, Code, ConnectionId, Epoch, Payload, Position, RoomName, Seq, TenantId, UserId,
};

pub use call::Call;
pub use client::Client;
pub use error::{Error, ErrorKind};
pub use event::{Continuity, Direct, DirectMessage, Event, Message, SeqRange, State};
pub use history::{History, HistoryEntry, HistoryPage};
pub use notifications::{
    Audience, Notification, NotificationEvent, NotificationInbox, NotificationPage, Notifications, Notify,
};
pub use options::{Idempotency, Options, Reconnect};
pub use presence::{
    Presence, PresenceCounts, PresenceEvent, PresencePage, PresenceView, PresentUser, RoomPresence,
};
pub use request::{Ack, AckLevel, Publish, Send};
pub use room::{Inbox, Subscription};
pub use serve::{Invocation, Reply, Request, Service};
pub use status::{Session, Status};
pub use subscribe::Subscribe;
