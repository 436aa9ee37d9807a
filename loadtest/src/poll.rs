//! One thread's epoll, a timer of nanoseconds and a bell that other threads ring.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::SECOND_NS;

/// Events taken at a time.
const EVENTS_MAX: usize = 256;

const TIMER: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;

/// What a socket is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    ReadWrite,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

/// A socket that can be read or written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) key: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// How long to wait for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Not,
    AtMostNs(u64),
}

/// Wakes the thread that waits at a [`Poller`].
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    pub(crate) fn ring(&self) {
        // It fails only when the counter is full, and then the thread is awake already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// One thread's epoll; another that waits for this one finds it readable when something is ready here.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    bell: Bell,
    ready: Vec<Option<Ready>>,
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        // At edges, so that neither needs reading: setting the timer and ringing the bell make a new edge each.
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), edge)?;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), edge)?;
        Ok(Self {
            epoll,
            timer,
            bell: Bell(Arc::new(bell)),
            ready: Vec::with_capacity(EVENTS_MAX),
        })
    }

    pub(crate) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    pub(crate) fn add(&self, source: impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            source,
            epoll::EventData::new_u64(key),
            interest.flags(),
        )?)
    }

    pub(crate) fn change(&self, source: impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            source,
            epoll::EventData::new_u64(key),
            interest.flags(),
        )?)
    }

    pub(crate) fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// Waits for events; [`Self::ready`] then tells them one by one. Returns how many came, the timer's and the bell's too.
    pub(crate) fn wait(&mut self, wait: Wait) -> io::Result<usize> {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timeout = match wait {
            Wait::Not | Wait::AtMostNs(0) => Some(&zero),
            Wait::AtMostNs(ns) => {
                let value = Timespec {
                    tv_sec: (ns / SECOND_NS) as i64,
                    tv_nsec: (ns % SECOND_NS) as _,
                };
                let once = Itimerspec {
                    it_interval: zero,
                    it_value: value,
                };
                timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
                None
            }
        };
        // On the stack, because the kernel's events cannot go from thread to thread.
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; EVENTS_MAX];
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        self.ready.clear();
        self.ready.extend(events[..count].iter().map(|event| {
            let epoll::Event { flags, data, .. } = *event;
            let key = data.u64();
            // An error or a hang-up is met by reading.
            let readable = epoll::EventFlags::IN | epoll::EventFlags::ERR | epoll::EventFlags::HUP;
            (key < BELL).then_some(Ready {
                key,
                readable: flags.intersects(readable),
                writable: flags.contains(epoll::EventFlags::OUT),
            })
        }));
        Ok(count)
    }

    /// How many events the last wait brought.
    pub(crate) fn found(&self) -> usize {
        self.ready.len()
    }

    /// The `at`-th event of the last wait; None where it was the timer's or the bell's.
    #[inline]
    pub(crate) fn ready(&self, at: usize) -> Option<Ready> {
        self.ready.get(at).copied().flatten()
    }
}
