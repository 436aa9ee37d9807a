use super::*;
use proptest::prelude::*;

fn table(kind: CredentialKind) -> (Credentials, Issued) {
    let issued = issue(kind).unwrap();
    let mut table = Credentials::default();
    let scopes = [Scope::Publish, Scope::Rooms].into_iter().collect();
    table
        .insert(issued.row(kind, KeyOwner::Operator, scopes))
        .unwrap();
    (table, issued)
}

#[test]
fn what_was_issued_is_accepted_and_nothing_near_it() {
    for kind in [CredentialKind::ApiKey, CredentialKind::Device] {
        let (table, issued) = table(kind);
        let text = issued.expose().to_owned();
        assert_eq!(text.len(), CREDENTIAL_CHARS);
        assert_eq!(table.authenticate(&text, kind, 0).unwrap().id, issued.id);
        let refused = |text: &str| table.authenticate(text, kind, 0).unwrap_err();
        let strange = issue(kind).unwrap();
        let other_secret = format!("{}{}", &text[..20], &strange.expose()[20..]);
        let other_kind = format!(
            "{}{}",
            if text.starts_with("ck") { "cd_" } else { "ck_" },
            &text[3..]
        );
        let answer = refused(strange.expose());
        for bad in [
            &other_secret,
            &other_kind,
            &text[1..],
            &format!("{text}A"),
            &text.to_uppercase(),
            &text.replacen('_', "-", 1),
            "ck_",
            "é",
        ] {
            assert_eq!(refused(bad), answer, "{bad}");
        }
        assert_eq!(answer.code, Code::TokenInvalid);
        assert_eq!(refused("").code, Code::Unauthenticated);
    }
}

#[test]
fn revoked_and_expired_keys_are_refused_with_their_code() {
    let (mut table, issued) = table(CredentialKind::ApiKey);
    let mut row = (**table.find(issued.id).unwrap()).clone();
    row.expires_unix_ms = Some(100);
    table.insert(row).unwrap();
    let code = |table: &Credentials, now| {
        table
            .authenticate(issued.expose(), CredentialKind::ApiKey, now)
            .map_err(|e| e.code)
            .err()
    };
    assert_eq!(code(&table, 99), None);
    assert_eq!(code(&table, 100), Some(Code::TokenExpired));
    assert_eq!(table.revoke(issued.id, 50).unwrap().revoked_unix_ms, Some(50));
    assert_eq!(table.revoke(issued.id, 60).unwrap().revoked_unix_ms, Some(50));
    assert_eq!(code(&table, 60), Some(Code::TokenRevoked));
    assert!(table.remove(issued.id).is_some() && table.is_empty());
    assert_eq!(code(&table, 60), Some(Code::TokenInvalid));
}

#[test]
fn debug_shows_no_secret_and_no_hash() {
    let (table, issued) = table(CredentialKind::ApiKey);
    let secret = &issued.expose()[20..];
    let presented = Presented::parse(issued.expose()).unwrap();
    let shown = format!("{table:?} {presented:?} {:?}", issued.text);
    assert!(
        shown.contains(issued.id.as_str()) && !shown.contains(secret),
        "{shown}"
    );
}

#[test]
fn scopes_are_what_they_say_and_all_is_all() {
    let scopes: Scopes = "publish, rooms".parse().unwrap();
    assert!(scopes.allow(Scope::Publish) && !scopes.allow(Scope::Tenants));
    assert_eq!(scopes.to_string(), "publish,rooms");
    let all: Scopes = "all".parse().unwrap();
    assert!(Scope::ALL.iter().all(|&scope| all.allow(scope)));
    assert_eq!("publish,root".parse::<Scopes>(), Err("root".to_owned()));
    assert!(!Scopes::NONE.allow(Scope::All) && !scopes.allow(Scope::All));
    let (_, issued) = table(CredentialKind::Device);
    let row = issued.row(CredentialKind::Device, KeyOwner::Operator, all);
    assert_eq!(row.require(Scope::Publish).unwrap_err().code, Code::Forbidden);
}

#[test]
fn ids_and_secrets_do_not_repeat() {
    let issued: Vec<_> = (0..1_000)
        .map(|_| issue(CredentialKind::Device).unwrap())
        .collect();
    let ids: std::collections::HashSet<_> = issued.iter().map(|i| i.id).collect();
    let hashes: std::collections::HashSet<_> = issued.iter().map(|i| i.secret_sha256).collect();
    assert_eq!((ids.len(), hashes.len()), (1_000, 1_000));
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,80}", tail in "[ -~é]{60}") {
        let _ = Presented::parse(&text);
        let _ = Presented::parse(&format!("ck_{tail}"));
    }
}
