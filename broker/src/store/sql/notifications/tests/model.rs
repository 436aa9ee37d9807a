//! Random users leave, read, list and forget; a model that knows nothing of tables says what each must find.

use std::collections::{BTreeMap, BTreeSet};

use cauce_protocol::{Role, UserId};
use proptest::prelude::*;

use super::super::*;
use super::{LIMITS, TENANTS, WINDOW_MS, Wish, change, database, number, tenant};
use crate::store::notifications::NOTIFICATION_KEPT_MS_MAX;

/// One is called like the mark of an audience, and one like a role.
const USERS: [&str; 3] = ["ana", "t", "r:staff"];
const ROLES: [&str; 2] = ["staff", "ana"];

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Wish>),
    Wait(u64),
    Sweep,
    List {
        tenant: usize,
        reader: Reader,
        before: u64,
        limit: u32,
        unread_only: bool,
    },
}

#[derive(Clone, Debug)]
struct Kept {
    audience: Audience,
    expires_ms: u64,
}

#[derive(Debug, Default)]
struct Shelf {
    last: u64,
    kept: BTreeMap<u64, Kept>,
    read: BTreeSet<(UserId, u64)>,
    up_to: BTreeMap<UserId, u64>,
    keys: BTreeMap<(usize, u8), (u64, u64)>,
}

impl Shelf {
    fn seen(&self, reader: &Reader, now_ms: u64) -> Vec<(u64, bool)> {
        let mark = self.up_to.get(&reader.user).copied().unwrap_or(0);
        let there = |kept: &Kept| reader.is_of(&kept.audience) && kept.expires_ms > now_ms;
        let is_read = |id: u64| id <= mark || self.read.contains(&(reader.user.clone(), id));
        let newest_first = self.kept.iter().rev().filter(|(_, kept)| there(kept));
        newest_first.map(|(&id, _)| (id, is_read(id))).collect()
    }

    fn unread(&self, reader: &Reader, now_ms: u64) -> u32 {
        self.seen(reader, now_ms).iter().filter(|(_, read)| !read).count() as u32
    }

    fn trim(&mut self, grown: &BTreeSet<String>) {
        for audience in grown {
            let mut of: Vec<u64> = Vec::new();
            for (&id, kept) in &self.kept {
                if audience_text(&kept.audience) == *audience {
                    of.push(id);
                }
            }
            let excess = of.len().saturating_sub(LIMITS.per_audience_max as usize);
            of[..excess].iter().for_each(|id| drop(self.kept.remove(id)));
        }
        while self.kept.len() as u64 > LIMITS.per_tenant_max {
            self.kept.pop_first();
        }
    }
}

fn audience() -> impl Strategy<Value = Audience> {
    prop_oneof![
        2 => prop::sample::select(&USERS[..]).prop_map(|user| Audience::User(UserId::new(user).unwrap())),
        2 => prop::sample::select(&ROLES[..]).prop_map(|role| Audience::Role(Role::new(role).unwrap())),
        1 => Just(Audience::Tenant),
    ]
}

fn reader() -> impl Strategy<Value = Reader> {
    let roles = prop::sample::subsequence(&ROLES[..], 0..=ROLES.len());
    (prop::sample::select(&USERS[..]), roles).prop_map(|(user, roles)| Reader {
        user: UserId::new(user).unwrap(),
        roles: roles.into_iter().map(|role| Role::new(role).unwrap()).collect(),
    })
}

fn wish() -> impl Strategy<Value = Wish> {
    let tenant = 0..TENANTS.len();
    prop_oneof![
        3 => (tenant.clone(), audience(), 1u64..200, 0usize..2, prop::option::of(0u8..3)).prop_map(
            |(tenant, audience, kept_ms, sender, key)| Wish::Leave { tenant, audience, kept_ms, sender, key }
        ),
        2 => (tenant, reader(), prop::collection::vec(0u64..30, 0..4), prop_oneof![Just(0), 0u64..40, Just(u64::MAX)])
            .prop_map(|(tenant, reader, ids, up_to)| Wish::Read { tenant, reader, ids, up_to }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(wish(), 1..6).prop_map(Step::Commit),
        1 => (1u64..80).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
        3 => (0..TENANTS.len(), reader(), 0u64..40, 1u32..8, any::<bool>()).prop_map(
            |(tenant, reader, before, limit, unread_only)| Step::List { tenant, reader, before, limit, unread_only }
        ),
    ]
}

async fn play(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let mut c = database(&dir).await;
    let mut shelves: [Shelf; 2] = Default::default();
    let mut now_ms = 10 * NOTIFICATION_KEPT_MS_MAX;
    for step in steps {
        match step {
            Step::Wait(ms) => now_ms += ms,
            Step::Commit(wishes) => commit(&mut c, &mut shelves, &wishes, now_ms).await,
            Step::Sweep => {
                let mut rounds = 0;
                while sweep(&mut c, now_ms, 3).await.unwrap() >= 3 {
                    rounds += 1;
                    assert!(rounds < 1_000, "a sweep ends");
                }
                for shelf in &mut shelves {
                    shelf.kept.retain(|_, kept| kept.expires_ms > now_ms);
                }
                let orphans = "SELECT COUNT(*) FROM notification_reads AS r WHERE NOT EXISTS \
                               (SELECT 1 FROM notifications AS n WHERE n.tenant = r.tenant AND n.id = r.id)";
                assert_eq!(number(&mut c, orphans).await, 0);
                assert_eq!(
                    number(&mut c, "SELECT COUNT(*) FROM notification_leavings").await,
                    0
                );
            }
            Step::List {
                tenant: of,
                reader,
                before,
                limit,
                unread_only,
            } => {
                let query = NotificationQuery {
                    tenant: tenant(of),
                    reader: reader.clone(),
                    before,
                    limit,
                    unread_only,
                    bytes_max: usize::MAX,
                    now_ms,
                };
                let page = notifications(&mut c, &query).await.unwrap();
                let mut expected = shelves[of].seen(&reader, now_ms);
                expected.retain(|&(id, read)| (before == 0 || id < before) && !(unread_only && read));
                let shown: Vec<(u64, bool)> = page.notifications.iter().map(|n| (n.id, n.read)).collect();
                assert_eq!(shown, expected[..expected.len().min(limit as usize)]);
                assert_eq!(page.more, expected.len() > limit as usize);
                assert_eq!(page.unread, shelves[of].unread(&reader, now_ms));
            }
        }
        for (of, shelf) in shelves.iter().enumerate() {
            let head = head(&mut c, &tenant(of)).await.unwrap();
            assert_eq!((head.last, head.kept), (shelf.last, shelf.kept.len() as u64));
        }
    }
}

async fn commit(c: &mut SqliteConnection, shelves: &mut [Shelf; 2], wishes: &[Wish], now_ms: u64) {
    let changes: Vec<Change> = wishes.iter().map(|wish| change(wish, now_ms)).collect();
    let changed = change_notifications(c, &changes, LIMITS).await.unwrap();
    assert_eq!(changed.len(), wishes.len());
    let mut grown: [BTreeSet<String>; 2] = Default::default();
    for (wish, changed) in wishes.iter().zip(changed) {
        match (wish, changed) {
            (
                Wish::Leave {
                    tenant,
                    audience,
                    kept_ms,
                    sender,
                    key,
                },
                Changed::Left(left),
            ) => {
                let shelf = &mut shelves[*tenant];
                let name = key.map(|key| (*sender, key));
                let known = name.and_then(|name| shelf.keys.get(&name)).copied();
                if let Some((id, at_ms)) = known
                    && at_ms + WINDOW_MS > now_ms
                {
                    assert_eq!(left, Left { id, repeated: true });
                    continue;
                }
                shelf.last += 1;
                assert_eq!(
                    left,
                    Left {
                        id: shelf.last,
                        repeated: false
                    }
                );
                let kept = Kept {
                    audience: audience.clone(),
                    expires_ms: now_ms + kept_ms,
                };
                shelf.kept.insert(left.id, kept);
                if let Some(name) = name {
                    shelf.keys.insert(name, (left.id, now_ms));
                }
                grown[*tenant].insert(audience_text(audience));
            }
            (
                Wish::Read {
                    tenant,
                    reader,
                    ids,
                    up_to,
                },
                Changed::Marked(marked),
            ) => {
                let shelf = &mut shelves[*tenant];
                let up_to = (*up_to).min(shelf.last);
                let mark = shelf.up_to.entry(reader.user.clone()).or_insert(0);
                *mark = (*mark).max(up_to);
                let there: BTreeSet<u64> = shelf.seen(reader, now_ms).iter().map(|&(id, _)| id).collect();
                let ids: BTreeSet<u64> = ids.iter().copied().filter(|id| there.contains(id)).collect();
                shelf.read.extend(ids.iter().map(|&id| (reader.user.clone(), id)));
                let expected = Marked {
                    ids: ids.into_iter().collect(),
                    up_to,
                    unread: shelf.unread(reader, now_ms),
                };
                assert_eq!(marked, expected);
            }
            (wish, changed) => panic!("{wish:?} was answered with {changed:?}"),
        }
    }
    for (shelf, grown) in shelves.iter_mut().zip(&grown) {
        shelf.trim(grown);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everyone_finds_exactly_what_was_left_for_him_and_counts_what_he_has_not_read(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}
