//! Every Rust block of README.md is one file here, word for word, and is run.

mod ask;
mod begin;
mod connect;
mod follow;
mod history;
mod notify;
mod people;
mod presence;
mod publish;
mod resume;
mod serve;

use cauce_client::{Client, Event, Options, Payload};
use serde_json::json;

use crate::world::{World, patiently};

const BLOCKS: [(&str, &str); 11] = [
    ("begin", include_str!("begin.rs")),
    ("follow", include_str!("follow.rs")),
    ("resume", include_str!("resume.rs")),
    ("publish", include_str!("publish.rs")),
    ("connect", include_str!("connect.rs")),
    ("history", include_str!("history.rs")),
    ("presence", include_str!("presence.rs")),
    ("serve", include_str!("serve.rs")),
    ("ask", include_str!("ask.rs")),
    ("notify", include_str!("notify.rs")),
    ("people", include_str!("people.rs")),
];

#[test]
fn the_readme_shows_what_is_run_here_and_nothing_else() {
    let readme = include_str!("../../../README.md");
    let blocks: Vec<&str> = readme
        .split("```rust,no_run\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), BLOCKS.len());
    assert_eq!(
        readme.matches("```rust").count(),
        BLOCKS.len(),
        "a block that is not run"
    );
    for (shown, (name, run)) in blocks.iter().zip(BLOCKS) {
        assert_eq!(*shown, run, "{name}");
    }
}

async fn publish(client: &Client, room: &str, count: u32) {
    for n in 0..count {
        let payload = Payload::json(&json!({"id": n})).unwrap();
        patiently(client.publish(room, "order_created", payload))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn begin_hears_what_it_says() {
    let world = World::start().await;
    let token = world.token("ana", crate::world::PATIENCE).await;
    patiently(begin::begin(&world.url(), &token)).await.unwrap();
}

#[tokio::test]
async fn follow_counts_what_a_filter_lets_pass() {
    let world = World::start().await;
    let (ana, luis) = (world.client("ana").await, world.client("luis").await);
    publish(&luis, "orders", 3).await;
    let following = follow::follow(&ana);
    let publishing = async {
        patiently(
            luis.publish("orders", "order_paid", Payload::text("42"))
                .key("42"),
        )
        .await
        .unwrap();
    };
    let (followed, ()) = patiently(async { tokio::join!(following, publishing) }).await;
    assert_eq!(followed.unwrap().seq.0, 4);
}

#[tokio::test]
async fn resume_goes_on_behind_the_position() {
    let world = World::start().await;
    let ana = world.client("ana").await;
    publish(&ana, "orders", 3).await;
    let mut room = patiently(ana.subscribe("orders").recent(2)).await.unwrap();
    let Some(Event::Message(first)) = patiently(room.next()).await else {
        panic!("not a message")
    };
    drop(room);
    let kept = serde_json::to_string(&first.position()).unwrap();
    let again = world.client("ana").await;
    let next = patiently(resume::resume(&again, &kept)).await.unwrap();
    assert_eq!(next.unwrap().seq.0, first.seq.0 + 1);
}

#[tokio::test]
async fn publish_is_acknowledged() {
    let world = World::start().await;
    let ana = world.client("ana").await;
    patiently(publish::announce(&ana)).await.unwrap();
}

#[tokio::test]
async fn connect_renews_and_says_who_it_is() {
    let world = World::start().await;
    let token = world.token("ana", crate::world::PATIENCE).await;
    let url = world.url();
    let user = connect::connect(&url, move || {
        let token = token.clone();
        async move { Ok::<_, std::io::Error>(token) }
    });
    assert_eq!(patiently(user).await.unwrap(), "ana");
}

#[tokio::test]
async fn history_reads_everything_that_is_kept() {
    let world = World::start().await;
    let ana = world.client("ana").await;
    publish(&ana, "orders", 7).await;
    assert_eq!(patiently(history::count(&ana)).await.unwrap(), 7);
    assert_eq!(patiently(history::newest(&ana)).await.unwrap(), Some(7));
}

#[tokio::test]
async fn presence_tells_who_is_there() {
    let world = World::start().await;
    let (ana, luis) = (world.client("ana").await, world.client("luis").await);
    let _here = patiently(luis.subscribe("lobby")).await.unwrap();
    patiently(presence::wait_for(&ana, "luis")).await.unwrap();
}

#[tokio::test]
async fn a_service_answers_who_asks() {
    let world = World::start().await;
    let (ana, luis) = (world.client("ana").await, world.client("luis").await);
    let serving = tokio::spawn(async move { serve::serve(&ana).await });
    let sum = patiently(async {
        loop {
            match ask::ask(&luis).await {
                // Not served yet.
                Err(error) if error.is_retryable() => tokio::task::yield_now().await,
                answered => return answered,
            }
        }
    });
    assert_eq!(sum.await.unwrap(), json!(5));
    serving.abort();
}

#[tokio::test]
async fn notifications_are_left_heard_and_read() {
    let world = World::start().await;
    let ana = world
        .client_with("ana", &world.url(), Options::notifications)
        .await;
    let luis = world.client("luis").await;
    let leaving = async {
        // Whatever is left before the other listens is found in the list.
        let mut unread = ana.unread();
        unread.wait_for(Option::is_some).await.unwrap();
        notify::leave(&luis).await
    };
    let (left, title) = patiently(async { tokio::join!(leaving, notify::hear(&ana)) }).await;
    left.unwrap();
    assert_eq!(title.unwrap(), "Order 42 is paid");
}

#[tokio::test]
async fn people_are_sent_to_wherever_they_are() {
    let world = World::start().await;
    let ana = world.client("ana").await;
    patiently(people::tell(&ana)).await.unwrap();
}
