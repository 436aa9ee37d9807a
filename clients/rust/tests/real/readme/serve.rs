use cauce_client::{Client, Error};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Summands {
    a: i64,
    b: i64,
}

/// Adds for whoever asks, eight at once, until the client is closed.
pub async fn serve(client: &Client) -> Result<(), Error> {
    let service = client.serve("math.add", 8).await?;
    let add = |request: cauce_client::Request| async move {
        let Summands { a, b } = request.params().map_err(|e| e.to_string())?;
        let sum = a.checked_add(b).ok_or("the sum is too large")?;
        Ok(json!(sum))
    };
    service.answer_with(add).await
}
