//! The bare server beside the measured one: a process of its own, so that its cost can be read and its core chosen.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cauce_threads::Priority;
use rustls::pki_types::CertificateDer;

use crate::kept::{Kept, Start};
use crate::limit::Writing;

/// A bare server that ends with this value.
#[derive(Debug)]
pub(crate) struct Beside {
    kept: Kept,
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
    pub(crate) fn start(
        prefix: &[String],
        writing: Writing,
        tls: bool,
        priority: Priority,
    ) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let writing = match writing {
            Writing::OneByOne => "--one-write",
            Writing::Coalesced => "--coalesce",
        };
        let arguments = prefix.iter().map(String::as_str);
        let arguments = arguments.chain(["limit-server", "--listen", "127.0.0.1:0", writing]);
        let priority = priority.to_string();
        let arguments = arguments.chain(["--priority", &priority]);
        let arguments = arguments.chain(tls.then_some("--tls-self-signed"));
        let start = Start {
            program: &program,
            arguments: arguments.map(Into::into).collect(),
            cores: None,
            scratch: None,
        };
        let mut kept = Kept::start(prefix, &start)?;
        let address = kept
            .find(|line| line.strip_prefix("listening at ")?.parse().ok())
            .map_err(|e| format!("the bare server: {e}"))?;
        let certificate = match tls {
            true => Some(
                kept.find(|line| STANDARD.decode(line.strip_prefix("certificate ")?).ok())
                    .map_err(|e| format!("the bare server's certificate: {e}"))?
                    .into(),
            ),
            false => None,
        };
        Ok(Self {
            kept,
            address,
            certificate,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.kept.pid()
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
