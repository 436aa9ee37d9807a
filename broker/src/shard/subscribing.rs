//! Joining and leaving rooms.

use std::rc::Rc;

use cauce_protocol::message::Subscription as Wanted;
use cauce_protocol::{Refusal, RoomName, wire};

use super::Shard;
use super::peer::{Peer, Stage};
use super::presence::check_watches;
use crate::clock::Now;
use crate::connection::Subscription;
use crate::hub::Tenant;
use crate::rooms::Exit;

impl Shard {
    /// All rooms or none. A room that was joined before is answered with where its pushes stand.
    pub(super) fn subscribe(
        &self,
        peer: &Rc<Peer>,
        tenant: &Tenant,
        wanted: &[Wanted],
        now: Now,
    ) -> Result<Vec<wire::RoomPosition>, Refusal> {
        check_watches(tenant, wanted)?;
        let mut stage = peer.stage.borrow_mut();
        let Stage::Client(client) = &mut *stage else {
            return Ok(Vec::new());
        };
        let subscriptions = &mut client.connection.subscriptions;
        let before = subscriptions.len();
        let mut positions = Vec::with_capacity(wanted.len());
        for Wanted { room: name, .. } in wanted {
            let (room, seq) = match subscriptions.iter().find(|s| s.room.name == *name) {
                Some(Subscription { room }) => (
                    room.clone(),
                    self.position(peer, room.key).unwrap_or_else(|| room.seq()),
                ),
                None => match self.join(peer, tenant, name, now.mono_ms) {
                    Ok(joined) => {
                        subscriptions.push(Subscription {
                            room: joined.room.clone(),
                        });
                        (joined.room, joined.seq)
                    }
                    Err(refusal) => {
                        for Subscription { room } in subscriptions.drain(before..) {
                            self.part(peer, tenant, &room, now.mono_ms);
                        }
                        return Err(refusal);
                    }
                },
            };
            positions.push(wire::RoomPosition {
                name: name.as_str().into(),
                room: room.id.0,
                epoch: room.epoch.0,
                seq: seq.0,
                head: seq.0,
                ..wire::RoomPosition::default()
            });
        }
        self.attend(peer, tenant, &client.connection, before, wanted, now);
        Ok(positions)
    }

    pub(super) fn unsubscribe(&self, peer: &Rc<Peer>, tenant: &Tenant, names: &[RoomName], now: Now) {
        let mut stage = peer.stage.borrow_mut();
        let Stage::Client(client) = &mut *stage else {
            return;
        };
        let user = client.connection.principal.user.clone();
        client.connection.subscriptions.retain(|Subscription { room }| {
            let leaves = names.contains(&room.name);
            if leaves {
                self.depart(peer, &user, room, Exit::Left, now.mono_ms);
                self.part(peer, tenant, room, now.mono_ms);
            }
            !leaves
        });
    }
}
