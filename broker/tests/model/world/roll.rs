//! Who is in the room that shows it: the model of it, and what the broker and its watchers must agree to.

use std::collections::BTreeMap;
use std::time::Instant;

use cauce_protocol::wire;
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::reply::Outcome;

use super::{ROOMS, SHOWN, SLOTS, World, tenant_of, user_of};
use crate::support::PATIENCE;

/// One who is there: connections, and how many were lost and may come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Present {
    connections: u32,
    lost: u32,
}

/// Who is in the room that shows it.
#[derive(Debug, Default)]
pub(super) struct Roll {
    pub(super) on: bool,
    present: BTreeMap<&'static str, Present>,
}

impl Roll {
    pub(super) fn enter(&mut self, user: &'static str) {
        if self.on {
            let present = self.present.entry(user).or_default();
            present.connections += 1;
            present.lost = present.lost.saturating_sub(1);
        }
    }

    pub(super) fn exit(&mut self, user: &'static str, held: bool) {
        let Some(present) = self.present.get_mut(user) else {
            return;
        };
        present.connections -= 1;
        present.lost += u32::from(held);
        if *present == Present::default() {
            self.present.remove(user);
        }
    }

    pub(super) fn names(&self) -> Vec<(String, u32)> {
        let present = self.present.iter();
        present
            .map(|(user, present)| ((*user).to_owned(), present.connections))
            .collect()
    }
}

/// What one who watches knows of who is there.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) version: u64,
    pub(super) names: Vec<String>,
    /// It was told that it does not know all.
    pub(super) truncated: bool,
}

impl World {
    pub(super) fn switch_presence(&mut self, tenant: usize, on: bool) {
        let was_on = std::mem::replace(&mut self.rolls[tenant].on, on);
        if was_on && !on {
            self.rolls[tenant].present.clear();
        }
        if on && !was_on {
            for slot in (0..SLOTS).filter(|&slot| tenant_of(slot) == tenant) {
                if self.slots[slot].subs.contains_key(&SHOWN) {
                    self.rolls[tenant].enter(user_of(slot));
                }
            }
        }
        self.configure(tenant);
    }

    async fn page(&mut self, slot: usize) -> Option<wire::PresencePage> {
        let presence = wire::Presence {
            room: ROOMS[SHOWN].into(),
            ..wire::Presence::default()
        };
        match self.ask_page(slot, Request::Presence(presence)).await {
            Outcome::PresencePage(page) => Some(page),
            Outcome::Error(error) if error.name == "conflict" => None,
            other => panic!("{other:?}"),
        }
    }

    /// A watcher begins anew from a page.
    pub(super) async fn take_page(&mut self, slot: usize) {
        if let Some(page) = self.page(slot).await {
            let names = page.page.iter().map(|present| present.user.clone()).collect();
            self.slots[slot].view = Some(View {
                version: page.version,
                names,
                truncated: false,
            });
        }
    }

    /// Who is there is who the model says, as soon as the shards have heard of a change of class.
    pub(super) async fn check_roll(&mut self, slot: usize) {
        let tenant = tenant_of(slot);
        let began = Instant::now();
        loop {
            let page = self.page(slot).await;
            assert_eq!(page.is_some(), self.rolls[tenant].on);
            let Some(page) = page else { return };
            let seen: Vec<_> = page
                .page
                .iter()
                .map(|present| (present.user.clone(), present.connections))
                .collect();
            let expected = self.rolls[tenant].names();
            let connections: u32 = expected.iter().map(|(_, connections)| connections).sum();
            if seen == expected && (page.users as usize, page.connections) == (expected.len(), connections) {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{seen:?} are there, and should be {expected:?}"
            );
            tokio::task::yield_now().await;
        }
    }

    /// Who watches ends with the names that are there.
    pub(super) async fn check_view(&mut self, slot: usize) {
        let tenant = tenant_of(slot);
        if !self.rolls[tenant].on {
            return;
        }
        loop {
            match &mut self.slots[slot].view {
                None => return,
                Some(view) if view.truncated => self.take_page(slot).await,
                Some(view) => {
                    view.names.sort();
                    let names = self.rolls[tenant].names();
                    if view.names.iter().eq(names.iter().map(|(name, _)| name)) {
                        return;
                    }
                    let client = self.slots[slot].client.as_mut().expect("it is connected");
                    let message = client.receive().await;
                    self.take(slot, message);
                }
            }
        }
    }
}
