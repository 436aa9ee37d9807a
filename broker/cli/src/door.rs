//! The WebSocket door as commands use it: with a client's token, or with one made for just this by the API key.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cauce_broker::auth::grant::Action;
use cauce_client::{Client, Options, Reconnect};

use crate::api::{Access, Api};
use crate::background::Background;
use crate::failure::Failure;
use crate::token::mint;

/// How long a token is good for that is made for one command; it is renewed.
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);

/// User of such a token.
const USER: &str = "cauce-cli";

/// Who comes through the door.
#[derive(Clone, clap::Args)]
pub(crate) struct TokenArgs {
    /// Token of a client; without, one is made with the API key for just this
    #[arg(long, env = "CAUCE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// What a token that is made must allow.
#[derive(Clone, Debug)]
pub(crate) struct Needs {
    pub(crate) rooms: Vec<String>,
    pub(crate) actions: Vec<Action>,
}

impl TokenArgs {
    /// Connects on a thread of its own, so that a paused terminal does not make the broker give us up.
    pub(crate) async fn connect(
        &self,
        access: &Access,
        connection: &Background,
        needs: Needs,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<Client, Failure> {
        let base = options(access.websocket()?.reconnect(Reconnect::AfterWelcome));
        let options = match &self.token {
            Some(token) => base.token(token),
            None => minting(base, access, needs).await?,
        };
        let client = {
            let _on = connection.handle().enter();
            Client::start(options)?
        };
        client.online().await?;
        Ok(client)
    }
}

/// A token that allows just this, made anew whenever the broker wants one.
async fn minting(options: Options, access: &Access, needs: Needs) -> Result<Options, Failure> {
    let api = Arc::new(access.api()?);
    let needs = Arc::new(needs);
    // The first one here, so that what is wrong with the key is said at once and not tried again.
    let first = Mutex::new(Some(token_for(&api, &needs).await?));
    Ok(options.token_provider(move || {
        let (api, needs) = (api.clone(), needs.clone());
        let ready = first.lock().ok().and_then(|mut first| first.take());
        async move {
            match ready {
                Some(token) => Ok(token),
                None => token_for(&api, &needs).await.map_err(|failure| match failure {
                    Failure::Failed(message) | Failure::Usage(message) => message,
                    _ => "no token".to_owned(),
                }),
            }
        }
    }))
}

async fn token_for(api: &Api, needs: &Needs) -> Result<String, Failure> {
    let rooms: Vec<&str> = needs.rooms.iter().map(String::as_str).collect();
    mint(api, USER, &[(&rooms, &needs.actions)], TOKEN_LIFE).await
}
