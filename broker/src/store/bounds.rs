//! How large a row may be that an administrator hands in. Checked before the database is asked, so that what is stored
//! can always be loaded, listed and shown.

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::error::StoreError;
use super::rows::{
    ApiKeyRow, Assignment, DeviceTokenRow, RevocationRow, SigningKeyRow, TenantChange, TenantRow,
};

/// An id, a name or a label, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// A device's metadata, in bytes.
pub const JSON_BYTES_MAX: usize = 64 * 1024;
/// A tenant's settings, in bytes: as much for its room classes as for the rest.
pub const SETTINGS_BYTES_MAX: usize = 128 * 1024;
/// A hash or a sealed key, in bytes: the largest sealed secret, [`crate::seal::SECRET_BYTES_MAX`], and its frame.
pub const BLOB_BYTES_MAX: usize = 20 * 1024;
/// Scopes of an API key.
pub const SCOPES_MAX: usize = 64;

const _: () = assert!(BLOB_BYTES_MAX > crate::seal::SECRET_BYTES_MAX + 64);

fn expect(holds: bool, what: &'static str) -> Result<(), StoreError> {
    if holds {
        Ok(())
    } else {
        Err(StoreError::Invalid { what })
    }
}

fn id(text: &str) -> Result<(), StoreError> {
    expect(
        (1..=TEXT_BYTES_MAX).contains(&text.len()),
        "an id is 1 to 256 bytes",
    )
}

fn label(text: &str) -> Result<(), StoreError> {
    expect(
        text.len() <= TEXT_BYTES_MAX,
        "a name or label is at most 256 bytes",
    )
}

fn blob(bytes: &Bytes) -> Result<(), StoreError> {
    expect(
        (1..=BLOB_BYTES_MAX).contains(&bytes.len()),
        "a hash or sealed key is 1 to 20,480 bytes",
    )
}

fn settings(json: &Bytes) -> Result<(), StoreError> {
    expect(
        json.len() <= SETTINGS_BYTES_MAX,
        "settings are at most 131,072 bytes",
    )?;
    object(json)
}

fn object(json: &Bytes) -> Result<(), StoreError> {
    let is_object = json.trim_ascii_start().first() == Some(&b'{');
    let is_json = serde_json::from_slice::<IgnoredAny>(json).is_ok() && std::str::from_utf8(json).is_ok();
    expect(is_object && is_json, "settings and metadata are a JSON object")
}

pub(super) fn tenant(row: &TenantRow) -> Result<(), StoreError> {
    label(&row.name)?;
    settings(&row.settings)
}

pub(super) fn tenant_change(change: &TenantChange) -> Result<(), StoreError> {
    change.name.as_deref().map_or(Ok(()), label)?;
    change.settings.as_ref().map_or(Ok(()), settings)
}

pub(super) fn signing_key(row: &SigningKeyRow) -> Result<(), StoreError> {
    id(&row.kid)?;
    id(&row.alg)?;
    blob(&row.material)
}

pub(super) fn api_key(row: &ApiKeyRow) -> Result<(), StoreError> {
    id(&row.id)?;
    blob(&row.hash)?;
    label(&row.name)?;
    expect(row.scopes.len() <= SCOPES_MAX, "an API key has at most 64 scopes")?;
    row.scopes.iter().try_for_each(|scope| id(scope))
}

pub(super) fn device_token(row: &DeviceTokenRow) -> Result<(), StoreError> {
    id(&row.id)?;
    blob(&row.hash)?;
    label(&row.label)
}

pub(super) fn revocation(row: &RevocationRow) -> Result<(), StoreError> {
    id(&row.subject)?;
    label(&row.reason)
}

pub(super) fn metadata(json: Option<&Bytes>) -> Result<(), StoreError> {
    let Some(json) = json else { return Ok(()) };
    expect(json.len() <= JSON_BYTES_MAX, "metadata is at most 65,536 bytes")?;
    object(json)
}

pub(super) fn assignment(assignment: Option<&Assignment>) -> Result<(), StoreError> {
    let Some(assignment) = assignment else {
        return Ok(());
    };
    id(&assignment.equipment_id)?;
    assignment.label.as_deref().map_or(Ok(()), label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_is_no_object_or_too_large_is_refused() {
        for good in ["{}", " {\"a\":[1,null]} "] {
            assert_eq!(settings(&Bytes::from(good)), Ok(()), "{good}");
            assert_eq!(metadata(Some(&Bytes::from(good))), Ok(()), "{good}");
        }
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(JSON_BYTES_MAX));
        for bad in [
            &b""[..],
            b"[]",
            b"1",
            b"{",
            b"{}{}",
            b"{\"a\":\"\xff\"}",
            b"{'a':1}",
            large.as_bytes(),
        ] {
            assert!(
                metadata(Some(&Bytes::copy_from_slice(bad))).is_err(),
                "{}",
                bad.escape_ascii()
            );
        }
    }

    #[test]
    fn ids_labels_and_blobs_have_bounds() {
        assert!(id("").is_err() && id("k").is_ok());
        assert!(id(&"k".repeat(TEXT_BYTES_MAX)).is_ok() && id(&"k".repeat(TEXT_BYTES_MAX + 1)).is_err());
        assert!(label("").is_ok() && label(&"k".repeat(TEXT_BYTES_MAX + 1)).is_err());
        assert!(blob(&Bytes::new()).is_err());
        assert!(blob(&Bytes::from(vec![0; BLOB_BYTES_MAX])).is_ok());
        assert!(blob(&Bytes::from(vec![0; BLOB_BYTES_MAX + 1])).is_err());
    }
}
