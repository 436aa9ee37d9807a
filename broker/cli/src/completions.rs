//! `cauce completions`: what a shell needs to complete our command lines.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;
use crate::failure::Failure;

/// Print completions for a shell
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cauce completions bash > ~/.local/share/bash-completion/completions/cauce\n  cauce completions zsh > ~/.zfunc/_cauce\n  cauce completions fish > ~/.config/fish/completions/cauce.fish"
)]
pub(crate) struct Completions {
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<(), Failure> {
        // Into memory first: the generator panics where it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "cauce", &mut script);
        let mut out = std::io::stdout().lock();
        out.write_all(&script)?;
        Ok(out.flush()?)
    }
}
