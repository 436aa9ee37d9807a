//! Serving one WebSocket peer: a task that finds out who comes in, then waits for bytes, hands them to the shard, and ends with
//! the socket.
//!
//! What must stay true: the task of an open peer holds two pointers and nothing else. Every idle connection has one, and what it
//! was while it opened, a head, an answer and a timer, is given back when it has opened.
//!
//! A peer that always has more to say is read in bites, and between two of them the shard's other peers are read and its turn is
//! run. If what peers of this shard publish is more than it delivers, those who fill their bites wait until it has caught up; who
//! says little is never kept waiting.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::shard::{Peer, Shard};

/// Bytes of one bite: some hundred small messages, a few tenths of a millisecond.
const BITE_BYTES: usize = 16 * 1024;

/// A socket's task; `Opening` answers with whom to serve, if anybody.
pub(super) enum Service<Opening> {
    Opening(Pin<Box<Opening>>),
    Open(Rc<Shard>, Rc<Peer>),
}

const _: () = assert!(size_of::<Service<()>>() == 2 * size_of::<usize>());

impl<Opening: Future<Output = Option<Opened>>> Service<Opening> {
    /// Begins on this thread.
    pub(super) fn spawn(opening: Opening)
    where
        Opening: 'static,
    {
        drop(tokio::task::spawn_local(Self::Opening(Box::pin(opening))));
    }
}

/// A peer that the shard has taken on.
pub(super) struct Opened {
    pub(super) shard: Rc<Shard>,
    pub(super) peer: Rc<Peer>,
    /// What was read together with the handshake.
    pub(super) first: Vec<u8>,
}

impl<Opening: Future<Output = Option<Opened>>> Future for Service<Opening> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Self::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    None => return Poll::Ready(()),
                    Some(Opened {
                        shard,
                        peer,
                        mut first,
                    }) => {
                        if !first.is_empty() {
                            shard.handle_bytes(&peer, &mut first);
                        }
                        *self = Self::Open(shard, peer);
                    }
                },
                Self::Open(shard, peer) => {
                    ready!(poll_serve(shard, peer, cx));
                    return Poll::Ready(());
                }
            }
        }
    }
}

/// Serves the peer until its socket ends.
fn poll_serve(shard: &Rc<Shard>, peer: &Rc<Peer>, cx: &mut Context<'_>) -> Poll<()> {
    if peer.has_more() && shard.is_behind() {
        // The turn takes from its queue whatever we do, so this ends.
        return give_way(cx);
    }
    loop {
        let mut scratch = shard.scratch().borrow_mut();
        match ready!(peer.socket.poll_read(cx, &mut scratch[..BITE_BYTES])) {
            Ok(n @ 1..) => {
                // What a closing peer still says is read, so that it sees our close, and not heard.
                if !peer.is_closing() {
                    shard.handle_bytes(peer, &mut scratch[..n]);
                }
                peer.set_has_more(n == BITE_BYTES);
                if n == BITE_BYTES {
                    return give_way(cx);
                }
            }
            Ok(0) | Err(_) => break,
        }
    }
    shard.gone(peer);
    Poll::Ready(())
}

/// Lets the shard's other peers and its turn go first.
fn give_way(cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::yield_now()).poll(cx)
}
