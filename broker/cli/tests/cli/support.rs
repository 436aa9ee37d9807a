//! Runs the program: to its end, or until it is no longer needed.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for something that should come soon, on a machine that others use too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program with these arguments and nothing of our own environment that it could mistake for settings.
pub(crate) fn cauce<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cauce"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CAUCE_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs to the end.
pub(crate) fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Output {
    cauce(args).output().expect("the program runs")
}

/// Runs to the end, which must be good; answers what it printed.
pub(crate) fn printed<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> String {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The same, as JSON.
pub(crate) fn json<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Value {
    let text = printed(args);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Lines of a pipe, read on a thread so that waiting can have an end.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    fn of(pipe: impl std::io::Read + Send + 'static) -> Self {
        let (lines, received) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Self(received)
    }

    pub(crate) fn next(&self) -> String {
        self.0.recv_timeout(PATIENCE).expect("a line in time")
    }

    /// The next line with this in it.
    pub(crate) fn next_with(&self, part: &str) -> String {
        let mut seen = Vec::new();
        let until = Instant::now() + PATIENCE;
        while let Ok(line) = self
            .0
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            if line.contains(part) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with {part:?} among {seen:#?}")
    }

    /// What is left, once the program has ended.
    pub(crate) fn rest(&self) -> Vec<String> {
        self.0.iter().collect()
    }
}

/// A program that runs beside the test. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let out: ChildStdout = child.stdout.take().expect("piped");
        let err: ChildStderr = child.stderr.take().expect("piped");
        Self {
            child,
            out: Lines::of(out),
            err: Lines::of(err),
        }
    }

    /// As `kill -NAME` does.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the end; answers the exit code, none for a death by signal.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A handshake may take as long as a busy machine makes it.
pub(crate) const UNHURRIED: [&str; 2] = ["--set", "limits.handshake_timeout=1m"];

/// A broker on a free port.
pub(crate) struct Broker {
    pub(crate) process: Running,
    pub(crate) banner: [String; 4],
    /// `http://127.0.0.1:…`, or with https.
    pub(crate) url: String,
}

impl Broker {
    pub(crate) fn start(data_dir: &Path, more: &[&str]) -> Self {
        let mut command = cauce(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(data_dir).args(UNHURRIED).args(more);
        let process = Running::start(command);
        let banner = std::array::from_fn(|_| process.out.next());
        let (http, ws) = match banner[0].contains("wss://") {
            true => ("https", "wss://"),
            false => ("http", "ws://"),
        };
        let url = format!("{http}://{}", between(&banner[0], ws, "/v1/ws"));
        Self { process, banner, url }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }

    /// Where it is and where its key lies, for every other command.
    pub(crate) fn access<'a>(&'a self, data_dir: &'a Path) -> [&'a OsStr; 4] {
        [
            "--url".as_ref(),
            self.url.as_ref(),
            "--data-dir".as_ref(),
            data_dir.as_os_str(),
        ]
    }
}

/// Waits for what comes by itself.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a command shows that runs for so many seconds and ends: tried with few of them, and with more where the machine has not done
/// enough in those.
pub(crate) fn in_seconds<T>(attempt: impl Fn(&str) -> Result<T, String>) -> T {
    let mut last = String::new();
    for seconds in ["2", "8", "40"] {
        match attempt(seconds) {
            Ok(shown) => return shown,
            Err(why) => last = why,
        }
    }
    panic!("not in 40 seconds either: {last}")
}

/// What stands between two marks.
pub(crate) fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("{before:?} in {text:?}"));
    rest.split_once(after)
        .unwrap_or_else(|| panic!("{after:?} in {text:?}"))
        .0
}
