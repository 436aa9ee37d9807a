//! Whoever asks for help gets it.

use super::support::{printed, run};

const COMMANDS: [&[&str]; 22] = [
    &["serve"],
    &["demo"],
    &["token"],
    &["pub"],
    &["sub"],
    &["simulate"],
    &["migrate"],
    &["config"],
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
