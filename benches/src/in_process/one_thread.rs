//! Publisher and subscriber take turns on one thread.

use std::time::Instant;

use cauce_broker::TenantHandle;
use cauce_protocol::Payload;

use crate::measured::{Measured, check};
use crate::pace::{Plan, spin_until};
use crate::{CUT_OFF, Failure, ROOM, publish};

pub(crate) fn measure(tenant: &TenantHandle, payload: &Payload, plan: Plan) -> Result<Measured, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut subscription = tenant.subscribe(ROOM)?;
    let mut measured = Measured::new()?;
    runtime.block_on(async {
        let began = Instant::now();
        for n in 0..plan.messages() {
            let due = plan.due(began, n);
            spin_until(due);
            let sent = Instant::now();
            publish(tenant, payload)?;
            let heard = subscription.next().await.ok_or(CUT_OFF)?;
            let now = Instant::now();
            check(subscription.position().1.0 + 1 + n, heard.seq.0)?;
            if n >= plan.warm_up {
                measured.heard(due, now);
                measured.sent(due, sent);
            }
        }
        Ok::<_, Failure>(measured)
    })
}
