//! Where the hub leaves what outlives a restart. Rows go in and nobody waits for a database; what must be waited for (a
//! durable acknowledgement, a page of an old room) comes back by itself.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use cauce_protocol::{Code, Refusal, TenantId};

use crate::store::{
    Admission, AuditRow, ConnectionLogRow, DeviceStateRow, Done, EventRow, Left, Marked, MessagePage,
    MessageQuery, MessageRow, NotificationPage, NotificationQuery, NotificationRow, ReadRow, ReadingRow,
    StoreHandle,
};

/// What an answer of the store comes in.
pub type Later<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

/// Takes rows without waiting. The store is one; a broker embedded without a database has [`NoRecords`].
pub trait Records: fmt::Debug + Send + Sync {
    fn audit(&self, row: AuditRow);
    fn connection_log(&self, row: ConnectionLogRow);
    fn device_event(&self, row: EventRow);
    fn device_state(&self, row: DeviceStateRow);
    fn reading(&self, row: ReadingRow);

    /// Room for one message of a durable room that costs `bytes`, asked before the message has a number.
    ///
    /// # Errors
    /// `unavailable` or `overloaded` if the store would not take it; then nothing was reserved.
    fn reserve_message(&self, tenant: &TenantId, bytes: usize) -> Result<(), Refusal>;

    /// Takes the message for which `bytes` were reserved. Called with the room's lock held, in the order of the numbers; the
    /// rows of a room are committed in that order. The callback is not called within this call.
    fn message(&self, row: MessageRow, bytes: usize);

    /// A page of a durable room.
    fn messages(&self, query: MessageQuery) -> Later<MessagePage>;

    /// Keeps a notification; `done` is called once it is committed and synced, in the order of a tenant's ids, or has been refused.
    fn notify(&self, row: Arc<NotificationRow>, done: Done<Left>);

    /// Keeps what a user has read; `done` as above.
    fn mark_read(&self, row: ReadRow, done: Done<Marked>);

    /// A page of what there is for a user.
    fn notifications(&self, query: NotificationQuery) -> Later<NotificationPage>;
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoRecords;

fn no_store() -> Refusal {
    Refusal::new(
        Code::Unsupported,
        "this broker runs without a database: it has no durable rooms and keeps no notifications",
    )
}

impl Records for NoRecords {
    fn audit(&self, _: AuditRow) {}
    fn connection_log(&self, _: ConnectionLogRow) {}
    fn device_event(&self, _: EventRow) {}
    fn device_state(&self, _: DeviceStateRow) {}
    fn reading(&self, _: ReadingRow) {}

    fn reserve_message(&self, _: &TenantId, _: usize) -> Result<(), Refusal> {
        Err(no_store())
    }

    fn message(&self, _: MessageRow, _: usize) {}

    fn messages(&self, _: MessageQuery) -> Later<MessagePage> {
        Box::pin(std::future::ready(Err(no_store())))
    }

    fn notify(&self, _: Arc<NotificationRow>, done: Done<Left>) {
        done.call(Err(no_store()));
    }

    fn mark_read(&self, _: ReadRow, done: Done<Marked>) {
        done.call(Err(no_store()));
    }

    fn notifications(&self, _: NotificationQuery) -> Later<NotificationPage> {
        Box::pin(std::future::ready(Err(no_store())))
    }
}

/// A row that is refused has been counted by the store, and the caller goes on in every case.
fn counted(_: Admission) {}

impl Records for StoreHandle {
    fn audit(&self, row: AuditRow) {
        counted(StoreHandle::audit(self, row));
    }

    fn connection_log(&self, row: ConnectionLogRow) {
        counted(StoreHandle::connection_log(self, row));
    }

    fn device_event(&self, row: EventRow) {
        counted(StoreHandle::device_event(self, row));
    }

    fn device_state(&self, row: DeviceStateRow) {
        counted(StoreHandle::device_state(self, row));
    }

    fn reading(&self, row: ReadingRow) {
        counted(StoreHandle::reading(self, row));
    }

    fn reserve_message(&self, tenant: &TenantId, bytes: usize) -> Result<(), Refusal> {
        StoreHandle::reserve_message(self, tenant, bytes)
    }

    fn message(&self, row: MessageRow, bytes: usize) {
        StoreHandle::message(self, row, bytes);
    }

    fn messages(&self, query: MessageQuery) -> Later<MessagePage> {
        let handle = self.clone();
        Box::pin(async move { StoreHandle::messages(&handle, query).await.map_err(Refusal::from) })
    }

    fn notify(&self, row: Arc<NotificationRow>, done: Done<Left>) {
        self.leave_notification(row, done);
    }

    fn mark_read(&self, row: ReadRow, done: Done<Marked>) {
        self.mark_notifications(row, done);
    }

    fn notifications(&self, query: NotificationQuery) -> Later<NotificationPage> {
        let store = self.clone();
        Box::pin(async move {
            let page = StoreHandle::notifications(&store, query).await;
            page.map_err(|error| error.refusal())
        })
    }
}
