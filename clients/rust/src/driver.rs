//! The task that owns the socket: it performs what the connection decides, and tells it what came, what the application wants
//! and what time it is. One future with its progress in its fields: dropping it at any point loses the connection and nothing
//! else. It holds no lock and waits for nobody: every turn goes over all sources and gives each a bounded share.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cauce_protocol::frame::Frames;
use cauce_protocol::limits::FRAME_BYTES_MAX;
use cauce_protocol::{DecodeError, json, wire};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;

use crate::connection::{Action, Command, Connection, Control, TokenUse};
use crate::error::Error;
use crate::status::Status;
use crate::transport::{Dialler, Received, Transport};

/// Commands taken in a turn before the socket has its share.
const COMMANDS_A_TURN: usize = 128;
/// WebSocket messages taken in a turn before commands have theirs.
const MESSAGES_A_TURN: usize = 64;
/// Turns before other tasks of the runtime have theirs.
const TURNS_A_POLL: usize = 16;
/// How long the other side may take to say goodbye.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// RFC 6455 §7.4.1: the purpose is fulfilled.
const CLOSE_NORMAL: u16 = 1000;

type Fetching = Pin<Box<dyn Future<Output = Result<String, Error>> + Send>>;
type Dialling = Pin<Box<dyn Future<Output = Result<(Transport, String), Error>> + Send>>;

pub(crate) struct Driver {
    connection: Connection,
    socket: Socket,
    dialler: Dialler,
    /// The last token that was had.
    token: Option<String>,
    /// Another token for the connection that lives.
    fetching: Option<Fetching>,
    commands: mpsc::Receiver<Command>,
    control: mpsc::UnboundedReceiver<Control>,
    status: watch::Sender<Status>,
    sleep: Pin<Box<Sleep>>,
    /// What `sleep` is set for.
    wakes_at: Option<Instant>,
}

enum Socket {
    None,
    Dialling(Dialling),
    Up(Box<Transport>),
    /// Everything is said; the other side has until `sleep`.
    Closing(Box<Transport>),
    Done,
}

/// Whether a turn found anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Busy,
    Idle,
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Driver {
    pub(crate) fn new(
        connection: Connection,
        dialler: Dialler,
        commands: mpsc::Receiver<Command>,
        control: mpsc::UnboundedReceiver<Control>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            connection,
            socket: Socket::None,
            dialler,
            token: None,
            fetching: None,
            commands,
            control,
            status,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            wakes_at: None,
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        let mut turn = Turn::Idle;
        let now = now();
        self.take_commands(cx, now, &mut turn);
        self.receive(cx, now, &mut turn);
        self.fetch(cx, now, &mut turn);
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
            turn = Turn::Busy;
        }
        while let Some(action) = self.connection.poll_action() {
            self.perform(cx, action);
            turn = Turn::Busy;
        }
        self.send(cx, now, &mut turn);
        if let Some(status) = self.connection.poll_status() {
            self.status.send_replace(status);
        }
        turn
    }

    fn take_commands(&mut self, cx: &mut Context<'_>, now: Instant, turn: &mut Turn) {
        for _ in 0..COMMANDS_A_TURN {
            if !self.connection.takes_commands() {
                break;
            }
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(command)) => self.connection.handle_command(now, command),
                // Nobody holds us any more.
                Poll::Ready(None) => {
                    self.close(cx, now);
                    break;
                }
                Poll::Pending => break,
            }
            *turn = Turn::Busy;
        }
        // After the commands, so that what was handed over before a close is sent before it.
        while let Poll::Ready(Some(control)) = self.control.poll_recv(cx) {
            if matches!(control, Control::Close) {
                while let Ok(command) = self.commands.try_recv() {
                    self.connection.handle_command(now, command);
                }
                self.close(cx, now);
            } else {
                self.connection.handle_control(control);
            }
            *turn = Turn::Busy;
        }
    }

    /// Sends what the socket takes at once, then closes.
    fn close(&mut self, cx: &mut Context<'_>, now: Instant) {
        let mut turn = Turn::Idle;
        self.send(cx, now, &mut turn);
        self.connection.handle_control(Control::Close);
    }

    fn receive(&mut self, cx: &mut Context<'_>, now: Instant, turn: &mut Turn) {
        match &mut self.socket {
            Socket::Dialling(dialling) => {
                let Poll::Ready(dialled) = dialling.as_mut().poll(cx) else {
                    return;
                };
                *turn = Turn::Busy;
                match dialled {
                    Ok((transport, token)) => {
                        self.socket = Socket::Up(Box::new(transport));
                        self.token = Some(token.clone());
                        self.connection.handle_connected(now, token);
                    }
                    Err(error) => {
                        self.socket = Socket::None;
                        self.connection.handle_lost(now, error);
                    }
                }
            }
            Socket::Up(transport) => {
                for _ in 0..MESSAGES_A_TURN {
                    match transport.poll_receive(cx) {
                        Poll::Pending => return,
                        Poll::Ready(Ok(received)) => {
                            *turn = Turn::Busy;
                            if let Err(error) = handle(&mut self.connection, now, received) {
                                self.connection
                                    .handle_malformed(now, error.code(), error.to_string());
                                return;
                            }
                        }
                        Poll::Ready(Err(error)) => {
                            *turn = Turn::Busy;
                            self.socket = Socket::None;
                            self.connection.handle_lost(now, error);
                            return;
                        }
                    }
                }
            }
            Socket::None | Socket::Closing(_) | Socket::Done => {}
        }
    }

    fn fetch(&mut self, cx: &mut Context<'_>, now: Instant, turn: &mut Turn) {
        if let Some(fetching) = &mut self.fetching
            && let Poll::Ready(fetched) = fetching.as_mut().poll(cx)
        {
            self.fetching = None;
            *turn = Turn::Busy;
            if let Ok(token) = &fetched {
                self.token = Some(token.clone());
            }
            self.connection.handle_token(now, fetched);
        }
    }

    fn perform(&mut self, cx: &mut Context<'_>, action: Action) {
        match action {
            Action::Connect { token } => {
                // The one that is fetched now would be for the connection before.
                self.fetching = None;
                let last = match token {
                    TokenUse::Same => self.token.clone(),
                    TokenUse::Renew => None,
                };
                self.socket = Socket::Dialling(Box::pin(self.dialler.clone().dial(last)));
            }
            Action::FetchToken => self.fetching = Some(Box::pin(self.dialler.clone().fetch_token())),
            Action::Disconnect { code } => {
                if let Socket::Up(mut transport) = std::mem::replace(&mut self.socket, Socket::None) {
                    transport.say_close(cx, code);
                }
            }
            Action::Stop => {
                self.socket = match std::mem::replace(&mut self.socket, Socket::Done) {
                    Socket::Up(mut transport) => {
                        transport.say_close(cx, CLOSE_NORMAL);
                        self.set_alarm(Some(now() + CLOSE_MAX));
                        Socket::Closing(transport)
                    }
                    _ => Socket::Done,
                };
            }
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, now: Instant, turn: &mut Turn) {
        let (Socket::Up(transport), connection) = (&mut self.socket, &mut self.connection) else {
            return;
        };
        let mut wrote = false;
        let written = transport.poll_write(cx, |out| {
            let frame = connection.poll_outgoing(now, out);
            wrote |= frame.is_some();
            frame
        });
        if wrote {
            *turn = Turn::Busy;
        }
        if let Poll::Ready(Err(error)) = written {
            *turn = Turn::Busy;
            // What the broker said last, most of all why it closes, may still lie unread; it is the better reason.
            let error = last_words(transport, cx, connection, now).unwrap_or(error);
            self.socket = Socket::None;
            self.connection.handle_lost(now, error);
        }
    }

    fn set_alarm(&mut self, at: Option<Instant>) {
        if self.wakes_at != at {
            self.wakes_at = at;
            if let Some(at) = at {
                self.sleep.as_mut().reset(at.into());
            }
        }
    }

    /// Whether the time set has come; otherwise the task is woken then.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> bool {
        if self.wakes_at.is_some() && self.sleep.as_mut().poll(cx).is_ready() {
            self.wakes_at = None;
            return true;
        }
        false
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        for _ in 0..TURNS_A_POLL {
            match &mut driver.socket {
                Socket::Done => return Poll::Ready(()),
                Socket::Closing(transport) => {
                    let closed = transport.poll_closed(cx).is_ready();
                    if closed || driver.poll_alarm(cx) {
                        return Poll::Ready(());
                    }
                    return Poll::Pending;
                }
                _ => {}
            }
            if driver.turn(cx) == Turn::Busy {
                continue;
            }
            driver.set_alarm(driver.connection.poll_timeout());
            if !driver.poll_alarm(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    /// Also where the runtime ends before the client does: whoever waits is told.
    fn drop(&mut self) {
        self.connection.handle_control(Control::Close);
        if let Some(status) = self.connection.poll_status() {
            self.status.send_replace(status);
        }
    }
}

fn handle(connection: &mut Connection, now: Instant, received: Received) -> Result<(), DecodeError> {
    match received {
        Received::Frames(message) => {
            connection.handle_heard(now);
            for frame in Frames::new(message, FRAME_BYTES_MAX) {
                let frame = wire::ServerFrame::decode(frame?).map_err(|_| DecodeError::Protobuf)?;
                connection.handle_frame(now, frame);
            }
        }
        Received::Json(text) => connection.handle_frame(now, json::decode_server(text.as_bytes())?),
        Received::Alive => connection.handle_heard(now),
    }
    Ok(())
}

/// Reads what is there after a failed write, up to the end that explains it.
fn last_words(
    transport: &mut Transport,
    cx: &mut Context<'_>,
    connection: &mut Connection,
    now: Instant,
) -> Option<Error> {
    for _ in 0..MESSAGES_A_TURN {
        match transport.poll_receive(cx) {
            Poll::Ready(Ok(received)) => handle(connection, now, received).ok()?,
            Poll::Ready(Err(error)) => return error.code_number().is_some().then_some(error),
            Poll::Pending => return None,
        }
    }
    None
}
