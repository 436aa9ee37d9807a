//! A thread publishes, another one receives: one that sleeps until a message is there, or one that looks again and again.
//!
//! Beside each the machine's own limit: a thread woken the same way, or looking the same way, with nothing to hand over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cauce_broker::publication::Shared;
use cauce_broker::{Subscription, TenantHandle};
use cauce_protocol::Payload;

use crate::measured::{Measured, check};
use crate::pace::{Plan, spin_until};
use crate::{CUT_OFF, Failure, ROOM, publish};

/// From the start of the receiver's thread to the first message: longer than it takes to fall asleep.
const HEAD_START: Duration = Duration::from_millis(20);

/// How the receiver waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// It sleeps in `Subscription::next`; a publish wakes it.
    Asleep,
    /// It asks `Subscription::try_next` without pause, and has a core for that.
    Polling,
}

pub(crate) fn measure(
    tenant: &TenantHandle,
    payload: &Payload,
    plan: Plan,
    waiting: Waiting,
) -> Result<Measured, Failure> {
    let subscription = tenant.subscribe(ROOM)?;
    let began = Instant::now() + HEAD_START;
    let receiver = thread::Builder::new()
        .name("receiver".to_owned())
        .spawn(move || match waiting {
            Waiting::Asleep => sleep(subscription, plan, began),
            Waiting::Polling => poll(subscription, plan, began),
        })?;
    let lateness = drive(plan, began, || publish(tenant, payload))?;
    let mut measured = receiver.join().map_err(|_| "the receiver's thread panicked")??;
    measured.lateness = lateness.lateness;
    Ok(measured)
}

/// A thread that looks at a number without pause, and what it takes to see that it grew.
pub(crate) fn bare_look(plan: Plan) -> Result<Measured, Failure> {
    let began = Instant::now() + HEAD_START;
    let sent = Arc::new(AtomicU64::new(0));
    let seen = sent.clone();
    // Who sends never waits, so the number grows whatever becomes of this thread.
    let receiver =
        thread::Builder::new()
            .name("bare".to_owned())
            .spawn(move || -> Result<Measured, Failure> {
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
            })?;
    let lateness = drive(plan, began, || {
        sent.fetch_add(1, Ordering::Release);
        Ok(())
    })?;
    let mut measured = receiver.join().map_err(|_| "the receiver's thread panicked")??;
    measured.lateness = lateness.lateness;
    Ok(measured)
}

/// A thread that sleeps on a channel, and what it takes to wake it.
pub(crate) fn bare_wake(plan: Plan) -> Result<Measured, Failure> {
    let began = Instant::now() + HEAD_START;
    let (sender, woken) = mpsc::channel();
    let receiver =
        thread::Builder::new()
            .name("bare".to_owned())
            .spawn(move || -> Result<Measured, Failure> {
                let mut measured = Measured::new()?;
                for n in 0..plan.messages() {
                    woken.recv()?;
                    let now = Instant::now();
                    if n >= plan.warm_up {
                        measured.heard(plan.due(began, n), now);
                    }
                }
                Ok(measured)
            })?;
    let lateness = drive(plan, began, || Ok(sender.send(())?))?;
    let mut measured = receiver.join().map_err(|_| "the receiver's thread panicked")??;
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

fn sleep(mut subscription: Subscription, plan: Plan, began: Instant) -> Result<Measured, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    receive(plan, began, subscription.position().1.0, || {
        Ok(runtime.block_on(subscription.next()).ok_or(CUT_OFF)?)
    })
}

fn poll(mut subscription: Subscription, plan: Plan, began: Instant) -> Result<Measured, Failure> {
    // A message that never comes would be waited for without end.
    let give_up = plan.due(began, plan.messages()) + Duration::from_secs(5);
    receive(plan, began, subscription.position().1.0, || {
        loop {
            if let Some(message) = subscription.try_next() {
                return Ok(message);
            }
            if Instant::now() > give_up {
                return Err(CUT_OFF.into());
            }
            std::hint::spin_loop();
        }
    })
}

fn receive(
    plan: Plan,
    began: Instant,
    after: u64,
    mut next: impl FnMut() -> Result<Shared, Failure>,
) -> Result<Measured, Failure> {
    let mut measured = Measured::new()?;
    for n in 0..plan.messages() {
        let heard = next()?;
        let now = Instant::now();
        check(after + 1 + n, heard.seq.0)?;
        if n >= plan.warm_up {
            measured.heard(plan.due(began, n), now);
        }
    }
    Ok(measured)
}
