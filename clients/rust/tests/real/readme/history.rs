use cauce_client::{Client, Error};
use futures_util::TryStreamExt;

/// How many messages the room has kept.
pub async fn count(client: &Client) -> Result<usize, Error> {
    let mut messages = std::pin::pin!(client.history("orders").page_size(3).stream());
    let mut count = 0;
    while let Some(message) = messages.try_next().await? {
        println!("{} {} {}", message.seq, message.unix_ms, message.event);
        count += 1;
    }
    Ok(count)
}

/// The number of the newest one.
pub async fn newest(client: &Client) -> Result<Option<u64>, Error> {
    let page = client.history("orders").newest_first().page_size(1).await?;
    Ok(page.entries.first().map(|message| message.seq.0))
}
