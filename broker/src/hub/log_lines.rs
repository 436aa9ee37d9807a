//! The node's latest log lines, for whoever watches the node. Filled by the program's own logging; the library installs none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// Lines that are kept for one period; of older ones only the number is told.
pub const LINES_MAX: usize = 50;

/// Longest text of a line, in bytes; the rest is cut.
pub const LINE_BYTES_MAX: usize = 400;

/// Longest name of a line's source, in bytes.
const TARGET_BYTES_MAX: usize = 100;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub unix_ms: u64,
    /// `ERROR`, `WARN` or `INFO`.
    pub level: &'static str,
    pub target: String,
    /// Message and fields.
    pub text: String,
}

/// A bounded ring of lines. Empty, and not written to, while nobody watches.
#[derive(Debug, Default)]
pub struct LogLines {
    watched: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<LogLine>,
    dropped: u64,
}

impl LogLines {
    /// Whether lines are wanted: asked before one is put together.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Begins or ends to keep lines. What was kept is forgotten at the end.
    pub(super) fn watch(&self, watched: bool) {
        if self.watched.swap(watched, Ordering::Relaxed) && !watched {
            drop(self.take());
        }
    }

    /// Keeps a line, unless nobody watches; the oldest makes room.
    pub fn push(&self, mut line: LogLine) {
        if !self.is_watched() {
            return;
        }
        line.text.truncate(line.text.floor_char_boundary(LINE_BYTES_MAX));
        line.target
            .truncate(line.target.floor_char_boundary(TARGET_BYTES_MAX));
        let mut inner = self.inner.lock();
        if inner.lines.len() >= LINES_MAX {
            inner.lines.pop_front();
            inner.dropped += 1;
        }
        inner.lines.push_back(line);
    }

    /// Takes the lines out, and how many there were no room for.
    pub(super) fn take(&self) -> (Vec<LogLine>, u64) {
        let Inner { lines, dropped } = std::mem::take(&mut *self.inner.lock());
        (lines.into(), dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: String) -> LogLine {
        LogLine {
            unix_ms: 1,
            level: "WARN",
            target: "t".to_owned(),
            text,
        }
    }

    #[test]
    fn the_newest_are_kept_and_the_others_counted() {
        let lines = LogLines::default();
        lines.push(line("nobody watches".to_owned()));
        assert_eq!(lines.take(), (Vec::new(), 0));
        lines.watch(true);
        for n in 0..LINES_MAX + 3 {
            lines.push(line(n.to_string()));
        }
        let (kept, dropped) = lines.take();
        assert_eq!((kept.len(), dropped), (LINES_MAX, 3));
        assert_eq!((&*kept[0].text, &*kept[LINES_MAX - 1].text), ("3", "52"));
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let lines = LogLines::default();
        lines.watch(true);
        lines.push(line("é".repeat(LINE_BYTES_MAX)));
        assert_eq!(lines.take().0[0].text.len(), LINE_BYTES_MAX);
        lines.push(line(format!("x{}", "é".repeat(LINE_BYTES_MAX))));
        assert_eq!(lines.take().0[0].text.len(), LINE_BYTES_MAX - 1);
    }
}
