//! Two tenants with the same names for everything never meet: random operations against a model of two separate worlds.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cauce_broker::store::{
    ApiKeyRow, Assignment, AuditQuery, AuditRow, DeviceTokenRow, KeyOwner, SigningKeyRow, Store, StoreError,
    TenantChange,
};
use proptest::prelude::*;

use crate::support::{
    PATIENCE, Place, all_readings, device, event, reading, state, stop, tenant, tenant_row, watts,
};

#[derive(Clone, Debug)]
enum Operation {
    Rename(String),
    AddSigningKey(u8),
    RevokeSigningKey(u8),
    AddApiKey(u8),
    RevokeApiKey(u8),
    AddToken(u8),
    RevokeToken(u8),
    Assign(u8, Option<u8>),
    Note(u8, Option<u8>),
    State(u8),
    Reading(u8),
    Event(u8),
    Audit,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        "[a-z]{1,5}".prop_map(Rename),
        (0..3u8).prop_map(AddSigningKey),
        (0..3u8).prop_map(RevokeSigningKey),
        (0..3u8).prop_map(AddApiKey),
        (0..3u8).prop_map(RevokeApiKey),
        (0..3u8).prop_map(AddToken),
        (0..3u8).prop_map(RevokeToken),
        (0..3u8, any::<Option<u8>>()).prop_map(|(d, e)| Assign(d, e)),
        (0..3u8, any::<Option<u8>>()).prop_map(|(d, m)| Note(d, m)),
        (0..3u8).prop_map(State),
        (0..3u8).prop_map(Reading),
        (0..3u8).prop_map(Event),
        Just(Audit),
    ]
}

/// What one tenant should see. Every value carries the number of the operation that wrote it, so that a value of the
/// other tenant would be recognised.
#[derive(Clone, Debug, Default, PartialEq)]
struct World {
    name: String,
    signing_keys: BTreeMap<String, (Vec<u8>, Option<u64>)>,
    api_keys: BTreeMap<String, (Vec<u8>, Option<u64>)>,
    tokens: BTreeMap<String, (Vec<u8>, Option<u64>)>,
    devices: BTreeMap<String, Known>,
    readings: BTreeMap<String, Vec<u64>>,
    events: BTreeMap<String, Vec<u64>>,
    audit: Vec<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    seq: Option<u64>,
    equipment: Option<String>,
    metadata: Option<Vec<u8>>,
}

/// A refusal that the model foresees, or success; anything else is a failure of the test.
fn done(answer: Result<(), StoreError>) -> bool {
    match answer {
        Ok(()) => true,
        Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

fn insert(map: &mut BTreeMap<String, (Vec<u8>, Option<u64>)>, id: &str, secret: &[u8], was_done: bool) {
    assert_eq!(
        was_done,
        !map.contains_key(id),
        "conflicts exactly with one's own"
    );
    map.entry(id.to_owned()).or_insert((secret.to_vec(), None));
}

fn revoke(map: &mut BTreeMap<String, (Vec<u8>, Option<u64>)>, id: &str, at_ms: u64, was_done: bool) {
    assert_eq!(was_done, map.contains_key(id), "finds exactly one's own");
    if let Some((_, revoked)) = map.get_mut(id) {
        revoked.get_or_insert(at_ms);
    }
}

async fn apply(store: &Store, world: &mut World, who: &str, n: u64, operation: Operation) {
    let handle = store.handle();
    let t = tenant(who);
    let secret = n.to_be_bytes();
    let blob = Bytes::copy_from_slice(&secret);
    match operation {
        Operation::Rename(name) => {
            let change = TenantChange {
                name: Some(name.clone()),
                ..TenantChange::default()
            };
            handle.update_tenant(t, change, n).await.expect("renamed");
            world.name = name;
        }
        Operation::AddSigningKey(k) => {
            let kid = format!("k{k}");
            let row = SigningKeyRow {
                tenant: t,
                kid: kid.clone(),
                alg: "HS256".into(),
                material: blob,
                created_ms: n,
                revoked_ms: None,
            };
            insert(
                &mut world.signing_keys,
                &kid,
                &secret,
                done(handle.add_signing_key(row).await),
            );
        }
        Operation::RevokeSigningKey(k) => {
            let kid = format!("k{k}");
            let was_done = done(handle.revoke_signing_key(t, kid.clone(), n).await);
            revoke(&mut world.signing_keys, &kid, n, was_done);
        }
        Operation::AddApiKey(k) => {
            let id = format!("k{k}");
            let row = ApiKeyRow {
                owner: KeyOwner::Tenant(t),
                id: id.clone(),
                hash: blob,
                name: String::new(),
                scopes: vec![],
                created_ms: n,
                revoked_ms: None,
            };
            insert(
                &mut world.api_keys,
                &id,
                &secret,
                done(handle.create_api_key(row).await),
            );
        }
        Operation::RevokeApiKey(k) => {
            let id = format!("k{k}");
            let was_done = done(handle.revoke_api_key(KeyOwner::Tenant(t), id.clone(), n).await);
            revoke(&mut world.api_keys, &id, n, was_done);
        }
        Operation::AddToken(k) => {
            let id = format!("k{k}");
            let row = DeviceTokenRow {
                tenant: t,
                id: id.clone(),
                hash: blob,
                device: None,
                label: String::new(),
                created_ms: n,
                revoked_ms: None,
            };
            insert(
                &mut world.tokens,
                &id,
                &secret,
                done(handle.create_device_token(row).await),
            );
        }
        Operation::RevokeToken(k) => {
            let id = format!("k{k}");
            let was_done = done(handle.revoke_device_token(t, id.clone(), n).await);
            revoke(&mut world.tokens, &id, n, was_done);
        }
        Operation::Assign(d, equipment) => {
            let name = format!("d{d}");
            let equipment = equipment.map(|e| format!("{e}-{n}"));
            let assignment = equipment.clone().map(|equipment_id| Assignment {
                equipment_id,
                label: None,
                assigned_ms: n,
            });
            handle
                .assign_device(t, device(&name), assignment)
                .await
                .expect("assigned");
            world.devices.entry(name).or_default().equipment = equipment;
        }
        Operation::Note(d, note) => {
            let name = format!("d{d}");
            let metadata = note.map(|m| format!("{{\"{m}\":{n}}}").into_bytes());
            let bytes = metadata.clone().map(Bytes::from);
            handle
                .set_device_metadata(t, device(&name), bytes)
                .await
                .expect("noted");
            world.devices.entry(name).or_default().metadata = metadata;
        }
        Operation::State(d) => {
            let name = format!("d{d}");
            let _ = handle.device_state(state(&t, &name, n, &n.to_string()));
            world.devices.entry(name).or_default().seq = Some(n);
        }
        Operation::Reading(d) => {
            let name = format!("d{d}");
            let _ = handle.reading(reading(&t, &name, n));
            world.readings.entry(name).or_default().push(n);
        }
        Operation::Event(d) => {
            let name = format!("d{d}");
            let _ = handle.device_event(event(&t, &name, n));
            world.events.entry(name).or_default().push(n);
        }
        Operation::Audit => {
            let _ = handle.audit(AuditRow {
                tenant: Some(t),
                at_ms: u64::MAX / 4 + n,
                actor: Arc::from("a"),
                action: Arc::from("b"),
                target: Arc::from("c"),
                detail: Bytes::from(n.to_string()),
            });
            world.audit.push(n);
        }
    }
}

/// The world as the tenant's own queries show it.
async fn look(store: &Store, who: &str) -> World {
    let handle = store.handle();
    let t = tenant(who);
    let mut world = World {
        name: handle.tenant(t.clone()).await.expect("there").name,
        ..World::default()
    };
    for key in handle
        .signing_keys(t.clone(), None, 100)
        .await
        .expect("listed")
        .rows
    {
        assert_eq!(key.tenant, t);
        world
            .signing_keys
            .insert(key.kid, (key.material.to_vec(), key.revoked_ms));
    }
    for key in handle
        .api_keys(KeyOwner::Tenant(t.clone()), None, 100)
        .await
        .expect("listed")
        .rows
    {
        assert_eq!(key.owner, KeyOwner::Tenant(t.clone()));
        world.api_keys.insert(key.id, (key.hash.to_vec(), key.revoked_ms));
    }
    for token in handle
        .device_tokens(t.clone(), None, 100)
        .await
        .expect("listed")
        .rows
    {
        assert_eq!(token.tenant, t);
        world
            .tokens
            .insert(token.id, (token.hash.to_vec(), token.revoked_ms));
    }
    for row in handle.devices(t.clone(), None, 100).await.expect("listed").rows {
        assert_eq!(row.tenant, t);
        assert_eq!(
            handle.device(t.clone(), row.device.clone()).await.expect("there"),
            row
        );
        let known = Known {
            seq: row.last.map(|l| l.seq),
            equipment: row.assignment.map(|a| a.equipment_id),
            metadata: row.metadata.map(|m| m.to_vec()),
        };
        world.devices.insert(row.device.as_str().to_owned(), known);
    }
    for name in ["d0", "d1", "d2"] {
        let readings = all_readings(&handle, &t, name).await;
        assert!(readings.iter().all(|r| r.row.tenant == t));
        if !readings.is_empty() {
            world.readings.insert(name.to_owned(), watts(&readings));
        }
        let events = handle
            .device_events(t.clone(), device(name), None, 1_000)
            .await
            .expect("events")
            .rows;
        assert!(events.iter().all(|e| e.row.tenant == t));
        if !events.is_empty() {
            world.events.insert(
                name.to_owned(),
                events.iter().rev().map(|e| e.row.ts_ms).collect(),
            );
        }
    }
    let query = AuditQuery {
        tenant: Some(t.clone()),
        limit: 1_000,
        before_seq: None,
    };
    let audit = handle.audit_rows(query).await.expect("audit").rows;
    assert!(audit.iter().all(|r| r.row.tenant.as_ref() == Some(&t)));
    world.audit = audit.iter().rev().map(|r| r.row.at_ms - u64::MAX / 4).collect();

    let counts = handle.counts(Some(t)).await.expect("counts");
    assert_eq!(counts.tenants, 1);
    assert_eq!(counts.signing_keys, world.signing_keys.len() as u64);
    assert_eq!(counts.api_keys, world.api_keys.len() as u64);
    assert_eq!(counts.device_tokens, world.tokens.len() as u64);
    assert_eq!(counts.devices, world.devices.len() as u64);
    assert_eq!(
        counts.device_readings,
        world.readings.values().map(Vec::len).sum::<usize>() as u64
    );
    assert_eq!(
        counts.device_events,
        world.events.values().map(Vec::len).sum::<usize>() as u64
    );
    assert_eq!(counts.audit, world.audit.len() as u64);
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn two_tenants_with_equal_names_never_meet(
        operations in prop::collection::vec((any::<bool>(), operation()), 1..60),
    ) {
        const WHO: [&str; 2] = ["a", "b"];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
        runtime.block_on(async {
            let place = Place::new();
            let (store, _) = place.open();
            let mut worlds = [World::default(), World::default()];
            for (world, who) in worlds.iter_mut().zip(WHO) {
                store.handle().create_tenant(tenant_row(who)).await.expect("made");
                world.name = format!("The {who}");
            }
            for (n, (second, operation)) in operations.into_iter().enumerate() {
                let at = usize::from(second);
                apply(&store, &mut worlds[at], WHO[at], n as u64, operation).await;
            }
            tokio::time::timeout(PATIENCE, store.handle().flushed()).await.expect("in time").expect("flushed");
            for (world, who) in worlds.iter().zip(WHO) {
                assert_eq!(&look(&store, who).await, world);
            }
            stop(store).await;
        });
    }
}
