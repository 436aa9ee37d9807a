//! A thread that keeps sockets alive while the command does something else: waits for a slow terminal, or counts.

use std::thread::{Builder, JoinHandle};

use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

use crate::failure::Failure;

/// A single-threaded executor on a thread of its own. Dropping it ends what runs there.
#[derive(Debug)]
pub(crate) struct Background {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn start(name: &str) -> Result<Self, Failure> {
        let runtime = runtime()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Either the word to stop, or its sender dropped: the end in both cases.
                let _ = runtime.block_on(stopped);
            })
            .map_err(|e| Failure::failed(format_args!("cannot start a thread: {e}")))?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An executor on the calling thread.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format_args!("cannot start the executor: {e}")))
}

/// Ready when somebody asks the process to end. Must be called within a runtime.
pub(crate) async fn interrupted() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|e| Failure::failed(format_args!("cannot take signals: {e}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
