//! Starting: fresh, again, twice, on what is not ours; and migrations.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cauce_broker::store::{OpenError, Store, TenantStatus, migrate, migrations};
use sqlx::Connection;

use crate::support::{Place, connect, run, stop};

#[tokio::test]
async fn a_fresh_start_makes_the_default_tenant_and_private_files() {
    let place = Place::new();
    let (store, loaded) = place.open();
    assert_eq!(loaded.boot, 1);
    assert_eq!(loaded.tenants.len(), 1);
    assert_eq!(loaded.tenants[0].tenant.as_str(), "default");
    assert_eq!(loaded.tenants[0].status, TenantStatus::Enabled);
    assert!(loaded.tenants[0].created_ms > 1_600_000_000_000);

    let config = place.config();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(&config.data_dir), 0o700);
    for file in std::fs::read_dir(&config.data_dir).expect("the directory") {
        let path = file.expect("an entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    stop(store).await;
}

#[tokio::test]
async fn every_start_is_counted_and_makes_no_second_default_tenant() {
    let place = Place::new();
    for boot in 1..=3 {
        let (store, loaded) = place.open();
        assert_eq!(loaded.boot, boot);
        assert_eq!(loaded.tenants.len(), 1);
        stop(store).await;
    }
}

#[tokio::test]
async fn a_second_store_on_the_same_directory_is_refused_and_names_the_process() {
    let place = Place::new();
    let (store, _) = place.open();
    let error = Store::open(place.config()).expect_err("in use");
    let OpenError::InUse { pid, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    assert!(matches!(migrate(&place.config()), Err(OpenError::InUse { .. })));
    stop(store).await;
    let (store, _) = place.open();
    stop(store).await;
}

#[tokio::test]
async fn a_start_waits_for_a_lock_that_is_held_for_a_while() {
    let place = Place::new();
    migrate(&place.config()).expect("migrates");
    let mut other = connect(&place.config()).await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    let config = place.config();
    let held = Duration::from_millis(config.busy_timeout_ms * 10);
    let opening = tokio::task::spawn_blocking(move || Store::open(config));
    tokio::time::sleep(held).await;
    run(&mut other, "ROLLBACK").await;
    let (store, _) = opening.await.expect("no panic").expect("opens");
    other.close().await.expect("closed");
    stop(store).await;
}

#[tokio::test]
async fn the_connections_are_set_up_as_the_documentation_says() {
    let place = Place::new();
    let (store, _) = place.open();
    let mut other = connect(&place.config()).await;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut other)
        .await
        .expect("the mode");
    assert_eq!(mode, "wal");
    stop(store).await;
    assert!(
        !place.config().data_dir.join("cauce.db-wal").exists() || {
            std::fs::metadata(place.config().data_dir.join("cauce.db-wal"))
                .expect("the log")
                .len()
                == 0
        }
    );
}

#[test]
fn migrations_are_shown_before_they_are_run_and_run_once() {
    let place = Place::new();
    let config = place.config();
    let before = migrations(&config).expect("nothing there yet");
    assert!(!before.is_empty() && before.iter().all(|m| m.applied_ms.is_none()));
    assert!(!config.data_dir.exists(), "looking changes nothing");

    let first = migrate(&config).expect("migrates");
    assert!(
        first
            .iter()
            .all(|m| m.applied_ms.is_some_and(|at| at > 1_600_000_000_000))
    );
    let second = migrate(&config).expect("nothing to do");
    assert_eq!(first, second);
    assert_eq!(migrations(&config).expect("reads"), second);
    assert!(before.windows(2).all(|w| w[0].version < w[1].version));
}

#[tokio::test]
async fn migrations_can_be_looked_at_while_a_store_runs() {
    let place = Place::new();
    let (store, _) = place.open();
    assert!(
        migrations(&place.config())
            .expect("reads")
            .iter()
            .all(|m| m.applied_ms.is_some())
    );
    stop(store).await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let place = Place::new();
    migrate(&place.config()).expect("migrates");
    let mut other = connect(&place.config()).await;
    run(
        &mut other,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', TRUE, x'00', 0)",
    )
    .await;
    let error = Store::open(place.config()).expect_err("newer");
    assert!(matches!(error, OpenError::Newer { version: 9999, .. }), "{error}");
}

#[tokio::test]
async fn an_altered_migration_is_refused() {
    let place = Place::new();
    migrate(&place.config()).expect("migrates");
    let mut other = connect(&place.config()).await;
    run(
        &mut other,
        "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1",
    )
    .await;
    let error = Store::open(place.config()).expect_err("altered");
    assert!(matches!(error, OpenError::Altered { version: 1, .. }), "{error}");
}

#[test]
fn a_data_directory_that_is_a_file_is_refused_with_its_path() {
    let place = Place::new();
    let config = place.config();
    std::fs::write(&config.data_dir, b"mine").expect("a file");
    let error = Store::open(config.clone()).expect_err("no directory");
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    assert!(
        error.to_string().contains(&config.data_dir.display().to_string()),
        "{error}"
    );
    assert_eq!(std::fs::read(&config.data_dir).expect("the file"), b"mine");
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let place = Place::new();
    let config = place.config();
    std::fs::create_dir_all(&config.data_dir).expect("the directory");
    let garbage = vec![b'x'; 8_192];
    std::fs::write(config.database(), &garbage).expect("garbage");
    let error = Store::open(config.clone()).expect_err("no database");
    assert!(matches!(error, OpenError::Database { .. }), "{error}");
    assert_eq!(std::fs::read(config.database()).expect("the file"), garbage);
}
