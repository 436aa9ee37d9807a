use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn place<'a>(tenant: &'a TenantId, row: &'a str) -> Place<'a> {
    Place {
        purpose: "signing key",
        tenant: Some(tenant),
        row,
    }
}

fn sealer() -> Sealer {
    Sealer::new(&MasterKey::generate().unwrap(), &[]).unwrap()
}

#[test]
fn a_key_is_read_from_hex_and_base64_with_or_without_padding() {
    let id = MasterKey::parse(HEX).unwrap().id();
    for text in [
        BASE64,
        BASE64.trim_end_matches('='),
        &HEX.to_uppercase(),
        &format!(" {HEX}\n"),
    ] {
        assert_eq!(MasterKey::parse(text).unwrap().id(), id, "{text}");
    }
    assert_ne!(
        MasterKey::generate().unwrap().id(),
        MasterKey::generate().unwrap().id()
    );
}

#[test]
fn what_is_no_key_is_refused() {
    let long = HEX.repeat(2);
    for text in [
        "",
        "password",
        &HEX[..62],
        &long,
        &HEX.replace('0', "g"),
        "AAEC",
        &"é".repeat(32),
    ] {
        assert!(matches!(MasterKey::parse(text), Err(KeyError::Form)), "{text}");
    }
}

#[test]
fn a_secret_opens_only_in_its_place() {
    let (a, b) = (tenant("a"), tenant("b"));
    let sealer = sealer();
    let sealed = sealer.seal(place(&a, "k1"), b"secret").unwrap();
    assert_eq!(
        sealer.open(place(&a, "k1"), &sealed).unwrap().expose_secret(),
        b"secret"
    );
    let elsewhere = [
        place(&b, "k1"),
        place(&a, "k2"),
        Place {
            purpose: "webhook",
            ..place(&a, "k1")
        },
        Place {
            tenant: None,
            ..place(&a, "k1")
        },
        // The same letters, cut elsewhere.
        Place {
            purpose: "signing keya",
            tenant: None,
            row: "k1",
        },
    ];
    for other in elsewhere {
        assert_eq!(
            sealer.open(other, &sealed).unwrap_err(),
            SealError::Refused,
            "{other:?}"
        );
    }
}

#[test]
fn every_altered_bit_is_noticed() {
    let t = tenant("t");
    let sealer = sealer();
    let sealed = sealer.seal(place(&t, "k"), b"secret").unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut altered = sealed.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(sealer.open(place(&t, "k"), &altered).is_err(), "bit {bit}");
    }
    for len in 0..sealed.len() {
        assert!(
            sealer.open(place(&t, "k"), &sealed[..len]).is_err(),
            "{len} bytes"
        );
    }
}

#[test]
fn the_same_secret_sealed_twice_looks_different() {
    let t = tenant("t");
    let sealer = sealer();
    let seal = || sealer.seal(place(&t, "k"), b"secret").unwrap();
    assert_ne!(seal(), seal());
}

#[test]
fn an_older_key_still_opens_and_is_told_apart() {
    let t = tenant("t");
    let (old, new) = (MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
    let before = Sealer::new(&old, &[]).unwrap();
    let sealed = before.seal(place(&t, "k"), b"secret").unwrap();
    assert!(before.is_current(&sealed).unwrap());

    let without = Sealer::new(&new, &[]).unwrap();
    assert_eq!(
        without.open(place(&t, "k"), &sealed).unwrap_err(),
        SealError::UnknownKey(old.id())
    );

    let after = Sealer::new(&new, &[old]).unwrap();
    assert!(!after.is_current(&sealed).unwrap());
    let secret = after.open(place(&t, "k"), &sealed).unwrap();
    let again = after.seal(place(&t, "k"), secret.expose_secret()).unwrap();
    assert!(after.is_current(&again).unwrap());
}

#[test]
fn too_large_secrets_are_refused_both_ways() {
    let t = tenant("t");
    let sealer = sealer();
    let largest = vec![0; SECRET_BYTES_MAX];
    let sealed = sealer.seal(place(&t, "k"), &largest).unwrap();
    assert!(sealer.open(place(&t, "k"), &sealed).is_ok());
    assert_eq!(
        sealer.seal(place(&t, "k"), &vec![0; SECRET_BYTES_MAX + 1]),
        Err(SealError::TooLarge)
    );
    let mut longer = sealed.to_vec();
    longer.push(0);
    assert_eq!(sealer.open(place(&t, "k"), &longer).unwrap_err(), SealError::Form);
}

#[test]
fn debug_shows_no_key() {
    let key = MasterKey::parse(HEX).unwrap();
    let shown = format!("{key:?} {:?}", Sealer::new(&key, &[]).unwrap());
    assert!(!shown.contains("0001") && !shown.contains("AAEC"), "{shown}");
    assert!(shown.contains(&key.id().to_string()));
}

#[test]
fn the_key_file_is_made_once_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    let made = MasterKey::load_or_create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(MasterKey::load_or_create(&path).unwrap().id(), made.id());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
}

#[test]
fn a_key_that_appears_while_another_is_made_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    // As if another process had been quicker: looking found nothing, and now there is a file.
    fs::write(&path, HEX).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    create(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), HEX);
    assert_eq!(
        MasterKey::load_or_create(&path).unwrap().id(),
        MasterKey::parse(HEX).unwrap().id()
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    MasterKey::load_or_create(&path).unwrap();
    for mode in [0o640, 0o604, 0o644, 0o660, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = MasterKey::load_or_create(&path).unwrap_err();
        assert!(
            matches!(error, KeyError::Exposed { mode: m, .. } if m == mode),
            "{error}"
        );
        assert!(error.to_string().contains("chmod 600"));
    }
}

#[test]
fn a_key_file_that_holds_no_key_is_refused_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    for content in [&b""[..], b"garbage", b"\xff\xfe", &[b'a'; 5_000]] {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(
            MasterKey::load_or_create(&path),
            Err(KeyError::File { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    assert!(
        matches!(MasterKey::load_or_create(dir.path()), Err(KeyError::File { .. })),
        "a directory"
    );
}

proptest! {
    #[test]
    fn what_is_sealed_comes_back(secret in prop::collection::vec(any::<u8>(), 0..300), row in ".{0,20}") {
        let t = tenant("t");
        let sealer = sealer();
        let sealed = sealer.seal(place(&t, &row), &secret).unwrap();
        let opened = sealer.open(place(&t, &row), &sealed).unwrap();
        prop_assert_eq!(opened.expose_secret(), secret.as_slice());
    }

    #[test]
    fn garbage_never_opens_and_never_panics(blob in prop::collection::vec(any::<u8>(), 0..200)) {
        let t = tenant("t");
        prop_assert!(sealer().open(place(&t, "k"), &blob).is_err());
    }
}
