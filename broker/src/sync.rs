//! The synchronisation, the sleep and the chance that `mailbox` and `rooms` stand on, replaced by the model checker's under
//! `cfg(shuttle)`: it decides who runs next, and a failing run must be the same when repeated.

#[cfg(not(shuttle))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

    pub(crate) use crossbeam_queue::SegQueue;
    pub(crate) use parking_lot::Mutex;
    pub(crate) use std::thread;

    /// Before a call into a structure that the checker does not see.
    pub(crate) fn step() {}

    pub(crate) fn random() -> u64 {
        let mut bytes = [0; 8];
        // Without randomness the machine could not have made a TLS key either; the clock still tells lives apart.
        if aws_lc_rs::rand::fill(&mut bytes).is_err() {
            return std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.as_nanos() as u64);
        }
        u64::from_be_bytes(bytes)
    }
}

#[cfg(shuttle)]
mod checked {
    use std::collections::VecDeque;

    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use shuttle::thread;

    /// Before a call into a structure that the checker does not see: others may come first.
    pub(crate) fn step() {
        shuttle::thread::yield_now();
    }

    pub(crate) fn random() -> u64 {
        use shuttle::rand::RngCore as _;
        shuttle::rand::thread_rng().next_u64()
    }

    /// shuttle's mutex behind parking_lot's face.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().expect("a model does not poison its locks")
        }
    }

    /// crossbeam's queue is invisible to the checker; this one has the same promises.
    #[derive(Debug)]
    pub(crate) struct SegQueue<T>(Mutex<VecDeque<T>>);

    impl<T> SegQueue<T> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        pub(crate) fn push(&self, value: T) {
            self.0.lock().push_back(value);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.0.lock().pop_front()
        }
    }
}

#[cfg(shuttle)]
pub(crate) use checked::*;
#[cfg(not(shuttle))]
pub(crate) use real::*;
