//! Processes that end when we do, however we end.
//!
//! A signal or a panic that aborts runs no destructor, and a server that is left behind holds its core and its port. So each server
//! is started under a *keeper*: our own program once more, in a group of its own (the terminal's Ctrl-C does not reach it), which waits
//! for the end of its standard input. That end comes when we close the pipe or when the kernel closes it for us; then the keeper kills the
//! server and removes its directory.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use cauce_threads::run_as_usual;
use rustix::process::{Pid, Signal, kill_process};

use crate::process;

/// What the name of a directory must begin with for a keeper to remove it.
pub(crate) const SCRATCH_PREFIX: &str = "cauce-loadtest-";

/// What the keeper's own line begins with; the rest is the process's number.
const PID_PREFIX: &str = "pid ";

/// Lines of a server's output that are read in search of its address.
const LINES_MAX: usize = 32;

/// What to start.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<OsString>,
    /// Cores that it finds at its start, so that it makes as many threads as it may use.
    pub(crate) cores: Option<&'a [usize]>,
    /// Its directory, removed after its end.
    pub(crate) scratch: Option<&'a Path>,
}

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Kept {
    keeper: Child,
    output: BufReader<ChildStdout>,
    pid: u32,
    /// What the process said before its keeper had told its number: both write to one pipe.
    early: VecDeque<String>,
}

impl Kept {
    /// Starts it under a keeper; `prefix` are the arguments that lead to the load test's commands in our program.
    ///
    /// # Errors
    /// If it does not start; in words for people.
    pub(crate) fn start(prefix: &[String], start: &Start<'_>) -> Result<Self, String> {
        let ours = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new(ours);
        command.args(prefix).arg("keep");
        if let Some(scratch) = start.scratch {
            command.arg("--remove").arg(scratch);
        }
        command.arg("--").arg(start.program).args(&start.arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut keeper =
            spawn(command, start.cores).map_err(|e| format!("{} did not start: {e}", name(start.program)))?;
        let Some(stdout) = keeper.stdout.take() else {
            return Err("a process without the output that was asked for".to_owned());
        };
        let mut output = BufReader::new(stdout);
        match number(|| line(&mut output)) {
            Ok((pid, early)) => Ok(Self {
                keeper,
                output,
                pid,
                early,
            }),
            Err(why) => {
                drop(keeper.stdin.take());
                let _ = keeper.wait();
                Err(format!("{} did not start: {why}", name(start.program)))
            }
        }
    }

    /// Of the process, not of its keeper.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Reads the process's output up to the line in which `find` finds what is looked for. The rest of the output is never read: it must be
    /// short.
    ///
    /// # Errors
    /// If the output ends before that.
    pub(crate) fn find<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        for _ in 0..LINES_MAX {
            let line = match self.early.pop_front() {
                Some(line) => line,
                None => line(&mut self.output)?,
            };
            if let Some(found) = find(&line) {
                return Ok(found);
            }
        }
        Err("the server does not say where it listens".to_owned())
    }
}

fn line(output: &mut impl BufRead) -> Result<String, String> {
    let mut line = String::new();
    let read = output.read_line(&mut line).map_err(|e| e.to_string())?;
    if read == 0 {
        return Err("the server ended before it listened".to_owned());
    }
    Ok(line.trim_end().to_owned())
}

/// The process's number, as its keeper tells it, and the lines that came before.
fn number(mut line: impl FnMut() -> Result<String, String>) -> Result<(u32, VecDeque<String>), String> {
    let mut early = VecDeque::new();
    while early.len() < LINES_MAX {
        let line = line()?;
        match line.strip_prefix(PID_PREFIX).and_then(|pid| pid.parse().ok()) {
            Some(pid) => return Ok((pid, early)),
            None => early.push_back(line),
        }
    }
    Err(early.pop_front().unwrap_or_default())
}

/// A program's name without the way to it: our own way is nothing for a document that others read. What somebody typed, the caller says as typed.
fn name(program: &Path) -> std::path::Display<'_> {
    program.file_name().map_or(program, Path::new).display()
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Spawns on these cores, as any process runs. A child inherits the cores and the priority of the thread that makes it, so a thread of
/// its own makes it and ours keeps its own.
fn spawn(mut command: Command, cores: Option<&[usize]>) -> std::io::Result<Child> {
    std::thread::scope(|scope| {
        let spawning = scope.spawn(|| {
            // Where it cannot be given back, it was not given.
            let _ = run_as_usual();
            if let Some(cores) = cores {
                process::pin(None, cores)?;
            }
            command.spawn()
        });
        spawning
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")))
    })
}

/// The keeper itself.
#[derive(Debug, clap::Args)]
pub struct Keep {
    /// A directory to remove at the end.
    #[arg(long)]
    remove: Option<PathBuf>,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Keep {
    /// Ends only by ending the process.
    pub(crate) fn run(self) -> Result<std::process::ExitCode, String> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err("name a program to keep".to_owned());
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("{}: {e}", name(Path::new(program))))?;
        let pid = Pid::from_child(&child);
        // Who started us may have gone already, and then nobody reads this: no reason to leave the child alone.
        let _ = writeln!(std::io::stdout(), "{PID_PREFIX}{}", child.id());
        // The child's end ends us, so that who reads our output learns of it.
        let waiting = std::thread::spawn(move || {
            let status = child.wait();
            if let Some(dir) = &self.remove {
                remove(dir);
            }
            let code = status.ok().and_then(|status| status.code());
            std::process::exit(code.unwrap_or(1));
        });
        // What is read does not matter: only its end does, however it comes.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = kill_process(pid, Signal::KILL);
        waiting.join().map_err(|_| "a thread panicked".to_owned())
    }
}

/// Removes a scratch directory, and nothing that is not named like one.
fn remove(dir: &Path) {
    let named = dir.file_name().and_then(OsStr::to_str);
    if named.is_some_and(|name| name.starts_with(SCRATCH_PREFIX)) {
        let _ = std::fs::remove_dir_all(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_speak_before_its_keeper_and_is_heard_all_the_same() {
        let told = |text: &str| {
            let mut output = text.as_bytes();
            number(|| line(&mut output))
        };
        assert_eq!(
            told("listening at 127.0.0.1:1\npid 42\nmore\n"),
            Ok((42, VecDeque::from(["listening at 127.0.0.1:1".to_owned()])))
        );
        assert_eq!(told("pid 7\n"), Ok((7, VecDeque::new())));
        assert_eq!(
            told("no such file\n"),
            Err("the server ended before it listened".to_owned())
        );
        assert_eq!(told(&"again\n".repeat(LINES_MAX + 1)), Err("again".to_owned()));
    }

    #[test]
    fn what_is_said_of_a_program_leaves_out_where_it_lies() {
        assert_eq!(
            name(Path::new("/home/ann/target/release/cauce")).to_string(),
            "cauce"
        );
    }

    #[test]
    fn only_scratch_directories_are_removed() {
        let base = std::env::temp_dir().join(format!("keep-{}", std::process::id()));
        let (ours, others) = (base.join("cauce-loadtest-x"), base.join("else"));
        for dir in [&ours, &others] {
            std::fs::create_dir_all(dir).unwrap();
            remove(dir);
        }
        assert!(!ours.exists() && others.exists());
        std::fs::remove_dir_all(base).unwrap();
    }
}
