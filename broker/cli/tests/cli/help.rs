//! Whoever asks for help gets it.

use super::support::{printed, run};

const COMMANDS: [&[&str]; 34] = [
    &["serve"],
    &["demo"],
    &["token"],
    &["pub"],
    &["sub"],
    &["simulate"],
    &["migrate"],
    &["config"],
    &["completions"],
    &["answer"],
    &["call"],
    &["connections"],
    &["disconnect"],
    &["history"],
    &["loadtest"],
    &["loadtest", "run"],
    &["loadtest", "standard"],
    &["notify"],
    &["presence"],
    &["revoke"],
    &["device"],
    &["device", "list"],
    &["device", "call"],
    &["device", "on"],
    &["device", "token", "create"],
    &["device", "assign"],
    &["tenant"],
    &["tenant", "create"],
    &["tenant", "key", "add"],
    &["tenant", "key", "revoke"],
    &["apikey"],
    &["apikey", "create"],
    &["apikey", "list"],
    &["apikey", "revoke"],
];

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS {
        let help = printed(command.iter().copied().chain(["--help"]));
        assert!(help.contains("Usage: cauce"), "{command:?}: {help}");
    }
}

#[test]
fn every_family_of_commands_gives_examples() {
    let families = COMMANDS.iter().filter(|command| command.len() == 1);
    for command in families.copied().chain([&[][..]]) {
        let help = printed(command.iter().copied().chain(["--help"]));
        assert!(help.contains("Examples:"), "{command:?}: {help}");
    }
}

#[test]
fn what_does_not_exist_is_wrong_usage() {
    for wrong in [
        &["sevre"][..],
        &["serve", "--bogus"],
        &["pub", "only-a-room"],
        &["sub"],
        &["demo", "--devices", "1"],
        &["demo", "--rate", "nan"],
        &["simulate", "--rate", "0"],
        &["sub", "orders", "--since", "42"],
        &["sub", "orders", "--policy", "newest"],
        &["call", "echo", "[1]"],
        &["answer", "echo"],
        &["notify", "hello"],
        &["disconnect"],
        &["revoke", "--user", "ana", "--jti", "x"],
        &["history", "orders", "--last", "3", "--backwards"],
    ] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn no_colour_where_there_is_no_terminal() {
    let output = run(["--help"]);
    assert!(!output.stdout.contains(&0x1b));
    assert!(!run(["sevre"]).stderr.contains(&0x1b));
}

#[test]
fn shells_can_complete() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(printed(["completions", shell]).contains("simulate"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_early_is_no_failure() {
    let script = r#""$0" config --template | head -n 1 >/dev/null; "$0" completions bash | head -n 1 > /dev/null; echo done"#;
    let output = std::process::Command::new("bash")
        .args([
            "-c",
            &format!("set -o pipefail; {script}"),
            env!("CARGO_BIN_EXE_cauce"),
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
}
