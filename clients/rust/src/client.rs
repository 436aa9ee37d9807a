//! The application's handle. It only passes words to the task that owns the connection, so every method is cancel-safe in
//! the sense that nothing breaks; what had been handed over before may still be carried out.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome};
use cauce_protocol::{ConnectionId, Payload, server::Dialect};
use tokio::sync::{mpsc, oneshot, watch};

use crate::call::Call;
use crate::connection::{
    Command, Connection, Control, Delivery, OfflineBounds, Settings, Submission, Ticket, closed_error,
};
use crate::driver::Driver;
use crate::error::{Error, ErrorKind};
use crate::history::History;
use crate::notifications::{Audience, NotificationInbox, Notifications, Notify};
use crate::options::{Idempotency, Options, Token};
use crate::presence::RoomPresence;
use crate::queue::Queue;
use crate::request::{Publish, Recipient, Send};
use crate::room::{Inbox, Inboxes};
use crate::serve::Service;
use crate::status::{Session, Status};
use crate::subscribe::Subscribe;
use crate::transport::Dialler;

/// Commands between handles and the connection's task. Behind it stand the bounds of the connection itself; this only lets
/// many callers hand over without waiting for each other.
const COMMANDS_MAX: usize = 256;

/// A connection to a broker that mends itself. Cloning is cheap and shares the connection; it closes when the last clone, the
/// last [`crate::Subscription`] and the last [`Inbox`] are gone, or by [`Client::close`].
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// What clones, subscriptions and inboxes share.
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    control: mpsc::UnboundedSender<Control>,
    status: watch::Receiver<Status>,
    inboxes: Arc<Inboxes>,
    keys: Keys,
    tickets: AtomicU64,
    pub(crate) dialect: Dialect,
    pub(crate) request_timeout: Duration,
    pub(crate) buffer_events: usize,
    pub(crate) buffer_bytes: usize,
    notifications: bool,
    idempotency: Idempotency,
}

/// Makes idempotency keys: the system's randomness once, then a count.
struct Keys {
    nonce: u64,
    next: AtomicU64,
}

impl Keys {
    fn next(&self) -> String {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{count:x}", self.nonce)
    }
}

/// 64 bits of the operating system's randomness, by way of the hasher's keys.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Client {
    /// Connects and waits for the broker's first welcome. A broker that cannot be reached is tried again and again: put a
    /// time-out around this, or choose another [`crate::Reconnect`].
    ///
    /// Dropping the future gives the connection up.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if an option is wrong; otherwise the reason why the client was refused for good.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let client = Self::start(options)?;
        client.online().await?;
        Ok(client)
    }

    /// Begins to connect and returns at once. Requests wait in the offline queue until the broker welcomes us. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if an option is wrong.
    pub fn start(options: Options) -> Result<Self, Error> {
        let dialler = Dialler::new(&options)?;
        let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
        // As many entries as there are subscriptions to drop: bounded by what the application holds.
        let (control, control_in) = mpsc::unbounded_channel();
        let (status_out, status) = watch::channel(Status::Connecting);
        let inboxes = Arc::new(Inboxes::default());
        let settings = Settings {
            dialect: options.dialect,
            client: options.client_name.clone(),
            request_timeout: options.request_timeout,
            offline: OfflineBounds {
                count_max: options.offline_count_max,
                bytes_max: options.offline_bytes_max,
                age_max: options.offline_age_max,
            },
            in_flight_max: options.in_flight_max,
            reconnect: options.reconnect,
            renewable: matches!(options.token, Token::Provider(_)),
            notifications: options.notifications,
            seed: random(),
        };
        let now = tokio::time::Instant::now().into_std();
        let connection = Connection::new(now, settings, Arc::clone(&inboxes));
        tokio::spawn(Driver::new(
            connection,
            dialler,
            commands_in,
            control_in,
            status_out,
        ));
        Ok(Self {
            handle: Arc::new(Handle {
                commands,
                control,
                status,
                inboxes,
                keys: Keys {
                    nonce: random(),
                    next: AtomicU64::new(0),
                },
                tickets: AtomicU64::new(0),
                dialect: options.dialect,
                request_timeout: options.request_timeout,
                buffer_events: options.buffer_events,
                buffer_bytes: options.buffer_bytes,
                notifications: options.notifications,
                idempotency: options.idempotency,
            }),
        })
    }

    /// Waits until the client is online, which it may be already. Cancel-safe.
    ///
    /// # Errors
    /// The reason, if it is closed for good.
    pub async fn online(&self) -> Result<Arc<Session>, Error> {
        let mut status = self.handle.status.clone();
        loop {
            match &*status.borrow_and_update() {
                Status::Online(session) => return Ok(Arc::clone(session)),
                Status::Closed { reason } => {
                    return Err(reason.clone().unwrap_or_else(|| closed_error(None)));
                }
                _ => {}
            }
            if status.changed().await.is_err() {
                return Err(self.handle.closed());
            }
        }
    }

    /// What the connection is doing, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.handle.status.clone()
    }

    /// Joins a room. Await it, after adding what is wanted, for a [`crate::Subscription`]; dropping the future leaves the room
    /// again.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with the broker's code; [`ErrorKind::Timeout`] or [`ErrorKind::Offline`] if the broker could not
    /// be asked within the time for a request and the age of the offline queue together; [`ErrorKind::Invalid`] if this client
    /// follows the room already in another way.
    pub fn subscribe<'a>(&'a self, room: &str) -> Subscribe<'a> {
        Subscribe::new(&self.handle, room)
    }

    /// What a room has kept: a page, or a stream of all.
    pub fn history(&self, room: &str) -> History {
        History::new(&self.handle, room)
    }

    /// Who is in a room: how many, page by page, or a view that is kept up to date.
    pub fn presence(&self, room: &str) -> RoomPresence {
        RoomPresence::new(&self.handle, room)
    }

    /// Serves a method, or with a `*` at the end of `pattern` all that begin so, and waits for the broker's word. Calls come
    /// from the stream. Several servers of a method share its calls. `concurrency` is how many calls are worked on at once, at
    /// most 1,024; the broker counts them by connection, so it adds up over the services of one client.
    ///
    /// Dropping the future takes it back.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]; [`ErrorKind::Refused`] with the broker's code; [`ErrorKind::Timeout`] or [`ErrorKind::Offline`]
    /// as of a subscription.
    pub async fn serve(&self, pattern: &str, concurrency: u32) -> Result<Service, Error> {
        Service::begin(&self.handle, pattern, concurrency).await
    }

    /// The user's notifications as they come, from now on and through lost connections.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] unless the client was connected with [`Options::notifications`].
    pub fn notifications(&self) -> Result<Notifications, Error> {
        match self.handle.notifications {
            true => Ok(Notifications::new(&self.handle)),
            false => Err(Error::new(
                ErrorKind::Invalid,
                "the broker tells of notifications only where they are wanted: connect with Options::notifications()",
            )),
        }
    }

    /// How many of the user's notifications are unread, kept up to date. `None` until the broker has said so, and for ever
    /// without [`Options::notifications`].
    pub fn unread(&self) -> watch::Receiver<Option<u32>> {
        self.handle.inboxes.unread()
    }

    /// The user's notifications as they are kept: list them, mark them as read.
    pub fn inbox(&self) -> NotificationInbox {
        NotificationInbox::new(&self.handle)
    }

    /// Leaves a notification for people, which is kept until it is read or expires.
    pub fn notify<'a>(&'a self, to: Audience, title: &str) -> Notify<'a> {
        Notify::new(&self.handle, to, title)
    }

    /// Messages to this user, this connection, the user's roles or the whole tenant, from now on.
    pub fn directs(&self) -> Inbox {
        let queue = Queue::new(self.handle.buffer_events, self.handle.buffer_bytes);
        Inbox::new(Arc::new(queue), Arc::clone(&self.handle))
    }

    /// Publishes to a room. Await it for the broker's acknowledgement, after adding what is wanted:
    ///
    /// ```no_run
    /// # use cauce_client::{Client, Error, Payload};
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let ack = client
    ///     .publish("orders", "order_created", Payload::text("42"))
    ///     .exclude_self()
    ///     .want_receivers()
    ///     .await?;
    /// println!("number {}, heard by {:?}", ack.seq, ack.receivers);
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish<'a>(&'a self, room: &str, event: &str, payload: Payload) -> Publish<'a> {
        Publish::new(&self.handle, room, event, payload)
    }

    /// Publishes without asking for an answer: at most once, and a refusal is only seen in the log. Returns when the message
    /// was taken; waits if the network does not keep up.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] or [`ErrorKind::Closed`].
    pub async fn publish_unacknowledged(
        &self,
        room: &str,
        event: &str,
        payload: Payload,
    ) -> Result<(), Error> {
        Publish::new(&self.handle, room, event, payload)
            .unacknowledged()
            .await
    }

    /// Sends to all connections of a user, whatever rooms they are in.
    pub fn send_to_user<'a>(&'a self, user: &str, event: &str, payload: Payload) -> Send<'a> {
        Send::new(&self.handle, Recipient::User(user.to_owned()), event, payload)
    }

    /// Sends to all users of a role.
    pub fn send_to_role<'a>(&'a self, role: &str, event: &str, payload: Payload) -> Send<'a> {
        Send::new(&self.handle, Recipient::Role(role.to_owned()), event, payload)
    }

    /// Sends to one connection.
    pub fn send_to_connection<'a>(&'a self, to: ConnectionId, event: &str, payload: Payload) -> Send<'a> {
        Send::new(&self.handle, Recipient::Connection(to.0), event, payload)
    }

    /// Sends to everyone in the tenant.
    pub fn send_to_tenant<'a>(&'a self, event: &str, payload: Payload) -> Send<'a> {
        Send::new(&self.handle, Recipient::Tenant(true), event, payload)
    }

    /// Calls a method that another client, or the program that embeds the broker, serves. `params` is an object, or null for
    /// none.
    pub fn call<'a>(&'a self, method: &str, params: serde_json::Value) -> Call<'a> {
        Call::new(&self.handle, "", method, params)
    }

    /// Calls a method of a device and gives the device's own answer. `params` is an object, or null for none.
    pub fn call_device<'a>(&'a self, device: &str, method: &str, params: serde_json::Value) -> Call<'a> {
        Call::new(&self.handle, device, method, params)
    }

    /// The time to the broker and back, waiting in our own queues included.
    ///
    /// # Errors
    /// [`ErrorKind::Offline`] without a connection; it does not wait for one.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = tokio::time::Instant::now();
        let request = Request::Ping(wire::Ping {});
        let timeout = self.handle.request_timeout;
        match self.handle.request(request, Delivery::NowOnly, timeout).await? {
            Outcome::Pong(_) => Ok(start.elapsed()),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends what was handed over before and closes, for all clones. Publishes whose answers are outstanding fail with
    /// [`ErrorKind::Closed`]: await them first. Takes at most about a second. Cancel-safe: the client closes anyway.
    pub async fn close(&self) {
        self.handle.control(Control::Close);
        let mut status = self.handle.status.clone();
        // The task drops its end when it is done.
        while status.changed().await.is_ok() {}
    }
}

impl Handle {
    /// Hands a request over and waits for its answer.
    pub(crate) async fn request(
        &self,
        request: Request,
        delivery: Delivery,
        timeout: Duration,
    ) -> Result<Outcome, Error> {
        let (answer, answered) = oneshot::channel();
        self.submit(Submission {
            request,
            answer: Some(answer),
            timeout,
            delivery,
            ticket: None,
        })
        .await?;
        answered.await.map_err(|_| self.closed())?
    }

    pub(crate) async fn submit(&self, submission: Submission) -> Result<(), Error> {
        self.command(Command::Request(submission)).await
    }

    pub(crate) async fn command(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| self.closed())
    }

    /// A number that this client has not given before.
    pub(crate) fn ticket(&self) -> Ticket {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn control(&self, control: Control) {
        // If the task is gone there is nothing left to tell.
        let _ = self.control.send(control);
    }

    pub(crate) fn inboxes(&self) -> &Inboxes {
        &self.inboxes
    }

    pub(crate) fn automatic_key(&self) -> Option<String> {
        (self.idempotency == Idempotency::Automatic).then(|| self.keys.next())
    }

    pub(crate) fn closed(&self) -> Error {
        match &*self.status.borrow() {
            Status::Closed { reason } => closed_error(reason.as_ref()),
            _ => closed_error(None),
        }
    }
}

pub(crate) fn unexpected(outcome: &Outcome) -> Error {
    let kind = match outcome {
        Outcome::Error(_) => "an error",
        Outcome::Welcome(_) => "welcome",
        Outcome::Subscribed(_) => "subscribed",
        Outcome::Unsubscribed(_) => "unsubscribed",
        Outcome::Published(_) => "published",
        Outcome::Sent(_) => "sent",
        Outcome::Answer(_) => "an answer",
        Outcome::Pong(_) => "pong",
        Outcome::Refreshed(_) => "refreshed",
        Outcome::HistoryPage(_) => "a page of history",
        Outcome::PresencePage(_) => "a page of presence",
        Outcome::Done(_) => "done",
        Outcome::Notified(_) => "notified",
        Outcome::NotificationPage(_) => "a page of notifications",
        Outcome::NotificationsRead(_) => "notifications read",
    };
    Error::new(
        ErrorKind::Protocol,
        format!("the broker answered with {kind}, which does not fit the request"),
    )
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("status", &*self.handle.status.borrow())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
