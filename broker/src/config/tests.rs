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

mod bad;

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

#[test]
fn every_way_of_writing_toml_means_the_same() {
    let plain = file(&format!(
        "[limits]\nconnections = 7\n[[auth.keys]]\ntenant = \"a\"\nalg = \"HS256\"\nsecret = \"{SECRET}\""
    ));
    let short = file(&format!(
        "auth.keys = [{{tenant = 'a', alg = 'HS256', secret = '{SECRET}'}}]\nlimits.connections = 0b111"
    ));
    let inline = file(&format!(
        "limits = {{connections = 7}}\nauth = {{keys = [{{tenant = 'a', alg = 'HS256', secret = '{SECRET}'}}]}}"
    ));
    let plain = plain.unwrap();
    assert_eq!(plain.config.auth.keys.len(), 1);
    assert_eq!(plain.changes(&short.unwrap()), (vec![], vec![]));
    assert_eq!(plain.changes(&inline.unwrap()), (vec![], vec![]));
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
