//! What watchers of a room have not been told yet.

use std::collections::BTreeMap;

use cauce_protocol::UserId;
use cauce_protocol::message::Watch;

use super::CHANGE_NAMES_MAX;

/// What watchers have not been told yet.
#[derive(Debug)]
pub(super) struct Untold {
    /// The most that any watcher wants.
    pub(super) watch: Watch,
    /// Something changed.
    pub(super) any: bool,
    pub(super) names: BTreeMap<UserId, Seen>,
    /// Names were left out.
    pub(super) overflowed: bool,
    /// Rises with each page.
    pub(super) pages: u64,
    /// The next change is not told before.
    pub(super) not_before_ms: u64,
}

/// What those who will hear the next change may believe of a name.
#[derive(Debug)]
pub(super) struct Seen {
    present: bool,
    absent: bool,
    /// Pages that had been taken when the name last changed.
    pages: u64,
}

impl Untold {
    pub(super) fn new() -> Self {
        Self {
            watch: Watch::None,
            any: false,
            names: BTreeMap::new(),
            overflowed: false,
            pages: 0,
            not_before_ms: 0,
        }
    }

    /// The name was `was` there, and now is the opposite.
    pub(super) fn note(&mut self, user: &UserId, was: bool) {
        if self.watch < Watch::Users || self.overflowed {
            return;
        }
        let pages = self.pages;
        match self.names.get_mut(user) {
            None => {
                let seen = Seen {
                    present: was,
                    absent: !was,
                    pages,
                };
                self.names.insert(user.clone(), seen);
            }
            Some(seen) => {
                if seen.pages != pages {
                    // A page was taken since, and shows what was until now.
                    seen.present |= was;
                    seen.absent |= !was;
                    seen.pages = pages;
                }
                let believed_otherwise = if was { seen.present } else { seen.absent };
                if !believed_otherwise {
                    self.names.remove(user);
                }
            }
        }
        if self.names.len() > CHANGE_NAMES_MAX {
            self.leave_out();
        }
    }

    pub(super) fn leave_out(&mut self) {
        self.overflowed = true;
        self.names = BTreeMap::new();
    }
}
