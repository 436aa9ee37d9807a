//! The configuration: where each value comes from, and what a wrong one leads to.

use super::support::{cauce, json, printed, run};

#[test]
fn every_value_has_a_source() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cauce.toml");
    std::fs::write(
        &file,
        "[limits]\nframe_bytes = \"32KiB\"\npayload_bytes = \"16KiB\"\n",
    )
    .unwrap();
    let mut command = cauce([
        "config",
        "--json",
        "--set",
        "limits.payload_bytes=8KiB",
        "--config",
    ]);
    let output = command
        .arg(&file)
        .env("CAUCE_LOG__LEVEL", "debug")
        .output()
        .unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let source = |key: &str| shown[key]["source"].as_str().unwrap_or_default().to_owned();
    assert!(source("limits.frame_bytes").ends_with("cauce.toml:2"), "{shown}");
    assert_eq!(source("limits.payload_bytes"), "flag limits.payload_bytes");
    assert_eq!(source("log.level"), "env CAUCE_LOG__LEVEL");
    assert_eq!(source("listen"), "default");
    for (key, value) in shown.as_object().unwrap() {
        assert!(value["source"].is_string(), "{key}");
    }
}

#[test]
fn a_wrong_configuration_ends_with_78_and_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cauce.toml");
    std::fs::write(&file, "[limits]\nframe_byte = 1\n").unwrap();
    let file = file.to_str().unwrap();
    for wrong in [
        &["serve", "--set", "limits.frame_bytes=lots"][..],
        &["serve", "--config", file],
        &["serve", "--config", "/nowhere/cauce.toml"],
        &["serve", "--log", "lots=of=nonsense"],
        &["config", "--set", "nonsense"],
        &["migrate", "--set", "listen=here"],
    ] {
        let output = run(wrong);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{wrong:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{wrong:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_template_is_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cauce.toml");
    std::fs::write(&file, printed(["config", "--template"])).unwrap();
    let shown = printed(["config", "--config", file.to_str().unwrap()]);
    assert_eq!(shown, printed(["config"]));
}

#[test]
fn migrating_says_what_it_did_and_a_second_time_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let applied = |args: &[&str]| json([&["migrate", "--json", "--data-dir", data], args].concat());
    let planned = applied(&["--dry-run"]);
    assert!(planned["migrations"][0]["applied_unix_ms"].is_null(), "{planned}");
    assert_eq!(applied(&[])["migrations"][0]["applied_now"], true);
    assert_eq!(applied(&[])["migrations"][0]["applied_now"], false);
    assert!(printed(["migrate", "--dry-run", "--data-dir", data]).contains("there"));
}

#[test]
fn the_example_file_is_the_template() {
    let example = include_str!("../../../../cauce.example.toml");
    let template = printed(["config", "--template"]);
    assert_eq!(
        example, template,
        "write it anew: cauce config --template > cauce.example.toml"
    );
}

#[test]
fn variables_of_other_commands_are_no_settings() {
    let mut command = cauce(["config"]);
    for name in [
        "API_KEY",
        "CA",
        "DEVICE_PASSWORD",
        "DEVICE_TOKEN",
        "TENANT",
        "TOKEN",
        "URL",
    ] {
        command.env(format!("CAUCE_{name}"), "x");
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut command = cauce(["config"]);
    let output = command.env("CAUCE_TENENT", "x").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
}
