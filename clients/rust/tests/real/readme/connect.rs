use cauce_client::{Client, Error, Options, Status};

/// Connects with tokens that `fetch_token` brings, and says as whom.
pub async fn connect<F, Fut>(url: &str, fetch_token: F) -> Result<String, Error>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<String, std::io::Error>> + Send + 'static,
{
    let client = Client::connect(Options::new(url).token_provider(fetch_token)).await?;
    let mut status = client.status();
    loop {
        match &*status.borrow_and_update() {
            Status::Online(session) => return Ok(session.user.to_string()),
            Status::Waiting { reason, .. } => println!("waiting: {reason}"),
            Status::Closed { reason: Some(reason) } => return Err(reason.clone()),
            other => println!("{other:?}"),
        }
        if status.changed().await.is_err() {
            return Ok(String::new());
        }
    }
}
