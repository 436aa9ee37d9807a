//! Reading one WebSocket peer: a task that waits for bytes, hands them to the shard, and ends with the socket.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use crate::shard::{Peer, Shard};

/// Serves the peer until its socket ends. `first` was read together with the handshake.
pub(super) async fn serve(shard: Rc<Shard>, peer: Rc<Peer>, mut first: Vec<u8>) {
    if !first.is_empty() {
        shard.handle_bytes(&peer, &mut first);
    }
    drop(first);
    loop {
        let read = poll_fn(|cx| {
            let mut scratch = shard.scratch().borrow_mut();
            match peer.socket.poll_read(cx, &mut scratch) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(n @ 1..)) => {
                    // What a closing peer still says is read, so that it sees our close, and not heard.
                    if !peer.is_closing() {
                        shard.handle_bytes(&peer, &mut scratch[..n]);
                    }
                    Poll::Ready(true)
                }
                Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(false),
            }
        });
        if !read.await {
            break;
        }
    }
    shard.gone(&peer);
}
