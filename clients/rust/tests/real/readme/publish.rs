use cauce_client::{AckLevel, Client, Code, Error, Payload};

pub async fn announce(client: &Client) -> Result<(), Error> {
    loop {
        let publish = client
            .publish("news", "update", Payload::text("hello"))
            .key("greeting")
            .ack(AckLevel::Memory)
            .exclude_self();
        match publish.await {
            Ok(ack) => {
                println!("number {}, on the disk: {}", ack.seq, ack.durable);
                return Ok(());
            }
            Err(error) if error.code() == Some(Code::RateLimited) => {
                tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
            }
            Err(error) => return Err(error),
        }
    }
}
