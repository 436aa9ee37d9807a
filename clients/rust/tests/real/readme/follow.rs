use cauce_client::{Client, Error, Event, Message, Policy};

/// The next payment of order 42.
pub async fn follow(client: &Client) -> Result<Message, Error> {
    let mut payments = client
        .subscribe("orders")
        .recent(20)
        .events(["order_paid"])
        .keys(["42"])
        .policy(Policy::Reliable)
        .await?;
    loop {
        match payments.next().await {
            Some(Event::Message(message)) => return Ok(message),
            Some(Event::Ended { reason }) => return Err(reason),
            _ => {}
        }
    }
}
