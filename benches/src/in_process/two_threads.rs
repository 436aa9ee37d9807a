//! A thread publishes, another one sleeps until a message is there.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cauce_broker::{Subscription, TenantHandle};
use cauce_protocol::Payload;

use crate::measured::{Measured, check};
use crate::pace::{Plan, spin_until};
use crate::{CUT_OFF, Failure, ROOM, publish};

/// From the start of the subscriber's thread to the first message: longer than it takes to fall asleep.
const HEAD_START: Duration = Duration::from_millis(20);

pub(crate) fn measure(tenant: &TenantHandle, payload: &Payload, plan: Plan) -> Result<Measured, Failure> {
    let subscription = tenant.subscribe(ROOM)?;
    let began = Instant::now() + HEAD_START;
    let (done, heard) = mpsc::sync_channel(1);
    let subscriber = thread::Builder::new()
        .name("subscriber".to_owned())
        .spawn(move || done.send(hear(subscription, plan, began)))?;
    let mut lateness = Measured::new()?;
    for n in 0..plan.messages() {
        let due = plan.due(began, n);
        spin_until(due);
        let sent = Instant::now();
        publish(tenant, payload)?;
        if n >= plan.warm_up {
            lateness.sent(due, sent);
        }
    }
    let mut measured = heard.recv()??;
    subscriber
        .join()
        .map_err(|_| "the subscriber's thread panicked")??;
    measured.lateness = lateness.lateness;
    Ok(measured)
}

fn hear(mut subscription: Subscription, plan: Plan, began: Instant) -> Result<Measured, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut measured = Measured::new()?;
    runtime.block_on(async {
        for n in 0..plan.messages() {
            let heard = subscription.next().await.ok_or(CUT_OFF)?;
            let now = Instant::now();
            check(subscription.position().1.0 + 1 + n, heard.seq.0)?;
            if n >= plan.warm_up {
                measured.heard(plan.due(began, n), now);
            }
        }
        Ok::<_, Failure>(measured)
    })
}
