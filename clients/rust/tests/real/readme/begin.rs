use cauce_client::{Client, Error, Event, Options, Payload};
use serde_json::json;

/// `url` is as `ws://127.0.0.1:7700/v1/ws`, the token from your server or from `cauce token --user ana`.
pub async fn begin(url: &str, token: &str) -> Result<(), Error> {
    let client = Client::connect(Options::new(url).token(token)).await?;
    let mut orders = client.subscribe("orders").await?;

    let order = Payload::json(&json!({"id": 42}))?;
    let ack = client.publish("orders", "order_created", order).await?;
    println!("it is number {} of the room", ack.seq);

    while let Some(event) = orders.next().await {
        match event {
            Event::Message(message) => {
                let order: serde_json::Value = message.json()?;
                println!("{} {order}", message.event);
                break;
            }
            Event::Resubscribed { continuity, .. } => println!("back again: {continuity:?}"),
            Event::Gap { missed } => println!("we were too slow for {missed:?}"),
            Event::Lagged { missed } => println!("we read too slowly for {missed} messages"),
            Event::Ended { reason } => println!("it is over: {reason}"),
            _ => {}
        }
    }
    Ok(())
}
