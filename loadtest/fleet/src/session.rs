//! A WebSocket connection of a device, whichever side opened it: sends, counts what was flushed, gets slow,
//! and ends in one of several ways.

use crate::stats::{Counters, Sent};
use futures_util::{SinkExt as _, StreamExt as _};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

/// A peer that takes no bytes for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a device waits for the peer's side of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a half-open socket is held before the kernel may end it after all.
pub(crate) const HALF_OPEN_HOLD: Duration = Duration::from_secs(600);
/// A device reads calls, which are small; the library's default buffer of 128 KiB would be the larger part of a
/// fleet's memory.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Larger frames are refused: the firmware's own limit is lower still.
pub(crate) const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Small buffers, every write at once.
pub(crate) fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

/// A link that got slow: how much, and until when.
#[derive(Clone, Copy, Debug)]
struct Slowness {
    delay: Duration,
    until: Instant,
}

pub(crate) struct Session<S> {
    socket: WebSocketStream<S>,
    slowness: Option<Slowness>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub(crate) const fn new(socket: WebSocketStream<S>) -> Self {
        Self {
            socket,
            slowness: None,
        }
    }

    pub(crate) fn slow_down(&mut self, lasting: Duration, delay: Duration) {
        self.slowness = Some(Slowness {
            delay,
            until: Instant::now() + lasting,
        });
    }

    /// Sends `frames` with one flush at the end, and counts them then. Those of a failed flush are not counted,
    /// though the first of them may have got through. Not cancel-safe: a frame may be cut.
    pub(crate) async fn send(
        &mut self,
        frames: impl IntoIterator<Item = (Sent, String)>,
        counters: &Counters,
    ) -> Result<(), &'static str> {
        let mut handed_over = Vec::new();
        for (what, text) in frames {
            self.linger().await;
            handed_over.push((what, text.len()));
            within_time(self.socket.feed(Message::Text(text.into()))).await?;
        }
        if !handed_over.is_empty() {
            within_time(self.socket.flush()).await?;
        }
        for (what, bytes) in handed_over {
            counters.sent(what, bytes);
        }
        Ok(())
    }

    /// The next text frame, counted. Cancel-safe.
    pub(crate) async fn receive(&mut self, counters: &Counters) -> Result<String, &'static str> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    counters.received(text.len());
                    return Ok(text.as_str().to_owned());
                }
                // Pings are answered by the library; a device ignores binary frames.
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) => return Err("closed by the peer"),
                Some(Err(error)) => return Err(describe(&error)),
                None => return Err("ended by the peer"),
            }
        }
    }

    /// Waits as long as a slow link takes for one frame.
    pub(crate) async fn linger(&mut self) {
        if let Some(slowness) = self.slowness {
            if Instant::now() < slowness.until {
                tokio::time::sleep(slowness.delay).await;
            } else {
                self.slowness = None;
            }
        }
    }

    /// Closes with a WebSocket close, and waits a moment for the peer's.
    pub(crate) async fn bye(mut self, code: CloseCode, reason: &'static str) {
        let close = CloseFrame {
            code,
            reason: reason.into(),
        };
        let goodbye = async {
            if self.socket.close(Some(close)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        // Too late an answer is no answer; the socket is dropped either way.
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
    }

    /// Ends TCP without a WebSocket close. What was sent before still arrives: unread bytes on our side would
    /// turn the FIN into an RST, which may discard it, so they are read first.
    pub(crate) async fn hang_up(mut self) {
        let hang_up = async {
            if self.socket.get_mut().shutdown().await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, hang_up).await;
    }
}

async fn within_time(write: impl Future<Output = Result<(), WsError>>) -> Result<(), &'static str> {
    match timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_) => Err("the peer takes no bytes"),
    }
}

/// What went wrong, without anything a peer or a URL put into the error.
fn describe(error: &WsError) -> &'static str {
    match error {
        WsError::ConnectionClosed | WsError::AlreadyClosed => "closed",
        WsError::Io(_) => "network error",
        WsError::Tls(_) => "TLS error",
        WsError::Capacity(_) => "the peer sent too large a frame",
        WsError::Protocol(_) => "the peer broke the WebSocket protocol",
        WsError::Utf8(_) => "the peer sent text that is not UTF-8",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameKind;
    use tokio::io::DuplexStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    async fn pair(buffer_bytes: usize) -> (Session<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (device, peer) = tokio::io::duplex(buffer_bytes);
        let device = WebSocketStream::from_raw_socket(device, Role::Client, Some(socket_config())).await;
        (
            Session::new(device),
            WebSocketStream::from_raw_socket(peer, Role::Server, None).await,
        )
    }

    fn status(text: &str) -> (Sent, String) {
        (Sent::Notification(FrameKind::Status), text.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_link_delays_every_frame_for_its_time_only() {
        let (mut session, _peer) = pair(64 * 1024).await;
        let counters = Counters::default();
        session.slow_down(Duration::from_secs(1), Duration::from_millis(400));
        let started = Instant::now();
        session
            .send([status("1"), status("2"), status("3")], &counters)
            .await
            .expect("sent");
        assert_eq!(started.elapsed(), Duration::from_millis(1200));
        session.send([status("4")], &counters).await.expect("sent");
        assert_eq!(
            started.elapsed(),
            Duration::from_millis(1200),
            "the link has recovered"
        );
        assert_eq!(counters.totals().status_frames, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_peer_never_took_is_not_counted() {
        let (mut session, _silent_peer) = pair(64).await;
        let counters = Counters::default();
        let large = "x".repeat(10_000);
        assert_eq!(
            session.send([status("small"), status(&large)], &counters).await,
            Err("the peer takes no bytes")
        );
        assert_eq!(counters.totals().frames_sent(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_nobody_answers_ends_all_the_same() {
        let (session, _silent_peer) = pair(64 * 1024).await;
        let started = Instant::now();
        session.bye(CloseCode::Normal, "Bye").await;
        assert_eq!(started.elapsed(), CLOSE_TIMEOUT);
    }

    #[tokio::test]
    async fn pings_are_answered_while_a_device_listens() {
        let (mut session, mut peer) = pair(64 * 1024).await;
        let counters = Counters::default();
        peer.send(Message::Ping(b"are you there".as_slice().into()))
            .await
            .expect("sent");
        peer.send(Message::Text("call".into())).await.expect("sent");
        assert_eq!(session.receive(&counters).await.expect("the call"), "call");
        // The answer to the ping goes out with the next read.
        let listening = session.receive(&counters);
        let answered = async { peer.next().await.expect("open").expect("a frame") };
        tokio::select! {
            _ = listening => panic!("nothing more was sent"),
            answer = answered => assert_eq!(answer, Message::Pong(b"are you there".as_slice().into())),
        }
    }
}
