use cauce_client::{Audience, Client, Error, NotificationEvent, NotificationKind};

pub async fn leave(client: &Client) -> Result<(), Error> {
    client
        .notify(Audience::User("ana".into()), "Order 42 is paid")
        .kind(NotificationKind::Success)
        .await?;
    Ok(())
}

/// The next one's title. The client was connected with `Options::notifications()`.
pub async fn hear(client: &Client) -> Result<String, Error> {
    let mut notifications = client.notifications()?;
    let inbox = client.inbox();
    // What was left before we listen.
    if let Some(unread) = inbox.unread_page(0, 1).await?.notifications.pop() {
        inbox.mark_read(&[unread.id]).await?;
        return Ok(unread.title);
    }
    loop {
        match notifications.next().await {
            Some(NotificationEvent::New(new)) => {
                let left = inbox.mark_read_up_to(new.id).await?;
                println!("{}, {left} more are unread", new.title);
                return Ok(new.title);
            }
            Some(_) => {}
            None => return Ok(String::new()),
        }
    }
}
