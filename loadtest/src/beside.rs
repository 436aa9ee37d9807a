//! The bare server beside the measured one: a process of its own, so that its cost can be read and its core chosen.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::limit::Writing;

/// A bare server that ends with this value.
#[derive(Debug)]
pub(crate) struct Beside {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Beside {
    /// Starts our own program again as a bare server; `prefix` are the arguments that lead to it.
    ///
    /// # Errors
    /// If it does not start; in words for people.
    pub(crate) fn start(prefix: &[String], writing: Writing) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let writing = match writing {
            Writing::OneByOne => "--one-write",
            Writing::Coalesced => "--coalesce",
        };
        let mut child = Command::new(program)
            .args(prefix)
            .args(["limit-server", "--listen", "127.0.0.1:0", writing])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("the bare server did not start: {e}"))?;
        let mut line = String::new();
        let address = child.stdout.take().and_then(|stdout| {
            BufReader::new(stdout).read_line(&mut line).ok()?;
            line.trim().rsplit(' ').next()?.parse().ok()
        });
        match address {
            Some(address) => Ok(Self { child, address }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("the bare server did not start: {line}"))
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Writing {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::OneByOne => "limit, one write",
            Self::Coalesced => "limit, coalesce",
        }
    }
}
