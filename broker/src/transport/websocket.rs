//! Reading one WebSocket peer: a task that waits for bytes, hands them to the shard, and ends with the socket.
//!
//! What must stay true: a peer that always has more to say is read in bites, and between two of them the shard's other peers are
//! read and its turn is run. If what peers of this shard publish is more than it delivers, those who fill their bites wait until
//! it has caught up; who says little is never kept waiting.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use crate::shard::{Peer, Shard};

/// Bytes of one bite: some hundred small messages, a few tenths of a millisecond.
const BITE_BYTES: usize = 16 * 1024;

/// Serves the peer until its socket ends. `first` was read together with the handshake.
pub(super) async fn serve(shard: Rc<Shard>, peer: Rc<Peer>, mut first: Vec<u8>) {
    if !first.is_empty() {
        shard.handle_bytes(&peer, &mut first);
    }
    drop(first);
    loop {
        let read = poll_fn(|cx| {
            let mut scratch = shard.scratch().borrow_mut();
            match peer.socket.poll_read(cx, &mut scratch[..BITE_BYTES]) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(n @ 1..)) => {
                    // What a closing peer still says is read, so that it sees our close, and not heard.
                    if !peer.is_closing() {
                        shard.handle_bytes(&peer, &mut scratch[..n]);
                    }
                    Poll::Ready(Some(n))
                }
                Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(None),
            }
        });
        match read.await {
            None => break,
            Some(BITE_BYTES) => give_way(&shard).await,
            Some(_) => {}
        }
    }
    shard.gone(&peer);
}

/// Lets the shard's other peers and its turn go first, and waits while it is behind. The turn takes from its queue whatever we do,
/// so this ends.
async fn give_way(shard: &Shard) {
    loop {
        tokio::task::yield_now().await;
        if !shard.is_behind() {
            return;
        }
    }
}
