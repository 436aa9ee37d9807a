//! A thread publishes, another one receives: one that sleeps until a message is there, or one that spins until then.
//!
//! Beside each the machine's own limit: a thread woken the same way, or looking the same way, with nothing to hand over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use cauce_broker::TenantHandle;
use cauce_protocol::Payload;

use crate::measured::{Measured, check};
use crate::pace::{Plan, spin_until};
use crate::{CUT_OFF, Failure, ROOM, publish};

/// From the start of the receiver's thread to the first message: longer than it takes to fall asleep.
const HEAD_START: Duration = Duration::from_millis(20);

/// Longer than two messages are apart at any rate: who spins for so long does not sleep.
const SPIN: Duration = Duration::from_secs(2);

/// How long the receiver may take for what is left when the last message has been sent. One that never came would be waited for without end.
const REST_WITHIN: Duration = Duration::from_secs(5);

const LOST: &str = "a message did not come, or the receiver did not run for seconds";

/// How the receiver waits in `Subscription::blocking_next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// It sleeps; a publish wakes it.
    Asleep,
    /// It looks without pause, and has a core for that.
    Spinning,
}

impl Waiting {
    fn spin(self) -> Duration {
        match self {
            Self::Asleep => Duration::ZERO,
            Self::Spinning => SPIN,
        }
    }
}

pub(crate) fn measure(
    tenant: &TenantHandle,
    payload: &Payload,
    plan: Plan,
    waiting: Waiting,
) -> Result<Measured, Failure> {
    let mut subscription = tenant.subscribe(ROOM)?;
    let after = subscription.position().1.0;
    let receive = move |began: Instant| -> Result<Measured, Failure> {
        let mut measured = Measured::new()?;
        for n in 0..plan.messages() {
            let heard = subscription.blocking_next(waiting.spin()).ok_or(CUT_OFF)?;
            let now = Instant::now();
            check(after + 1 + n, heard.seq.0)?;
            if n >= plan.warm_up {
                measured.heard(plan.due(began, n), now);
            }
        }
        Ok(measured)
    };
    between(plan, receive, || publish(tenant, payload))
}

/// A thread that looks at a number without pause, and what it takes to see that it grew.
pub(crate) fn bare_look(plan: Plan) -> Result<Measured, Failure> {
    let sent = Arc::new(AtomicU64::new(0));
    let seen = sent.clone();
    // Who sends never waits, so the number grows whatever becomes of this thread.
    let receive = move |began: Instant| -> Result<Measured, Failure> {
        let mut measured = Measured::new()?;
        let mut n = 0;
        while n < plan.messages() {
            let there = seen.load(Ordering::Acquire);
            if n == there {
                std::hint::spin_loop();
                continue;
            }
            let now = Instant::now();
            for n in n.max(plan.warm_up)..there {
                measured.heard(plan.due(began, n), now);
            }
            n = there;
        }
        Ok(measured)
    };
    between(plan, receive, || {
        sent.fetch_add(1, Ordering::Release);
        Ok(())
    })
}

/// A thread that sleeps on a channel, and what it takes to wake it.
pub(crate) fn bare_wake(plan: Plan) -> Result<Measured, Failure> {
    let (sender, woken) = mpsc::channel();
    let receive = move |began: Instant| -> Result<Measured, Failure> {
        let mut measured = Measured::new()?;
        for n in 0..plan.messages() {
            woken.recv()?;
            let now = Instant::now();
            if n >= plan.warm_up {
                measured.heard(plan.due(began, n), now);
            }
        }
        Ok(measured)
    };
    between(plan, receive, || Ok(sender.send(())?))
}

/// Sends as planned on this thread, and receives on another, which counts from the beginning that it is given.
fn between(
    plan: Plan,
    receive: impl FnOnce(Instant) -> Result<Measured, Failure> + Send + 'static,
    send: impl FnMut() -> Result<(), Failure>,
) -> Result<Measured, Failure> {
    let began = Instant::now() + HEAD_START;
    let (found, received) = mpsc::channel();
    thread::Builder::new()
        .name("receiver".to_owned())
        .spawn(move || {
            // Nobody listens any more where the sending failed.
            let _ = found.send(receive(began));
        })?;
    let lateness = drive(plan, began, send)?;
    let received = received.recv_timeout(REST_WITHIN).map_err(|why| match why {
        RecvTimeoutError::Timeout => LOST,
        RecvTimeoutError::Disconnected => "the receiver's thread panicked",
    })?;
    let mut measured = received?;
    measured.lateness = lateness.lateness;
    Ok(measured)
}

/// Does it when it is due, so often as planned. Answers how late.
fn drive(
    plan: Plan,
    began: Instant,
    mut send: impl FnMut() -> Result<(), Failure>,
) -> Result<Measured, Failure> {
    let mut measured = Measured::new()?;
    for n in 0..plan.messages() {
        let due = plan.due(began, n);
        spin_until(due);
        let sent = Instant::now();
        send()?;
        if n >= plan.warm_up {
            measured.sent(due, sent);
        }
    }
    Ok(measured)
}
