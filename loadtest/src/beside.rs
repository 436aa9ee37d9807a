//! The bare server beside the measured one: a process of its own, so that its cost can be read and its core chosen.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;

use crate::limit::Writing;

/// A bare server that ends with this value.
#[derive(Debug)]
pub(crate) struct Beside {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it shows over TLS.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

impl Beside {
    /// Starts our own program again as a bare server; `prefix` are the arguments that lead to it. With `tls` it makes
    /// itself a certificate, so that a server that speaks TLS is compared with one that does.
    ///
    /// # Errors
    /// If it does not start; in words for people.
    pub(crate) fn start(prefix: &[String], writing: Writing, tls: bool) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let writing = match writing {
            Writing::OneByOne => "--one-write",
            Writing::Coalesced => "--coalesce",
        };
        let mut child = Command::new(program)
            .args(prefix)
            .args(["limit-server", "--listen", "127.0.0.1:0", writing])
            .args(tls.then_some("--tls-self-signed"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("the bare server did not start: {e}"))?;
        let said = child.stdout.take().and_then(|stdout| hear(stdout, tls));
        match said {
            Some((address, certificate)) => Ok(Self {
                child,
                address,
                certificate,
            }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err("the bare server did not start".to_owned())
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// What a bare server says at first: where it listens, and over TLS its certificate.
fn hear(stdout: ChildStdout, tls: bool) -> Option<(SocketAddr, Option<CertificateDer<'static>>)> {
    let mut lines = BufReader::new(stdout).lines();
    let mut word = || Some(lines.next()?.ok()?.rsplit(' ').next()?.to_owned());
    let address = word()?.parse().ok()?;
    if !tls {
        return Some((address, None));
    }
    let certificate = STANDARD.decode(word()?).ok()?;
    Some((address, Some(certificate.into())))
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
