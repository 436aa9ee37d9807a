//! `cauce call`: asks whoever serves a method, or a device, and prints the answer.

use std::time::Duration;

use cauce_client::{Client, Reconnect};
use serde_json::{Value, json};

use crate::api::Access;
use crate::background::runtime;
use crate::duration;
use crate::failure::Failure;
use crate::output::{self, Format, FormatArgs};

/// Call a method and print its answer
#[derive(clap::Args)]
#[command(
    after_help = "With --token it goes over a WebSocket, as from a client; otherwise with the API key over HTTP, for at most 25s.\n\nExamples:\n  cauce call echo '{\"text\":\"hello\"}'\n  cauce call report.make '{\"month\":\"2026-11\"}' --timeout 20s --retry\n  cauce call Switch.GetStatus '{\"id\":0}' --device A0B1C2D3E4F5\n  cauce answer 'echo*' --echo        serves something to call"
)]
pub(crate) struct Call {
    /// The method, such as `report.make`
    method: String,
    /// A JSON object
    params: Option<String>,
    /// Ask this device instead of whoever serves the method
    #[arg(long, value_name = "ID", conflicts_with = "retry")]
    device: Option<String>,
    /// How long the answer may take
    #[arg(long, value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// If the one that was asked is lost, ask another: the method may then run twice
    #[arg(long)]
    retry: bool,
    /// Token of a client; goes over a WebSocket
    #[arg(long, env = "CAUCE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    format: FormatArgs,
}

impl Call {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let params = self.params.as_deref().map(read_params).transpose()?;
        let answer = runtime()?.block_on(async {
            match &self.token {
                Some(token) => self.by_websocket(token, params).await,
                None => self.by_api(params).await,
            }
        })?;
        output::json(match self.format.format() {
            Format::Json => &answer,
            Format::Text => &answer["result"],
        })
    }

    async fn by_websocket(&self, token: &str, params: Option<Value>) -> Result<Value, Failure> {
        let options = self.access.websocket()?.token(token).reconnect(Reconnect::Never);
        let client = Client::connect(options).await?;
        let params = params.unwrap_or_default();
        let mut call = match &self.device {
            Some(device) => client.call_device(device, &self.method, params),
            None => client.call(&self.method, params),
        };
        if let Some(timeout) = self.timeout {
            call = call.timeout(timeout);
        }
        if self.retry {
            call = call.retry();
        }
        let result = call.await?;
        client.close().await;
        Ok(json!({"result": result}))
    }

    async fn by_api(&self, params: Option<Value>) -> Result<Value, Failure> {
        let mut body = json!({"method": self.method});
        if let Some(params) = params {
            body["params"] = params;
        }
        if let Some(timeout) = self.timeout {
            body["timeout_ms"] = json!(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        }
        let api = self.access.api()?;
        match &self.device {
            Some(device) => api.post(&["devices", device, "call"], &body).await,
            None => {
                body["retry"] = json!(self.retry);
                api.post(&["calls"], &body).await
            }
        }
    }
}

/// The parameters of a call as they are typed.
pub(crate) fn read_params(text: &str) -> Result<Value, Failure> {
    match serde_json::from_str(text) {
        Ok(params @ Value::Object(_)) => Ok(params),
        Ok(_) => Err(Failure::Usage(
            "the parameters of a call are a JSON object".to_owned(),
        )),
        Err(e) => Err(Failure::Usage(format!(
            "the parameters are not JSON ({e}): quote them for the shell"
        ))),
    }
}
