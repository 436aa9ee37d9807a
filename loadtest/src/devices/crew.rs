//! The plugs and who watches them, as one guest of the thread that measures the rooms; before and after that, with a thread of their own.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::plugs::{Plugs, Sent};
use super::watch::{Heard, Watchers};
use super::{Phase, Shared};
use crate::engine::Guest;
use crate::poll::{Interest, Poller, Wait};

/// Longest sleep, so that the thread notices a new phase, in nanoseconds.
const NAP_NS: u64 = 20_000_000;

const PLUGS: u64 = 0;
const WATCHERS: u64 = 1;

pub(super) struct Crew {
    shared: Arc<Shared>,
    plugs: Plugs,
    watchers: Watchers,
    /// Waits for both.
    poller: Poller,
}

impl Crew {
    /// # Errors
    /// If the kernel gives no epoll.
    pub(super) fn new(plugs: Plugs, watchers: Watchers, shared: Arc<Shared>) -> std::io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(plugs.poller(), PLUGS, Interest::Read)?;
        poller.add(watchers.poller(), WATCHERS, Interest::Read)?;
        Ok(Self {
            shared,
            plugs,
            watchers,
            poller,
        })
    }

    /// Connects all plugs, each when its turn in the ramp has come; those who are there speak and are read meanwhile.
    ///
    /// # Errors
    /// If one was not let in; in words for people.
    pub(super) fn connect(&mut self, token: &str) -> Result<(), String> {
        while let Some(due) = self.plugs.next_to_connect() {
            if self.shared.phase() != Phase::Load {
                return Err("given up".to_owned());
            }
            if due == Duration::ZERO {
                self.plugs.connect_next(token)?;
            }
            self.turn(crate::clock::as_ns(due));
        }
        self.plugs.all_connected()
    }

    /// Until somebody hosts them.
    pub(super) fn serve(&mut self) {
        while self.shared.phase() == Phase::Load {
            self.turn(NAP_NS);
        }
    }

    /// To the end: until it is quiet, then until everything that was said has come or `patience` has passed, which `done` is told, and then
    /// until it is over.
    pub(super) fn finish(mut self, patience: Duration, done: &Sender<()>) -> (Sent, Heard) {
        let mut silent: Option<Instant> = None;
        let mut told = false;
        loop {
            self.turn(NAP_NS);
            match self.shared.phase() {
                Phase::Load | Phase::Hosted => {}
                Phase::Quiet if told || !self.plugs.is_flushed() => {}
                Phase::Quiet => {
                    let since = *silent.get_or_insert_with(Instant::now);
                    if self.watchers.missing(self.plugs.stamped()) == 0 || since.elapsed() > patience {
                        told = true;
                        // Who listens has given up only if the whole run has.
                        let _ = done.send(());
                    }
                }
                Phase::Over => break,
            }
        }
        let sent = self.plugs.hang_up();
        let heard = self.watchers.finish(&sent.stamped);
        (sent, heard)
    }

    /// What is due, and what has come within `wait_ns`.
    fn turn(&mut self, wait_ns: u64) {
        if self.due_in_ns() == 0 {
            self.act();
        }
        let wait = self.due_in_ns().min(wait_ns).min(NAP_NS);
        // It fails only for a descriptor that is not one.
        if self.poller.wait(Wait::AtMostNs(wait)).unwrap_or(0) > 0 {
            self.hear_ready(&mut || ());
        }
    }

    fn hear_ready(&mut self, between: &mut dyn FnMut()) {
        for event in 0.. {
            if event >= self.poller.found() {
                break;
            }
            match self.poller.ready(event).map(|ready| ready.key) {
                Some(PLUGS) => self.plugs.hear(between),
                Some(WATCHERS) => self.watchers.hear(between),
                _ => {}
            }
        }
    }
}

impl Guest for Crew {
    fn poller(&self) -> &Poller {
        &self.poller
    }

    fn due_in_ns(&self) -> u64 {
        match self.shared.phase() {
            Phase::Load | Phase::Hosted => self.plugs.due_in_ns(),
            Phase::Quiet | Phase::Over => u64::MAX,
        }
    }

    fn act(&mut self) {
        self.plugs.act();
    }

    fn hear(&mut self, between: &mut dyn FnMut()) {
        if self.poller.wait(Wait::Not).unwrap_or(0) > 0 {
            self.hear_ready(between);
        }
    }
}
