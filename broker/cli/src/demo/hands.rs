//! Somebody in one tenant who switches plugs, so that commands are seen too, and so that two fleets which are equal by name
//! do not stay equal.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cauce_broker::TenantHandle;
use cauce_broker::hub::OutgoingCall;
use serde::Serialize;
use tokio::task::JoinSet;

/// Between two switchings.
const PAUSE: Duration = Duration::from_secs(1);

/// For a device to answer.
const ANSWER_MS: u64 = 5_000;

/// Commands and their answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Commands {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
}

/// The one who switches.
pub(crate) struct Hands {
    tenant: TenantHandle,
    last: Option<Instant>,
    sent: u64,
    answers: JoinSet<bool>,
}

impl Hands {
    pub(crate) fn new(tenant: TenantHandle) -> Self {
        Self {
            tenant,
            last: None,
            sent: 0,
            answers: JoinSet::new(),
        }
    }

    /// Switches one of these over, each in its turn, if it is time.
    pub(crate) fn work(&mut self, mut online: Vec<String>) {
        if online.is_empty() || self.last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        self.last = Some(Instant::now());
        online.sort_unstable();
        let turn = usize::try_from(self.sent).unwrap_or(0) % online.len();
        let device = online.swap_remove(turn);
        self.sent += 1;
        let tenant = self.tenant.clone();
        self.answers.spawn(async move {
            let call = OutgoingCall {
                method: "Switch.Toggle".to_owned(),
                params: Bytes::from_static(br#"{"id":0}"#),
                timeout_ms: ANSWER_MS,
            };
            tenant.call_device(&device, call).await.is_ok()
        });
    }

    /// Waits for all answers: each comes or fails within [`ANSWER_MS`].
    pub(crate) async fn rest(mut self) -> Commands {
        let mut commands = Commands {
            sent: self.sent,
            answered: 0,
        };
        while let Some(answered) = self.answers.join_next().await {
            commands.answered += u64::from(answered.unwrap_or(false));
        }
        commands
    }
}
