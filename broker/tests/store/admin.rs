//! What administrators do: committed before it is answered, told apart by kind of error, listed by page.

use bytes::Bytes;
use cauce_broker::store::{
    ApiKeyRow, Assignment, DeviceTokenRow, KeyOwner, PAGE_ROWS_MAX, SigningKeyRow, StoreError, TenantChange,
    TenantStatus,
};

use crate::support::{Place, device, first_tenant, patiently, state, stop, tenant, tenant_row};

fn signing_key(tenant_name: &str, kid: &str) -> SigningKeyRow {
    SigningKeyRow {
        tenant: tenant(tenant_name),
        kid: kid.to_owned(),
        alg: "HS256".to_owned(),
        material: Bytes::from_static(&[0, 159, 146, 150]),
        created_ms: 5,
        revoked_ms: None,
    }
}

fn api_key(owner: KeyOwner, id: &str) -> ApiKeyRow {
    ApiKeyRow {
        owner,
        id: id.to_owned(),
        hash: Bytes::from_static(&[1; 32]),
        name: "backend".to_owned(),
        scopes: vec!["publish".to_owned(), "devices:read".to_owned()],
        created_ms: 5,
        revoked_ms: None,
    }
}

fn device_token(tenant_name: &str, id: &str) -> DeviceTokenRow {
    DeviceTokenRow {
        tenant: tenant(tenant_name),
        id: id.to_owned(),
        hash: Bytes::from_static(&[2; 32]),
        device: Some(device("8CBFEAA133F0")),
        label: "shop floor".to_owned(),
        created_ms: 5,
        revoked_ms: None,
    }
}

fn is_conflict<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Conflict { .. }))
}

fn is_not_found<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::NotFound { .. }))
}

#[tokio::test]
async fn tenants_are_made_changed_disabled_and_survive_a_restart() {
    let place = Place::new();
    let (store, _) = place.open();
    let handle = store.handle();
    handle.create_tenant(tenant_row("acme")).await.expect("made");
    assert!(is_conflict(handle.create_tenant(tenant_row("acme")).await));
    let change = TenantChange {
        status: Some(TenantStatus::Disabled),
        ..TenantChange::default()
    };
    let row = handle
        .update_tenant(tenant("acme"), change, 77)
        .await
        .expect("changed");
    assert_eq!(
        (row.status, row.updated_ms, row.created_ms),
        (TenantStatus::Disabled, 77, 1)
    );
    assert_eq!(row.name, "The acme");
    let change = TenantChange {
        settings: Some(Bytes::from_static(b"{\"rooms\":5}")),
        ..TenantChange::default()
    };
    let row = handle
        .update_tenant(tenant("acme"), change, 78)
        .await
        .expect("changed");
    assert_eq!(row.settings.as_ref(), b"{\"rooms\":5}");
    assert_eq!(row.status, TenantStatus::Disabled);
    assert!(is_not_found(
        handle
            .update_tenant(tenant("nobody"), TenantChange::default(), 1)
            .await
    ));
    assert!(is_not_found(handle.tenant(tenant("nobody")).await));
    assert_eq!(handle.tenant(tenant("acme")).await.expect("there"), row);
    stop(store).await;

    let (store, loaded) = place.open();
    assert!(loaded.tenants.contains(&row));
    assert_eq!(loaded.tenants.len(), 2);
    stop(store).await;
}

#[tokio::test]
async fn settings_that_are_no_text_are_refused() {
    let place = Place::new();
    let (store, _) = place.open();
    let mut row = tenant_row("acme");
    row.settings = Bytes::from_static(b"\xff");
    let error = store.handle().create_tenant(row).await.expect_err("no text");
    assert_eq!(error.code(), "store_invalid");
    assert!(is_not_found(store.handle().tenant(tenant("acme")).await));
    stop(store).await;
}

#[tokio::test]
async fn keys_and_tokens_are_made_listed_revoked_and_revoked_ones_are_not_loaded() {
    let place = Place::new();
    let (store, loaded) = place.open();
    assert!(loaded.signing_keys.is_empty() && loaded.api_keys.is_empty() && loaded.device_tokens.is_empty());
    let handle = store.handle();
    let owner = KeyOwner::Tenant(first_tenant());
    for id in ["a", "b"] {
        handle
            .add_signing_key(signing_key("default", id))
            .await
            .expect("made");
        handle
            .create_api_key(api_key(owner.clone(), id))
            .await
            .expect("made");
        handle
            .create_api_key(api_key(KeyOwner::Operator, id))
            .await
            .expect("made");
        handle
            .create_device_token(device_token("default", id))
            .await
            .expect("made");
    }
    assert!(is_conflict(
        handle.add_signing_key(signing_key("default", "a")).await
    ));
    assert!(is_conflict(
        handle.create_api_key(api_key(owner.clone(), "a")).await
    ));
    assert!(is_conflict(
        handle.create_api_key(api_key(KeyOwner::Operator, "a")).await
    ));
    assert!(is_conflict(
        handle.create_device_token(device_token("default", "a")).await
    ));

    for at_ms in [50, 60] {
        handle
            .revoke_signing_key(first_tenant(), "a".into(), at_ms)
            .await
            .expect("revoked");
        handle
            .revoke_api_key(owner.clone(), "a".into(), at_ms)
            .await
            .expect("revoked");
        handle
            .revoke_device_token(first_tenant(), "a".into(), at_ms)
            .await
            .expect("revoked");
    }
    assert!(is_not_found(
        handle.revoke_signing_key(first_tenant(), "x".into(), 1).await
    ));
    assert!(is_not_found(
        handle.revoke_api_key(owner.clone(), "x".into(), 1).await
    ));
    assert!(is_not_found(
        handle.revoke_device_token(first_tenant(), "x".into(), 1).await
    ));

    let signing = handle
        .signing_keys(first_tenant(), None, 10)
        .await
        .expect("listed")
        .rows;
    let revoked = SigningKeyRow {
        revoked_ms: Some(50),
        ..signing_key("default", "a")
    };
    assert_eq!(signing, [revoked, signing_key("default", "b")]);
    let api = handle
        .api_keys(owner.clone(), None, 10)
        .await
        .expect("listed")
        .rows;
    let revoked = ApiKeyRow {
        revoked_ms: Some(50),
        ..api_key(owner.clone(), "a")
    };
    assert_eq!(api, [revoked, api_key(owner.clone(), "b")]);
    let operator = handle
        .api_keys(KeyOwner::Operator, None, 10)
        .await
        .expect("listed")
        .rows;
    assert_eq!(
        operator,
        [api_key(KeyOwner::Operator, "a"), api_key(KeyOwner::Operator, "b")]
    );
    let tokens = handle
        .device_tokens(first_tenant(), None, 10)
        .await
        .expect("listed")
        .rows;
    let revoked = DeviceTokenRow {
        revoked_ms: Some(50),
        ..device_token("default", "a")
    };
    assert_eq!(tokens, [revoked, device_token("default", "b")]);
    stop(store).await;

    let (store, loaded) = place.open();
    assert_eq!(loaded.signing_keys, [signing_key("default", "b")]);
    let expected = [
        api_key(KeyOwner::Operator, "a"),
        api_key(KeyOwner::Operator, "b"),
        api_key(owner.clone(), "b"),
    ];
    assert_eq!(loaded.api_keys, expected);
    assert_eq!(loaded.device_tokens, [device_token("default", "b")]);
    stop(store).await;
}

#[tokio::test]
async fn nothing_is_made_for_a_tenant_that_does_not_exist() {
    let place = Place::new();
    let (store, _) = place.open();
    let handle = store.handle();
    assert!(is_not_found(
        handle.add_signing_key(signing_key("nobody", "a")).await
    ));
    assert!(is_not_found(
        handle
            .create_api_key(api_key(KeyOwner::Tenant(tenant("nobody")), "a"))
            .await
    ));
    assert!(is_not_found(
        handle.create_device_token(device_token("nobody", "a")).await
    ));
    assert!(is_not_found(
        handle.assign_device(tenant("nobody"), device("d"), None).await
    ));
    assert!(is_not_found(
        handle
            .set_device_metadata(tenant("nobody"), device("d"), None)
            .await
    ));
    let counts = handle.counts(None).await.expect("counts");
    assert_eq!(
        (
            counts.signing_keys,
            counts.api_keys,
            counts.device_tokens,
            counts.devices
        ),
        (0, 0, 0, 0)
    );
    stop(store).await;
}

#[tokio::test]
async fn a_device_can_be_assigned_before_it_speaks_and_its_state_leaves_that_alone() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    let assignment = Assignment {
        equipment_id: "mill-3".into(),
        label: Some("Mill 3".into()),
        assigned_ms: 9,
    };
    assert!(is_not_found(handle.device(t.clone(), device("d")).await));
    let row = handle
        .assign_device(t.clone(), device("d"), Some(assignment.clone()))
        .await
        .expect("assigned");
    assert_eq!((row.last, row.metadata), (None, None));
    let metadata = Bytes::from_static(b"{\"floor\":2}");
    let row = handle
        .set_device_metadata(t.clone(), device("d"), Some(metadata.clone()))
        .await
        .expect("noted");
    assert_eq!(row.assignment, Some(assignment.clone()));

    let _ = handle.device_state(state(&t, "d", 1, "{}"));
    patiently("a flush", handle.flushed()).await.expect("flushed");
    let row = handle.device(t.clone(), device("d")).await.expect("there");
    assert_eq!(row.assignment, Some(assignment));
    assert_eq!(row.metadata, Some(metadata));
    assert_eq!(row.last.as_ref().map(|l| l.seq), Some(1));
    stop(store).await;

    let (store, loaded) = place.open();
    assert_eq!(loaded.devices, [row]);
    let handle = store.handle();
    let row = handle
        .assign_device(t.clone(), device("d"), None)
        .await
        .expect("freed");
    assert_eq!(row.assignment, None);
    let row = handle
        .set_device_metadata(t.clone(), device("d"), None)
        .await
        .expect("forgotten");
    assert_eq!(row.metadata, None);
    assert!(row.last.is_some());
    stop(store).await;
}

#[tokio::test]
async fn listings_come_in_pages_that_meet_without_gap_or_overlap() {
    let place = Place::new();
    let t = first_tenant();
    let (store, _) = place.open();
    let handle = store.handle();
    let names: Vec<String> = (0..25).map(|n| format!("d{n:02}")).collect();
    for name in &names {
        let _ = handle.device_state(state(&t, name, 1, "{}"));
    }
    patiently("a flush", handle.flushed()).await.expect("flushed");
    for limit in [1, 5, 24, 25, 26, PAGE_ROWS_MAX, u32::MAX] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = handle.devices(t.clone(), after, limit).await.expect("a page");
            assert!(!page.rows.is_empty(), "no empty last page");
            seen.extend(page.rows.into_iter().map(|r| r.device.as_str().to_owned()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, names, "{limit}");
    }
    let page = handle.devices(t, None, 0).await.expect("a page");
    assert_eq!(page.rows.len(), 1, "a page shows at least one row");
    stop(store).await;
}

#[tokio::test]
async fn names_are_values_and_never_part_of_a_statement() {
    let place = Place::new();
    let (store, _) = place.open();
    let handle = store.handle();
    let nasty = [
        "'; DROP TABLE devices; --",
        "a\"b",
        "%",
        "_",
        "?1",
        "$1",
        "x' OR '1'='1",
        "日本語",
    ];
    for name in nasty {
        handle.create_tenant(tenant_row(name)).await.expect("made");
        let t = tenant(name);
        let _ = handle.device_state(state(&t, name, 1, "{}"));
        handle
            .create_device_token(device_token(name, name))
            .await
            .expect("made");
    }
    patiently("a flush", handle.flushed()).await.expect("flushed");
    for name in nasty {
        let devices = handle.devices(tenant(name), None, 10).await.expect("listed").rows;
        assert_eq!(devices.len(), 1, "{name}");
        assert_eq!(devices[0].device.as_str(), name);
        let counts = handle.counts(Some(tenant(name))).await.expect("counts");
        assert_eq!(
            (counts.tenants, counts.devices, counts.device_tokens),
            (1, 1, 1),
            "{name}"
        );
    }
    stop(store).await;
}
