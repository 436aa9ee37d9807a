use std::time::Duration;

use cauce_client::{Client, Error};
use serde_json::{Value, json};

/// Dropping the future cancels the call.
pub async fn ask(client: &Client) -> Result<Value, Error> {
    client
        .call("math.add", json!({"a": 2, "b": 3}))
        .timeout(Duration::from_secs(5))
        .retry()
        .await
}
