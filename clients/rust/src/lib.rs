#![doc = include_str!("../README.md")]

mod backoff;
mod client;
mod connection;
mod driver;
mod error;
mod event;
mod options;
mod queue;
mod request;
mod room;
mod status;
mod transport;

pub use cauce_protocol::{Advice, Code, ConnectionId, Epoch, Payload, RoomName, Seq, TenantId, UserId};

pub use client::Client;
pub use error::{Error, ErrorKind};
pub use event::{Continuity, Direct, DirectMessage, Event, Message, Position, SeqRange};
pub use options::{Idempotency, Options, Reconnect};
pub use request::{Ack, Call, Publish, Send};
pub use room::{Inbox, Subscription};
pub use status::{Session, Status};
