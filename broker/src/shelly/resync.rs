//! How much of the state is known to be of this session, and when to ask the device for all of it.

/// First pause between two of our own requests for the full status of one session, in milliseconds; doubles.
const PAUSE_MS: u64 = 15_000;

/// Longest such pause, in milliseconds.
const PAUSE_MS_MAX: u64 = 600_000;

/// Asked only on the heels of a frame, so a silent device costs nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resync {
    picture: Picture,
    not_before_ms: u64,
    pause_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Picture {
    /// Some or all of the state may be older than the session.
    Patchy,
    /// All of this session, but something happened that partial frames do not tell, such as a component removed.
    Outdated,
    /// A full status was merged, and all partial ones since.
    Whole,
}

impl Resync {
    /// Nothing is known yet of this session.
    pub(super) const OPENING: Self = Self {
        picture: Picture::Patchy,
        not_before_ms: 0,
        pause_ms: PAUSE_MS,
    };

    /// Parts of the state may be older than the session.
    pub(super) fn is_stale(&self) -> bool {
        self.picture == Picture::Patchy
    }

    /// A session spoke for the first time.
    pub(super) fn open(&mut self) {
        *self = Self::OPENING;
    }

    /// Components came or went.
    pub(super) fn components_changed(&mut self) {
        if self.picture == Picture::Whole {
            self.picture = Picture::Outdated;
        }
    }

    /// A full status was merged. The pause before the next question stays.
    pub(super) fn told_all(&mut self) {
        self.picture = Picture::Whole;
        self.pause_ms = PAUSE_MS;
    }

    /// Whether to ask now.
    pub(super) fn is_due(&self, now_mono_ms: u64) -> bool {
        self.picture != Picture::Whole && now_mono_ms >= self.not_before_ms
    }

    /// The question was sent.
    pub(super) fn asked(&mut self, now_mono_ms: u64) {
        self.not_before_ms = now_mono_ms.saturating_add(self.pause_ms);
        self.pause_ms = (self.pause_ms * 2).min(PAUSE_MS_MAX);
    }
}
