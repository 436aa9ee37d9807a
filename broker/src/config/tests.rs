use std::collections::HashSet;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;

const SECRET: &str = "not-a-real-secret-0123456789-abcdef";

fn file(text: &str) -> Result<Loaded, ConfigError> {
    load(LoadInputs {
        file: Some(("cauce.toml".to_owned(), text.to_owned())),
        ..LoadInputs::default()
    })
}

fn env(name: &str, value: &str) -> Result<Loaded, ConfigError> {
    load(LoadInputs {
        env: vec![(name.to_owned(), value.to_owned())],
        ..LoadInputs::default()
    })
}

fn flag(flag: &str) -> Result<Loaded, ConfigError> {
    load(LoadInputs {
        flags: vec![flag.to_owned()],
        ..LoadInputs::default()
    })
}

fn source(loaded: &Loaded, key: &str) -> String {
    loaded
        .entries
        .iter()
        .find(|e| e.key() == key)
        .unwrap()
        .source
        .to_string()
}

#[test]
fn nothing_configured_is_a_safe_configuration() {
    let config = Config::default();
    assert_eq!(config.listen, "127.0.0.1:7700".parse().unwrap());
    assert_eq!(config.limits.frame_bytes, 64 * 1024);
    assert_eq!(config.limits.handshake_timeout, Duration::from_secs(5));
    assert_eq!(config.heartbeat.interval, Duration::from_secs(30));
    assert!(config.auth.require_exp && config.auth.keys.is_empty());
    assert!(!config.origins.allows(Some("https://evil.example")));
    assert_eq!(
        config.database_path(),
        std::path::Path::new("./cauce-data/cauce.db")
    );
}

#[test]
fn the_later_source_wins_and_every_value_says_where_it_is_from() {
    let loaded = load(LoadInputs {
        file: Some((
            "/etc/cauce.toml".to_owned(),
            "# comment\nlisten = \"127.0.0.1:1\"\n\n[limits]\nframe_bytes = \"32KiB\"\npayload_bytes = 1024\n\
             payload_depth = 0x8\n"
                .to_owned(),
        )),
        env: vec![
            ("CAUCE_LISTEN".to_owned(), "127.0.0.1:2".to_owned()),
            ("CAUCE_LIMITS__FRAME_BYTES".to_owned(), "16384".to_owned()),
            ("PATH".to_owned(), "/bin".to_owned()),
        ],
        flags: vec!["listen=127.0.0.1:3".to_owned()],
    })
    .unwrap();
    assert_eq!(loaded.config.listen.port(), 3);
    assert_eq!(loaded.config.limits.frame_bytes, 16 * 1024);
    assert_eq!(loaded.config.limits.payload_depth, 8);
    assert_eq!(source(&loaded, "listen"), "flag listen");
    assert_eq!(
        source(&loaded, "limits.frame_bytes"),
        "env CAUCE_LIMITS__FRAME_BYTES"
    );
    assert_eq!(source(&loaded, "limits.payload_bytes"), "/etc/cauce.toml:6");
    assert_eq!(source(&loaded, "limits.connections"), "default");
}

#[test]
fn keys_may_come_from_the_file_the_environment_or_both() {
    let loaded = load(LoadInputs {
        file: Some((
            "cauce.toml".to_owned(),
            "[[auth.keys]]\ntenant = \"acme\"\nkid = \"k1\"\nalg = \"HS256\"\n[[auth.keys]]\noperator = true\n\
             alg = \"EdDSA\"\npublic_key_file = \"/k.pem\"\n"
                .to_owned(),
        )),
        env: vec![("CAUCE_AUTH__KEYS__0__SECRET".to_owned(), SECRET.to_owned())],
        flags: vec!["auth.keys.1.issuer=https://id.example.com".to_owned()],
    })
    .unwrap();
    let keys = &loaded.config.auth.keys;
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0].secret.as_ref().unwrap().expose_secret(), SECRET);
    assert_eq!(keys[0].tenant.as_ref().unwrap().as_str(), "acme");
    assert!(keys[1].operator && keys[1].alg == Algorithm::EdDsa);
    assert_eq!(keys[1].issuer.as_deref(), Some("https://id.example.com"));
    assert_eq!(
        source(&loaded, "auth.keys.0.secret"),
        "env CAUCE_AUTH__KEYS__0__SECRET"
    );
}

#[test]
fn no_secret_is_printed_or_debugged_or_in_an_error() {
    let text = format!("[[auth.keys]]\ntenant = \"acme\"\nalg = \"HS256\"\nsecret = \"{SECRET}\"\n");
    let loaded = file(&text).unwrap();
    let printed = [
        loaded.to_toml(),
        loaded.to_json().to_string(),
        format!("{loaded:?}"),
        format!("{:?}", loaded.config),
    ];
    for printed in &printed {
        assert!(
            !printed.contains(SECRET) && !printed.contains("real-secret"),
            "{printed}"
        );
    }
    assert!(printed[0].contains("secret = \"********\" # cauce.toml:4"));
    for broken in [
        format!("{text}\nbroken {SECRET}"),
        format!("[[auth.keys]]\ntenant = \"a\"\nalg = \"HS256\"\nsecret = \"{SECRET}"),
        format!("[[auth.keys]]\ntenant = \"a\"\nalg = \"EdDSA\"\nsecret = \"{SECRET}\""),
        format!("[[auth.keys]]\ntenant = \"a\"\nalg = \"HS256\"\nsecret = [\"{SECRET}\"]"),
        format!("[[auth.keys]]\ntenant = \"a\"\nalg = \"HS256\"\nsecret = \"{SECRET}\\u0007\""),
    ] {
        let error = file(&broken).unwrap_err().to_string();
        assert!(!error.contains("real-secret"), "{error}");
    }
}

#[test]
fn what_is_printed_loads_again_as_the_same() {
    let text = "origins = [\"https://a.example\", \"loopback\"]\ndata_dir = \"/tmp/a \\\"b\\\"\"\n[limits]\n\
                call_timeout = \"1500ms\"\n[[auth.jwks]]\ntenant = \"acme\"\nurl = \"https://id.example.com/jwks\"\n\
                [[auth.jwks]]\noperator = true\nurl = \"https://id.example.com/op\"\n";
    let first = file(text).unwrap();
    let again = file(&first.to_toml()).unwrap();
    assert_eq!(first.changes(&again), (vec![], vec![]));
    assert_eq!(again.config.auth.jwks.len(), 2);
    assert_eq!(again.config.limits.call_timeout, Duration::from_millis(1_500));
}

#[test]
fn the_template_names_every_setting_and_loads_as_the_defaults() {
    let template = template();
    let loaded = file(&template).unwrap();
    assert!(loaded.entries.iter().all(|e| e.source == Source::Default));
    let mut known = 0;
    let mut section = "";
    let mut uncommented = String::new();
    for line in template.lines() {
        let bare = line.trim_start_matches('#');
        if bare.starts_with("[[") {
            break;
        }
        if bare.starts_with('[') {
            section = bare.trim_matches(['[', ']']);
            uncommented += &format!("{bare}\n");
        } else if !bare.starts_with(' ') && bare.contains(" = ") {
            let name = bare.split(' ').next().unwrap();
            assert!(
                SECTIONS
                    .iter()
                    .any(|s| s.name == section && s.settings.iter().any(|k| k.name == name)),
                "{bare}"
            );
            known += 1;
            if !bare.ends_with("# not set") {
                uncommented += &format!("{bare}\n");
            }
        }
    }
    assert!(known > 30);
    let again = file(&uncommented).unwrap();
    assert_eq!(loaded.changes(&again), (vec![], vec![]));
    for setting in SECTIONS.iter().flat_map(|s| s.settings) {
        assert!(
            template.contains(&format!("\n#{} = ", setting.name)),
            "{}",
            setting.key()
        );
        assert!(
            markdown().contains(&format!("| `{}` |", setting.name)),
            "{}",
            setting.key()
        );
    }
}

#[test]
fn the_table_has_no_two_settings_of_one_name_and_no_empty_words() {
    let mut keys = HashSet::new();
    for setting in SECTIONS.iter().flat_map(|s| s.settings) {
        assert!(keys.insert(setting.env()), "{}", setting.key());
        assert!(
            setting.doc.iter().all(|line| line.trim().len() > 3),
            "{}",
            setting.key()
        );
    }
}

#[test]
fn a_change_says_whether_it_needs_a_restart() {
    let old = file("[limits]\nconnections = 5\n").unwrap();
    let new = file("listen = \"127.0.0.1:9\"\n[limits]\nconnections = 6\n").unwrap();
    assert_eq!(
        old.changes(&new),
        (vec!["limits.connections".to_owned()], vec!["listen".to_owned()])
    );
    let key = file(&format!(
        "[[auth.keys]]\noperator = true\nalg = \"HS256\"\nsecret = \"{SECRET}\""
    ))
    .unwrap();
    let other = file(&format!(
        "[[auth.keys]]\noperator = true\nalg = \"HS256\"\nsecret = \"x{SECRET}\""
    ))
    .unwrap();
    assert_eq!(
        key.changes(&other),
        (vec!["auth.keys.0.secret".to_owned()], vec![])
    );
    assert_eq!(old.changes(&key).0.len(), 10);
}

#[test]
fn the_environment_of_a_cluster_and_of_the_command_line_is_passed_over() {
    for name in [
        "CAUCE_PORT",
        "CAUCE_PORT_7700_TCP_ADDR",
        "CAUCE_SERVICE_HOST",
        "CAUCE_TOKEN",
        "CAUCE_CONFIG",
        "cauce_listen",
    ] {
        assert!(env(name, "tcp://10.0.0.1:7700").is_ok(), "{name}");
    }
}

/// Each bad file with the one line it is refused with.
const BAD_FILES: &[(&str, &str)] = &[
    ("listen = ", "cauce.toml:1: "),
    ("a = 1\na = 2", "cauce.toml:2: duplicate key"),
    (
        "lisen = \"127.0.0.1:1\"",
        "cauce.toml:1: lisen: unknown key; did you mean listen?",
    ),
    (
        "\n\nfrobnicate = 1",
        "cauce.toml:3: frobnicate: unknown key; `cauce config --template` lists all",
    ),
    (
        "[limts]\n",
        "cauce.toml:1: limts: unknown key; did you mean limits?",
    ),
    (
        "[limits]\nframe_byte = 1",
        "cauce.toml:2: limits.frame_byte: unknown key; did you mean limits.frame_bytes?",
    ),
    (
        "frame_bytes = 8192",
        "cauce.toml:1: frame_bytes: unknown key; did you mean limits.frame_bytes?",
    ),
    (
        "limits.frame_bytes.x = 1",
        "cauce.toml:1: limits.frame_bytes: expected a size such as \"64KiB\", found a table",
    ),
    ("limits = 5", "cauce.toml:1: limits: is a section: write [limits]"),
    (
        "[auth.keys]\nkid = \"a\"",
        "cauce.toml:1: auth.keys: is a section: write [[auth.keys]]",
    ),
    (
        "[[auth.keys]]\n",
        "cauce.toml:1: auth.keys: the entry [[auth.keys]] is empty",
    ),
    ("auth.keys = [1]", "cauce.toml:1: auth.keys: expected tables"),
    (
        "listen = 7700",
        "cauce.toml:1: listen: expected a text in quotes, found a number",
    ),
    (
        "listen = \"localhost:7700\"",
        "cauce.toml:1: listen: expected an IP address and a port such as \"127.0.0.1:7700\", found \"localhost:7700\"",
    ),
    (
        "listen = \"127.0.0.1\"",
        "cauce.toml:1: listen: expected an IP address",
    ),
    (
        "listen = \"127.0.0.1:77000\"",
        "cauce.toml:1: listen: expected an IP address",
    ),
    (
        "listen = \"\"",
        "cauce.toml:1: listen: is empty; leave the key out instead",
    ),
    (
        "internal_listen = \"127.0.0.1:7700\"",
        "cauce.toml:1: internal_listen: is the same as listen; leave it out to use one port",
    ),
    (
        "data_dir = \"a\\u0000b\"",
        "cauce.toml:1: data_dir: contains a control character",
    ),
    (
        "origins = \"https://a.example\"",
        "cauce.toml:1: origins: expected a list of texts in brackets, found a text",
    ),
    (
        "origins = [1]",
        "cauce.toml:1: origins: expected a list of texts in brackets, found a list of something else",
    ),
    (
        "origins = [\"a.example\"]",
        "cauce.toml:1: origins: \"a.example\" is not an origin",
    ),
    (
        "origins = [\"https://*.example\"]",
        "cauce.toml:1: origins: \"https://*.example\" is not an origin",
    ),
    (
        "[tls]\ncert = \"a.pem\"",
        "cauce.toml:2: tls.cert: needs tls.key too",
    ),
    (
        "[tls]\nkey = \"a.pem\"",
        "cauce.toml:2: tls.key: needs tls.cert too",
    ),
    (
        "[threads]\ningest_shards = 0",
        "cauce.toml:2: threads.ingest_shards: must not be zero: 1 to 64 are allowed",
    ),
    (
        "[threads]\nclient_shards = -1",
        "cauce.toml:2: threads.client_shards: is out of range: 0 to 1024 are allowed",
    ),
    (
        "[threads]\npin = 1",
        "cauce.toml:2: threads.pin: expected true or false, without quotes, found a number",
    ),
    (
        "[threads]\npin = \"yes\"",
        "cauce.toml:2: threads.pin: expected true or false, without quotes, found a text",
    ),
    (
        "[limits]\nframe_bytes = 0",
        "cauce.toml:2: limits.frame_bytes: must not be zero: 8KiB to 1MiB are allowed",
    ),
    (
        "[limits]\nframe_bytes = \"2MiB\"",
        "cauce.toml:2: limits.frame_bytes: is out of range: 8KiB to 1MiB are allowed",
    ),
    (
        "[limits]\nframe_bytes = \"64kb\"",
        "cauce.toml:2: limits.frame_bytes: expected a size such as \"65536\", \"64KiB\", \"1MiB\" or \"1GiB\", found \"64kb\"",
    ),
    (
        "[limits]\nframe_bytes = 65536.0",
        "cauce.toml:2: limits.frame_bytes: expected a size such as \"64KiB\", found a fraction",
    ),
    (
        "[limits]\nframe_bytes = \"16KiB\"",
        "cauce.toml:2: limits.payload_bytes: does not fit into limits.frame_bytes with what else a frame holds: 12288 at most",
    ),
    (
        "[limits]\npayload_bytes = \"64KiB\"",
        "cauce.toml:2: limits.payload_bytes: does not fit",
    ),
    (
        "[limits]\npayload_depth = 17",
        "cauce.toml:2: limits.payload_depth: is out of range: 1 to 16 are allowed",
    ),
    (
        "[limits]\nconnections = \"100\"",
        "cauce.toml:2: limits.connections: expected a whole number without quotes, found a text",
    ),
    (
        "[limits]\nconnections = 1.5",
        "cauce.toml:2: limits.connections: expected a whole number without quotes, found a fraction",
    ),
    (
        "[limits]\nconnections = 0",
        "cauce.toml:2: limits.connections: must not be zero",
    ),
    ("[limits]\nconnections = 99999999999999999999", "cauce.toml:2: "),
    (
        "[limits]\nhandshake_timeout = 5",
        "cauce.toml:2: limits.handshake_timeout: needs a unit: \"500ms\", \"30s\", \"5m\", \"1h\" or \"30d\"",
    ),
    (
        "[limits]\nhandshake_timeout = \"5 seconds\"",
        "cauce.toml:2: limits.handshake_timeout: expected a duration such as",
    ),
    (
        "[limits]\nhandshake_timeout = \"0s\"",
        "cauce.toml:2: limits.handshake_timeout: must not be zero: 100ms to 1m are allowed",
    ),
    (
        "[limits]\nhandshake_timeout = \"-5s\"",
        "cauce.toml:2: limits.handshake_timeout: expected a duration such as",
    ),
    (
        "[limits]\nhandshake_timeout = \"2m\"",
        "cauce.toml:2: limits.handshake_timeout: is out of range: 100ms to 1m are allowed",
    ),
    (
        "[limits]\noutbox_bytes = \"64KiB\"",
        "cauce.toml:2: limits.outbox_bytes: must hold at least two frames of limits.frame_bytes",
    ),
    (
        "[limits]\nmailbox_bytes = \"1MiB\"\ndevice_frame_bytes = \"1MiB\"",
        "cauce.toml:2: limits.mailbox_bytes: must hold at least two frames of limits.frame_bytes and of limits.device_frame_bytes",
    ),
    (
        "[heartbeat]\ninterval = \"10s\"",
        "cauce.toml:2: heartbeat.timeout: must be shorter than heartbeat.interval",
    ),
    (
        "[heartbeat]\ninterval = 2026-11-23",
        "cauce.toml:2: heartbeat.interval: expected a duration such as \"30s\", found a date",
    ),
    (
        "listen = \"0.0.0.0:7700\"\n[auth]\nrequire_exp = false",
        "cauce.toml:3: auth.require_exp: tokens that never end are for trying out: listen = \"0.0.0.0:7700\" can be reached by others",
    ),
    (
        "[auth]\nleeway = \"10m\"",
        "cauce.toml:2: auth.leeway: is out of range: 0s to 5m are allowed",
    ),
    (
        "[auth]\nmax_lifetime = \"0s\"",
        "cauce.toml:2: auth.max_lifetime: must not be zero",
    ),
    (
        "[[auth.keys]]\ntenant = \"a\"\nalg = \"HS256\"\nsecret = \"short\"",
        "cauce.toml:4: auth.keys.0.secret: the secret is weak: 5 bytes, at least 32 are needed",
    ),
    (
        "[[auth.keys]]\ntenant = \"a\"\nalg = \"HS256\"\nsecret = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
        "cauce.toml:4: auth.keys.0.secret: the secret is weak: it repeats",
    ),
    (
        "[[auth.keys]]\ntenant = \"a\"\nalg = \"none\"",
        "cauce.toml:3: auth.keys.0.alg: expected one of HS256, HS384",
    ),
    (
        "[[auth.keys]]\ntenant = \"a\"",
        "cauce.toml:2: auth.keys.0.alg: is missing",
    ),
    (
        "[[auth.keys]]\ntenant = \"a\"\nalg = \"HS256\"",
        "cauce.toml:2: auth.keys.0: HS256 needs a secret or secret_file and no public key",
    ),
    (
        "[[auth.keys]]\ntenant = \"a\"\nalg = \"RS256\"\nsecret_file = \"/s\"",
        "cauce.toml:2: auth.keys.0: RS256 needs a public_key_file and no secret",
    ),
    (
        "[[auth.keys]]\ntenant = \"a\"\nalg = \"HS256\"\npublic_key_file = \"/s\"",
        "cauce.toml:2: auth.keys.0: HS256 needs a secret or secret_file and no public key",
    ),
    (
        "[[auth.keys]]\ntenant = \"a\"\noperator = true\nalg = \"RS256\"\npublic_key_file = \"/s\"",
        "cauce.toml:2: auth.keys.0: has both tenant and operator = true; give one",
    ),
    (
        "[[auth.keys]]\nalg = \"RS256\"\npublic_key_file = \"/s\"",
        "cauce.toml:2: auth.keys.0: needs a tenant or operator = true",
    ),
    (
        "[[auth.keys]]\ntenant = \" a\"\nalg = \"RS256\"\npublic_key_file = \"/s\"",
        "cauce.toml:2: auth.keys.0.tenant: contains the character",
    ),
    (
        "[[auth.keys]]\noperator = true\nalg = \"RS256\"\npublic_key_file = \"/s\"\n[[auth.keys]]\noperator = true\nalg = \"RS256\"\npublic_key_file = \"/t\"",
        "cauce.toml:6: auth.keys.1: another entry has the same owner and kid",
    ),
    (
        "[[auth.keys]]\ntenant = \"a\"\nalg = \"HS256\"\nsecrets = \"x\"",
        "cauce.toml:4: auth.keys.0.secrets: unknown key; did you mean auth.keys.secret?",
    ),
    (
        "[[auth.jwks]]\ntenant = \"a\"",
        "cauce.toml:2: auth.jwks.0.url: is missing",
    ),
    (
        "[[auth.jwks]]\ntenant = \"a\"\nurl = \"http://id.example.com/\"",
        "cauce.toml:3: auth.jwks.0.url: must begin with https://",
    ),
    (
        "[[auth.jwks]]\ntenant = \"a\"\nurl = \"http://10.0.0.1/\"\nallow_http = true",
        "cauce.toml:3: auth.jwks.0.url: http:// is allowed to a loopback address only",
    ),
    (
        "[[auth.jwks]]\ntenant = \"a\"\nurl = \"file:///etc/passwd\"",
        "cauce.toml:3: auth.jwks.0.url: must begin with https://",
    ),
    (
        "[[auth.jwks]]\ntenant = \"a\"\nurl = \"https://u:p@id.example.com/\"",
        "cauce.toml:3: auth.jwks.0.url: must not contain a user or password",
    ),
    (
        "[store]\nflush_rows = 0",
        "cauce.toml:2: store.flush_rows: must not be zero",
    ),
    (
        "[store]\nreadings_retention = \"30 days\"",
        "cauce.toml:2: store.readings_retention: expected a duration such as",
    ),
    (
        "[log]\nlevel = \"loud\"",
        "cauce.toml:2: log.level: expected one of off, error, warn, info, debug, trace",
    ),
    (
        "[log]\nlevel = \"info,=debug\"",
        "cauce.toml:2: log.level: expected one of",
    ),
    (
        "[log]\nformat = \"xml\"",
        "cauce.toml:2: log.format: expected one of json, text, found \"xml\"",
    ),
];

#[test]
fn each_bad_file_is_refused_with_one_line_that_says_where_and_why() {
    for (text, expected) in BAD_FILES {
        let error = match file(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => error.to_string(),
        };
        assert!(
            error.starts_with(expected),
            "{text}\nexpected {expected}\nfound    {error}"
        );
        assert!(
            !error.contains('\n') && error.len() > expected.len().min(15),
            "{error}"
        );
    }
    assert!(BAD_FILES.len() >= 60);
}

#[test]
fn bad_environment_and_flags_name_the_variable_and_the_flag() {
    for (name, value, expected) in [
        (
            "CAUCE_LISEN",
            "x",
            "env CAUCE_LISEN: lisen: unknown key; did you mean listen?",
        ),
        (
            "CAUCE_LIMITS_FRAME_BYTES",
            "9KiB",
            "env CAUCE_LIMITS_FRAME_BYTES: limits_frame_bytes: unknown key; did you mean limits.frame_bytes?",
        ),
        (
            "CAUCE_LIMITS__CONNECTIONS",
            "many",
            "env CAUCE_LIMITS__CONNECTIONS: limits.connections: expected a whole number",
        ),
        (
            "CAUCE_THREADS__PIN",
            "1",
            "env CAUCE_THREADS__PIN: threads.pin: expected true or false",
        ),
        (
            "CAUCE_AUTH__KEYS__1__KID",
            "a",
            "env CAUCE_AUTH__KEYS__1__KID: auth.keys.1: entries are counted from 0 without gaps: auth.keys.0 is missing",
        ),
        (
            "CAUCE_AUTH__KEYS__999__KID",
            "a",
            "env CAUCE_AUTH__KEYS__999__KID: auth.keys.999.kid: there may be 256 entries at most",
        ),
        (
            "CAUCE_AUTH__KEYS__99999999999999999999__KID",
            "a",
            "env CAUCE_AUTH__KEYS__99999999999999999999__KID: ",
        ),
        ("CAUCE_AUTH__KEYS____KID", "a", "env CAUCE_AUTH__KEYS____KID: "),
        ("CAUCE_", "a", "env CAUCE_: "),
    ] {
        let error = env(name, value).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    for (text, expected) in [
        ("listen", "flag listen: expected key=value"),
        ("=", "flag : "),
        (
            "limits.connections=0",
            "flag limits.connections: limits.connections: must not be zero",
        ),
    ] {
        let error = flag(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_list_in_the_environment_is_separated_by_commas() {
    let loaded = env("CAUCE_ORIGINS", "https://a.example, https://b.example").unwrap();
    assert!(loaded.config.origins.allows(Some("https://b.example")));
    assert!(!loaded.config.origins.allows(Some("http://localhost")));
    assert!(
        !env("CAUCE_ORIGINS", "")
            .unwrap()
            .config
            .origins
            .allows(Some("http://localhost"))
    );
}

proptest::proptest! {
    #[test]
    fn no_file_panics(text in "[a-z.=\\[\\]\"'\n0-9 _{}#-]{0,200}") {
        let _ = file(&text);
    }
}
