use super::*;
use proptest::prelude::*;

fn rules(rules: &[(&str, &[Action])]) -> Rules {
    let rules = rules.iter().map(|(pattern, allow)| Rule {
        rooms: vec![Pattern::new(pattern).unwrap()],
        allow: allow.iter().copied().collect(),
    });
    Rules::new(rules.collect()).unwrap()
}

fn token(list: &[(&str, &[Action])]) -> Grant {
    Grant::new(rules(list), &Defaults::default(), &[])
}

/// The definition, slow and plain: `*` takes nothing, or one character and stays.
fn naive(pattern: &[char], room: &[char]) -> bool {
    match (pattern.first(), room.first()) {
        (None, None) => true,
        (Some('*'), _) if naive(&pattern[1..], room) => true,
        (Some('*'), Some(_)) => naive(pattern, &room[1..]),
        (Some(p), Some(r)) if p == r => naive(&pattern[1..], &room[1..]),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn rules_come_out_as_they_went_in(list in prop::collection::vec(("[ -~é*€]{1,12}", 0_u8..=Actions::ALL.0), 0..9)) {
        let one = |(pattern, allow): &(String, u8)| Rule { rooms: vec![Pattern::new(pattern).unwrap()], allow: Actions(*allow) };
        let rules = Rules::new(list.iter().map(one).collect()).unwrap();
        let out: Vec<_> = rules.iter().map(|(pattern, allow)| (pattern.to_owned(), allow.0)).collect();
        prop_assert_eq!(out, list);
    }

    #[test]
    fn matching_agrees_with_the_definition(pattern in "[ab*é$]{1,8}", room in "[abé$*]{1,10}") {
        let (p, r): (Vec<_>, Vec<_>) = (pattern.chars().collect(), room.chars().collect());
        let expected = naive(&p, &r) && (!room.starts_with('$') || pattern.starts_with('$'));
        prop_assert_eq!(Pattern::new(&pattern).unwrap().matches(&room), expected);
    }

    #[test]
    fn nothing_is_allowed_in_reserved_rooms_by_a_pattern_that_does_not_name_them(
        pattern in "[ab*][ab*$]{0,5}", room in "\\$[ab$]{0,6}",
    ) {
        let grant = token(&[(&pattern, &Action::ALL)]);
        prop_assert_eq!(grant.at(&room), Actions::NONE);
    }
}

#[test]
fn a_hostile_pattern_is_matched_at_once() {
    let pattern = Pattern::new(&"*a".repeat(PATTERN_BYTES_MAX / 2)).unwrap();
    let room = format!("{}b", "a".repeat(199));
    let start = std::time::Instant::now();
    for _ in 0..1_000 {
        assert!(!pattern.matches(&room));
    }
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn nothing_is_allowed_by_default() {
    for action in Action::ALL {
        assert!(!Grant::none().allows(action, "lobby"));
        assert!(!token(&[]).allows(action, "lobby"));
        assert!(!token(&[("lobby", &[])]).allows(action, "lobby"));
    }
}

#[test]
fn rules_that_match_the_same_room_add_up() {
    let grant = token(&[("a*", &[Action::Subscribe]), ("*b", &[Action::Publish])]);
    assert!(grant.allows(Action::Subscribe, "ab") && grant.allows(Action::Publish, "ab"));
    assert!(!grant.allows(Action::Publish, "a") && !grant.allows(Action::Subscribe, "b"));
}

#[test]
fn a_token_decides_alone_where_it_speaks_and_roles_elsewhere() {
    let (staff, guest) = (Role::new("staff").unwrap(), Role::new("guest").unwrap());
    let defaults = RoleGrants::new([
        (
            staff.clone(),
            rules(&[("orders:*", &[Action::Subscribe, Action::Publish])]),
        ),
        (guest.clone(), rules(&[("lobby", &[Action::Subscribe])])),
    ])
    .unwrap();
    let grant = Grant::new(
        rules(&[("orders:secret", &[Action::Subscribe])]),
        &defaults.into(),
        &[staff.clone(), guest],
    );
    assert!(grant.allows(Action::Publish, "orders:1"));
    assert!(grant.allows(Action::Subscribe, "lobby"));
    assert!(grant.allows(Action::Subscribe, "orders:secret"));
    assert!(!grant.allows(Action::Publish, "orders:secret"));
    assert!(
        !grant
            .over(&Defaults::default(), &[staff])
            .allows(Action::Publish, "orders:1")
    );
}

#[test]
fn nobody_publishes_into_reserved_rooms() {
    let grant = token(&[("$devices", &Action::ALL), ("$*", &Action::ALL)]);
    assert!(grant.allows(Action::Subscribe, "$devices"));
    assert!(!grant.allows(Action::Publish, "$devices"));
    let refusal = grant.explain(Action::Publish, "$devices").unwrap_err();
    assert_eq!(refusal.code, Code::Forbidden);
    assert_eq!(Grant::everything().at("$devices"), Actions::NONE);
}

#[test]
fn a_refusal_names_the_missing_right_and_no_other() {
    let grant = token(&[("secret:*", &[Action::Subscribe])]);
    for action in [Action::Publish, Action::Presence, Action::History, Action::Call] {
        let refusal = grant.explain(action, "secret:1").unwrap_err();
        assert_eq!(refusal.code, Code::Forbidden);
        assert!(refusal.message.contains(action.name()), "{refusal}");
        assert!(!refusal.message.contains("secret") && !refusal.message.contains("subscribe"));
        assert!(refusal.message.len() <= cauce_protocol::limits::REASON_BYTES_MAX);
    }
    assert_eq!(grant.explain(Action::Subscribe, "secret:1"), Ok(()));
}

#[test]
fn patterns_have_bounds() {
    assert_eq!(Pattern::new(""), Err(GrantError::EmptyPattern));
    assert_eq!(Pattern::new("a\n"), Err(GrantError::PatternCharacter('\n')));
    assert_eq!(
        Pattern::new(&"a".repeat(PATTERN_BYTES_MAX + 1)),
        Err(GrantError::PatternTooLong)
    );
    let many = Rule {
        rooms: vec![Pattern::new("*").unwrap(); PATTERNS_MAX + 1],
        allow: Actions::ALL,
    };
    assert_eq!(Rules::new(vec![many]), Err(GrantError::TooManyPatterns));
    let roles = (0..=ROLES_WITH_DEFAULTS_MAX).map(|i| (Role::new(&i.to_string()).unwrap(), Rules::default()));
    assert_eq!(RoleGrants::new(roles), Err(GrantError::TooManyRoles));
}

#[test]
fn a_rule_with_an_unknown_field_or_right_is_refused() {
    assert!(serde_json::from_str::<Rule>(r#"{"rooms":["*"],"allow":["publish"]}"#).is_ok());
    for bad in [
        r#"{"rooms":["*"],"allow":["publish"],"deny":["call"]}"#,
        r#"{"rooms":["*"],"allow":["admin"]}"#,
        r#"{"rooms":"*","allow":["publish"]}"#,
        r#"{"rooms":["*"]}"#,
        r#"{"rooms":[""],"allow":["publish"]}"#,
    ] {
        assert!(serde_json::from_str::<Rule>(bad).is_err(), "{bad}");
    }
}

#[test]
fn role_grants_are_read_within_their_bounds_and_written_back() {
    let text = r#"{"staff":[{"rooms":["orders:*","lobby"],"allow":["subscribe","publish"]}],"guest":[]}"#;
    let grants: RoleGrants = serde_json::from_str(text).unwrap();
    let again: RoleGrants = serde_json::from_str(&serde_json::to_string(&grants).unwrap()).unwrap();
    assert_eq!(grants, again);
    let staff = Grant::new(Rules::default(), &grants.into(), &[Role::new("staff").unwrap()]);
    assert!(staff.allows(Action::Publish, "lobby") && !staff.allows(Action::Call, "lobby"));
    let patterns = vec![r#""*""#; PATTERNS_MAX + 1].join(",");
    let roles: Vec<_> = (0..=ROLES_WITH_DEFAULTS_MAX)
        .map(|i| format!(r#""r{i}":[]"#))
        .collect();
    for bad in [
        format!(r#"{{"staff":[{{"rooms":[{patterns}],"allow":[]}}]}}"#),
        format!("{{{}}}", roles.join(",")),
        r#"{"":[]}"#.to_owned(),
        r#"{"staff":{}}"#.to_owned(),
        "[]".to_owned(),
    ] {
        assert!(serde_json::from_str::<RoleGrants>(&bad).is_err(), "{bad}");
    }
}
