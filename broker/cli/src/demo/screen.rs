//! Draws the view: in place on a terminal, as a line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::view::{Paint, Picture, render};
use crate::failure::Failure;
use crate::output::{self, Format, may_colour};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where the view goes.
pub(crate) enum Screen {
    /// Redrawn over the last one, so many lines above.
    Terminal { paint: Paint, lines: usize },
    /// A line each [`LINE_EVERY`].
    Lines { last: Option<Instant> },
    /// The output belongs to scripts.
    None,
}

impl Screen {
    pub(crate) fn open(format: Format) -> Self {
        let stdout = io::stdout();
        match format {
            Format::Json => Self::None,
            Format::Text if stdout.is_terminal() => Self::Terminal {
                paint: if may_colour(&stdout) {
                    Paint::Colour
                } else {
                    Paint::Plain
                },
                lines: 0,
            },
            Format::Text => Self::Lines { last: None },
        }
    }

    pub(crate) fn draw(&mut self, picture: &Picture) -> Result<(), Failure> {
        match self {
            Self::None => Ok(()),
            Self::Lines { last } => {
                if last.is_some_and(|last| last.elapsed() < LINE_EVERY) {
                    return Ok(());
                }
                *last = Some(Instant::now());
                let online: usize = picture.tenants.iter().map(|t| t.floor.online).sum();
                let rate = picture.rates.last().copied().unwrap_or(0.0);
                output::line(&format!(
                    "{:>4} s: {online} devices online, {rate:.0} messages a second",
                    picture.elapsed.as_secs()
                ))
            }
            Self::Terminal { paint, lines } => {
                let fresh = render(picture, *paint);
                let mut text = String::new();
                if *lines > 0 {
                    text.push_str(&format!("\u{1b}[{lines}A"));
                }
                for line in &fresh {
                    text.push_str("\u{1b}[2K");
                    text.push_str(line);
                    text.push('\n');
                }
                // What a longer view left below.
                text.push_str("\u{1b}[J");
                *lines = fresh.len();
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes())?;
                Ok(out.flush()?)
            }
        }
    }
}
