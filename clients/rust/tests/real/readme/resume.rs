use cauce_client::{Client, Continuity, Error, Event, Message, Position};

/// The first message behind a position that an earlier run has kept: `serde_json::to_string(&message.position())`.
pub async fn resume(client: &Client, kept: &str) -> Result<Option<Message>, Error> {
    let position: Position = serde_json::from_str(kept)?;
    let mut orders = client.subscribe("orders").since(position).await?;
    while let Some(event) = orders.next().await {
        match event {
            Event::Resubscribed { continuity, .. } => match continuity {
                Continuity::Continued => println!("nothing is missing"),
                Continuity::Lost(missed) => println!("{} messages are missing", missed.count()),
                Continuity::Reset => println!("load everything again"),
            },
            Event::Message(message) => return Ok(Some(message)),
            _ => {}
        }
    }
    Ok(None)
}
