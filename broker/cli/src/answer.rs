//! `cauce answer`: serves methods from a shell, to try calls or to answer them with a program.

use std::process::Stdio;

use cauce_broker::auth::grant::Action;
use cauce_client::{Invocation, Reply, Request, Service};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::api::Access;
use crate::background::{Background, interrupted, runtime};
use crate::door::{Needs, TokenArgs};
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs, harmless, remark};

/// Longest output of a command that is read, in bytes: more than any broker takes as an answer.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Longest complaint of a command that is passed on, in bytes.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// Serve a method from the command line
#[derive(clap::Args)]
#[command(
    group(clap::ArgGroup::new("with").required(true)),
    after_help = "The command of --exec gets the parameters on its standard input and the method as $CAUCE_METHOD. What it prints is the answer: JSON,\nor else text. If it fails, the caller gets an error with its last words. Ends by Ctrl-C or --count.\n\nExamples:\n  cauce answer 'echo*' --echo\n  cauce answer health.check --reply '{\"healthy\":true}'\n  cauce answer report.make --exec 'jq .month' --concurrency 4"
)]
pub(crate) struct AnswerCalls {
    /// The method; a `*` at the end stands for any rest
    pattern: String,
    /// Answer with the method, the parameters and who asks
    #[arg(long, group = "with")]
    echo: bool,
    /// Answer with this JSON
    #[arg(long, value_name = "JSON", group = "with")]
    reply: Option<String>,
    /// Answer with what this shell command prints
    #[arg(long, value_name = "COMMAND", group = "with")]
    exec: Option<String>,
    /// Calls to work on at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    concurrency: u32,
    /// End after so many answers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

/// How calls are answered.
#[derive(Clone)]
enum With {
    Echo,
    Reply(Value),
    Exec(String),
}

/// What was answered.
struct Answered {
    request: Request,
    error: Option<String>,
}

impl AnswerCalls {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let with = match (&self.reply, &self.exec) {
            (Some(text), _) => With::Reply(serde_json::from_str(text).map_err(|e| {
                Failure::Usage(format!("the reply is not JSON ({e}): quote it for the shell"))
            })?),
            (None, Some(command)) => With::Exec(command.clone()),
            (None, None) => With::Echo,
        };
        let connection = Background::start("cauce-connection")?;
        runtime()?.block_on(self.serve(&connection, with))
    }

    async fn serve(&self, connection: &Background, with: With) -> Result<(), Failure> {
        // A method is served by whoever may subscribe to its name.
        let needs = Needs {
            rooms: vec![format!("$method:{}", self.pattern)],
            actions: vec![Action::Subscribe],
        };
        let client = self
            .token
            .connect(&self.access, connection, needs, |options| options)
            .await?;
        let mut service = client.serve(&self.pattern, self.concurrency).await?;
        remark(&format!("serving {}", harmless(&self.pattern)));
        let interrupted = interrupted();
        tokio::pin!(interrupted);
        let mut left = self.count;
        let mut working = JoinSet::new();
        loop {
            tokio::select! {
                result = &mut interrupted => { result?; break }
                invocation = service.next() => match invocation {
                    None => return Err(ended(&service)),
                    Some(invocation) => {
                        let (request, reply) = Invocation::split(invocation);
                        working.spawn(work(with.clone(), request, reply));
                    }
                },
                Some(answered) = working.join_next() => {
                    let answered = answered.map_err(Failure::failed)?;
                    self.print(&answered)?;
                    left = left.map(|left| left - 1);
                    if left == Some(0) {
                        break;
                    }
                }
            }
        }
        client.close().await;
        Ok(())
    }

    fn print(&self, answered: &Answered) -> Result<(), Failure> {
        let Answered { request, error } = answered;
        match self.format.format() {
            Format::Json => output::json(&json!({
                "method": request.method,
                "user": request.user,
                "params": params(request),
                "error": error,
            })),
            Format::Text => {
                let user = request.user.as_deref().unwrap_or("the API");
                let outcome = match error {
                    None => "answered".to_owned(),
                    Some(error) => format!("failed: {}", harmless(error)),
                };
                output::line(&format!(
                    "{} from {}: {outcome}",
                    harmless(&request.method),
                    harmless(user)
                ))
            }
        }
    }
}

fn ended(service: &Service) -> Failure {
    match service.reason() {
        Some(reason) => Failure::failed(reason),
        None => Failure::failed("the connection has ended for good"),
    }
}

fn params(request: &Request) -> Value {
    request.params().unwrap_or_default()
}

async fn work(with: With, request: Request, mut reply: Reply) -> Answered {
    let result = match with {
        With::Echo => Ok(json!({
            "method": request.method,
            "params": params(&request),
            "user": request.user,
        })),
        With::Reply(value) => Ok(value),
        With::Exec(command) => tokio::select! {
            result = execute(&command, &request) => result,
            () = reply.revoked() => Err("nobody waits for the answer any more".to_owned()),
        },
    };
    let error = result.as_ref().err().cloned();
    reply.respond(result);
    Answered { request, error }
}

/// Runs the command; it is killed if this future is dropped.
async fn execute(command: &str, request: &Request) -> Result<Value, String> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("CAUCE_METHOD", &request.method)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("the command cannot be started: {e}"))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            let params: &[u8] = match request.params.is_empty() {
                true => b"{}",
                false => &request.params,
            };
            // A command need not read what it does not want.
            let _ = stdin.write_all(params).await;
        }
    };
    let read = async |pipe: Option<&mut (dyn tokio::io::AsyncRead + Send + Unpin)>, max: u64| {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(max).read_to_end(&mut bytes).await;
        }
        bytes
    };
    let (mut stdout, mut stderr) = (stdout, stderr);
    let ((), printed, complaint) = tokio::join!(
        write,
        read(stdout.as_mut().map(|pipe| pipe as _), ANSWER_BYTES_MAX),
        read(stderr.as_mut().map(|pipe| pipe as _), COMPLAINT_BYTES_MAX),
    );
    drop((stdout, stderr));
    let status = child
        .wait()
        .await
        .map_err(|e| format!("the command is lost: {e}"))?;
    if !status.success() {
        let complaint = String::from_utf8_lossy(&complaint);
        let last = complaint.lines().rfind(|line| !line.trim().is_empty());
        return Err(last.map_or_else(|| format!("the command failed: {status}"), str::to_owned));
    }
    Ok(serde_json::from_slice(&printed)
        .unwrap_or_else(|_| json!(String::from_utf8_lossy(&printed).trim_end_matches('\n'))))
}
