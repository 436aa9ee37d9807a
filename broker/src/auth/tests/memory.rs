//! What is remembered of tokens, and for how long.

use super::*;

#[test]
fn nothing_secret_is_in_debug() {
    let secret = std::str::from_utf8(SECRET).unwrap();
    let signing = SigningKey::from_secret(Algorithm::Hs256, None, SECRET).unwrap();
    let shown = format!("{:?} {signing:?} {:?}", acme(), random_secret().unwrap());
    assert!(
        !shown.contains(secret) && !shown.contains(&format!("{:?}", &SECRET[..4])),
        "{shown}"
    );
    let mut auth = Authenticator::new(Arc::new(acme()), POLICY, 8);
    let token = with("sub", json!("ada"));
    auth.authenticate(&token, now(), active).unwrap();
    assert!(!format!("{auth:?}").contains(&token));
}

#[test]
fn a_remembered_token_ends_with_its_time_its_keys_its_policy_and_its_tenant() {
    let keys = Arc::new(acme());
    let mut auth = Authenticator::new(keys.clone(), POLICY, 8);
    let token = with("exp", json!(NOW + 60));
    let first = auth.authenticate(&token, now(), active).unwrap();
    let at = |seconds: u64| Now {
        unix_ms: (NOW + seconds) * 1_000,
        ..now()
    };
    // The defaults are another Arc each time, so the grant is made anew; with the same one, the principal is the same.
    let defaults = Arc::new(Defaults::default());
    let same = |_: &TenantId| Standing::Active(defaults.clone());
    let a = auth.authenticate(&token, at(1), same).unwrap();
    let b = auth.authenticate(&token, at(69), same).unwrap();
    assert!(Arc::ptr_eq(&a, &b) && *a == *first);
    assert_eq!(
        auth.authenticate(&token, at(69), |_| Standing::Disabled)
            .unwrap_err()
            .refusal
            .code,
        Code::TenantDisabled
    );
    assert_eq!(
        auth.authenticate(&token, at(70), same).unwrap_err().refusal.code,
        Code::TokenExpired
    );

    auth.authenticate(&token, at(1), same).unwrap();
    keys.replace(KeySource::Config, Vec::new()).unwrap();
    assert_eq!(
        auth.authenticate(&token, at(1), same).unwrap_err().refusal.code,
        Code::TokenInvalid
    );
}

#[test]
fn a_remembered_token_follows_the_defaults_of_its_roles() {
    let mut auth = Authenticator::new(Arc::new(acme()), POLICY, 8);
    let token = with("roles", json!(["staff"]));
    let rule = Rule {
        rooms: vec![Pattern::new("orders:*").unwrap()],
        allow: [Action::Subscribe].into_iter().collect(),
    };
    let open = RoleGrants::new([(Role::new("staff").unwrap(), Rules::new(vec![rule]).unwrap())]).unwrap();
    let (open, closed) = (Arc::new(Defaults::from(open)), Arc::new(Defaults::default()));
    for defaults in [&open, &closed, &open] {
        let standing = |_: &TenantId| Standing::Active(defaults.clone());
        let principal = auth.authenticate(&token, now(), standing).unwrap();
        assert_eq!(
            principal.grant.allows(Action::Subscribe, "orders:1"),
            Arc::ptr_eq(defaults, &open)
        );
    }
}

#[test]
fn only_what_was_verified_is_remembered_and_not_too_much_of_it() {
    let mut auth = Authenticator::new(Arc::new(acme()), POLICY, 8);
    for i in 0..100 {
        auth.authenticate(&with("sub", json!(format!("u{i}"))), now(), active)
            .unwrap();
        let forged = forge_text(&format!(r#"{{"alg":"HS256","kid":"k{i}"}}"#), "{}", b"x");
        assert!(auth.authenticate(&forged, now(), active).is_err());
        assert!(auth.remembered() <= 8);
    }
    assert!(auth.remembered() > 0);
}

#[tokio::test]
async fn a_token_with_an_unknown_key_waits_for_the_key_sets_and_is_refused_after() {
    use crate::auth::fetch::Refresher;
    use crate::clock::Clock;
    use crate::config;

    // Nobody listens there, so the fetch fails: the key is not found, which is what this is about.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let flags = [
        "operator=true".to_owned(),
        format!("url=http://{closed}/"),
        "allow_http=true".to_owned(),
    ];
    let inputs = config::LoadInputs {
        flags: flags.iter().map(|flag| format!("auth.jwks.0.{flag}")).collect(),
        ..Default::default()
    };
    let config = config::load(inputs).unwrap().config;
    let (keys, clock) = (Arc::new(acme()), Clock::start());
    let nudge = crate::auth::fetch::Nudge::default();
    let refresher = Refresher::new(keys.clone(), &config.auth, clock, nudge.clone()).unwrap();
    let mut auth = Authenticator::new(keys, POLICY, 8).with_nudge(nudge);
    let token = forge(&json!({"alg": "HS256", "kid": "k9"}), &good_claims());
    let code = |auth: &mut Authenticator| {
        let mono_ms = clock.now().mono_ms;
        let refusal = auth
            .authenticate(&token, Now { mono_ms, ..now() }, active)
            .unwrap_err()
            .refusal;
        (refusal.code, refusal.retry_after_ms > 0)
    };
    assert_eq!(code(&mut auth), (Code::Unavailable, true));
    let running = tokio::spawn(refresher.run());
    let refused = async {
        while code(&mut auth) != (Code::TokenInvalid, false) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), refused)
        .await
        .unwrap();
    running.abort();
    // A wrong signature under a known name is refused at once.
    let forged = forge_text(
        r#"{"alg":"HS256","kid":"k1"}"#,
        &good_claims().to_string(),
        OTHER_SECRET,
    );
    assert_eq!(
        auth.authenticate(&forged, now(), active)
            .unwrap_err()
            .refusal
            .code,
        Code::TokenInvalid
    );
}
