//! What is refused, and with which line.

use super::*;

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
        "[threads]\ningest_shards = 65",
        "cauce.toml:2: threads.ingest_shards: is out of range: 0 to 64 are allowed",
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
            "flag limits.connections: must not be zero",
        ),
    ] {
        let error = flag(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
