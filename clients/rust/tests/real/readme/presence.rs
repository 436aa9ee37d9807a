use cauce_client::{Client, Error, PresenceEvent};

/// Waits until this user is in the lobby.
pub async fn wait_for(client: &Client, user: &str) -> Result<(), Error> {
    let lobby = client.presence("lobby");
    println!("{} users are there", lobby.counts().await?.users);

    let mut view = lobby.watch().await?;
    while !view.is_present(user) {
        match view.next().await {
            Some(PresenceEvent::Joined(new)) => println!("{} is there", new.user),
            Some(PresenceEvent::Left(name)) => println!("{name} has gone"),
            Some(PresenceEvent::Ended { reason }) => return Err(reason),
            Some(_) => {}
            None => break,
        }
    }
    Ok(())
}
