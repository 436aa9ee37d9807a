use cauce_client::{Client, Direct, Error, Payload};

pub async fn tell(client: &Client) -> Result<(), Error> {
    let mut inbox = client.directs();
    client
        .send_to_user("ana", "reminder", Payload::text("the laser is on"))
        .await?;
    if let Some(Direct::Message(message)) = inbox.next().await {
        println!("{}: {:?}", message.event, message.payload);
    }
    Ok(())
}
