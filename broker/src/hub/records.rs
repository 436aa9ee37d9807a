//! Where the hub leaves what outlives a restart. Rows go in and nothing comes back, so nobody waits for a database.

use std::fmt;

use crate::store::{Admission, AuditRow, DeviceStateRow, EventRow, ReadingRow, StoreHandle};

/// Takes rows without waiting. The store is one; a broker embedded without a database has [`NoRecords`].
pub trait Records: fmt::Debug + Send + Sync {
    fn audit(&self, row: AuditRow);
    fn device_event(&self, row: EventRow);
    fn device_state(&self, row: DeviceStateRow);
    fn reading(&self, row: ReadingRow);
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoRecords;

impl Records for NoRecords {
    fn audit(&self, _: AuditRow) {}
    fn device_event(&self, _: EventRow) {}
    fn device_state(&self, _: DeviceStateRow) {}
    fn reading(&self, _: ReadingRow) {}
}

/// A row that is refused has been counted by the store, and the caller goes on in every case.
fn counted(_: Admission) {}

impl Records for StoreHandle {
    fn audit(&self, row: AuditRow) {
        counted(StoreHandle::audit(self, row));
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
}
