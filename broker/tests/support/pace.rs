//! Tests about a time or a rate, on a machine of any speed.
//!
//! What must stay true: such a test fails for what the broker does, and for nothing else. On a machine that is slow, or busy with
//! something else, a bucket has earned a token before it was to be empty, or a time is over before what was to come within it. So a
//! run that fails counts only where the machine was quick enough for it to say something; a fault of the broker's fails there too.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

use super::PATIENCE;

/// What limits of one a second earn in this time is nothing yet.
pub const NOTHING_EARNED: Duration = Duration::from_secs(1);

/// How much longer the next time is that a test is tried with, and how often it is tried.
const LONGER: u64 = 5;
const TRIES: u32 = 3;

/// Runs a test whose steps must all come within `time` of its beginning. It is run anew if it fails and has taken longer.
pub async fn within(time: Duration, mut test: impl AsyncFnMut()) {
    let first = Instant::now();
    loop {
        let began = Instant::now();
        let Err(panic) = AssertUnwindSafe(test()).catch_unwind().await else {
            return;
        };
        if began.elapsed() < time || first.elapsed() > PATIENCE {
            resume_unwind(panic);
        }
        println!("it took {:?}: once more", began.elapsed());
    }
}

/// Runs a test about a time, of any unit, with a short one; should it fail, with longer ones.
pub async fn with_longer(mut time: u64, mut test: impl AsyncFnMut(u64)) {
    for _ in 1..TRIES {
        if AssertUnwindSafe(test(time)).catch_unwind().await.is_ok() {
            return;
        }
        println!("{time} was too short: once more, with more");
        time *= LONGER;
    }
    test(time).await;
}
