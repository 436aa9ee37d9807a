//! Who is in a room, for whoever may ask: clients, the API and the embedding program.

use std::sync::Arc;

use cauce_protocol::{Code, Refusal, wire};

use super::{Hub, ShardMessage, Tenant};
use crate::rooms::{PageQuery, PresenceMode, PresencePage, Room};

impl Hub {
    /// Who is in a room of this tenant. A room that nobody has entered is empty, whether it exists or not.
    ///
    /// # Errors
    /// `conflict` if the room's class keeps no presence.
    pub fn presence(
        &self,
        tenant: &Tenant,
        room: &str,
        query: PageQuery<'_>,
    ) -> Result<PresencePage, Refusal> {
        check_kept(tenant, room)?;
        let page = tenant.rooms.get(room).and_then(|room| room.presence(query));
        Ok(page.unwrap_or_default())
    }

    /// Keeps presence in the tenant's open rooms where their classes say so now, and nowhere else.
    pub(super) fn reset_presence(&self, tenant: &Tenant) {
        let users_max = self.tunables().presence_users_max;
        tenant.rooms.for_each(|room| {
            if room.follow_class(&self.presence, users_max) {
                self.enroll(room);
            }
        });
    }

    /// Presence of the room was switched on: whoever has joined it enters.
    pub fn enroll(&self, room: &Arc<Room>) {
        for mailbox in &self.shards[..self.plan.clients] {
            mailbox.send(ShardMessage::Enroll(room.clone()));
        }
    }
}

/// Whether presence is kept in rooms of this name.
///
/// # Errors
/// `conflict` if it is not.
pub fn check_kept(tenant: &Tenant, room: &str) -> Result<(), Refusal> {
    match tenant.settings().classes.of(room).presence {
        PresenceMode::On { .. } => Ok(()),
        PresenceMode::Off => {
            let message = format!("no presence is kept in room {room:?}: its class must switch it on");
            Err(Refusal::new(Code::Conflict, message))
        }
    }
}

impl From<PresencePage> for wire::PresencePage {
    fn from(page: PresencePage) -> Self {
        Self {
            version: page.version,
            users: page.users,
            connections: page.connections,
            page: page.page.iter().map(wire::PresenceUser::from).collect(),
            more: page.more,
        }
    }
}
