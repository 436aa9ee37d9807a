//! A room in which a thousand come and go a second, while others watch who is there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cauce_broker::rooms::{PresenceMode, RoomClass};
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome, server_frame::Message};
use tokio::task::JoinSet;

use crate::peer::Peer;
use crate::support::{Broker, token};
use crate::{OPEN_DOORS, PATIENCE, alone, classify};

const ROOM: &str = "r";

/// Joins and leaves a second, all peers together.
const RATE: u64 = 1_000;

/// How long they come and go.
const STORM: Duration = Duration::from_secs(4);

/// Who is lost without a word has left after this. Shorter than the storm, so that leaves of the dead are part of it.
const GRACE_MS: u64 = 300;

/// Those who come and go.
const RESTLESS: usize = 100;

/// Among them, those who end by breaking off without a word, by leaving, and by staying: a third each.
const ENDS: usize = 3;

/// A watcher is told at most so often, by the number of connections in the room.
const SMALL: Duration = Duration::from_millis(100);
const LARGE: Duration = Duration::from_secs(1);

/// Connections that make a room large.
const MANY: usize = 210;

fn wanted(watch: wire::Watch) -> wire::Subscription {
    wire::Subscription {
        room: ROOM.into(),
        presence: watch.into(),
        ..wire::Subscription::default()
    }
}

async fn enter(broker: &Broker, user: &str, watch: wire::Watch) -> Peer {
    let mut peer = Peer::connect(broker.address, &token("a", user)).await;
    peer.subscribe(wanted(watch)).await;
    peer
}

/// What a watcher believes of the room, by pages and changes alone.
struct Watcher {
    peer: Peer,
    watch: wire::Watch,
    version: u64,
    users: BTreeSet<String>,
    counts: (u32, u32),
    frames: u32,
}

impl Watcher {
    async fn enter(broker: &Broker, user: &str, watch: wire::Watch) -> Self {
        let mut watcher = Self {
            peer: enter(broker, user, watch).await,
            watch,
            version: 0,
            users: BTreeSet::new(),
            counts: (0, 0),
            frames: 0,
        };
        watcher.take_pages().await;
        watcher
    }

    /// The next change, laid over what was known.
    async fn change(&mut self) {
        let change = loop {
            match self.peer.next().await.expect("the connection holds") {
                Message::PresenceChange(change) => break change,
                Message::Push(_) => {}
                other => panic!("{other:?}"),
            }
        };
        self.frames += 1;
        if change.version <= self.version {
            return;
        }
        self.counts = (change.users, change.connections);
        if self.watch == wire::Watch::Counts {
            assert!(change.joined.is_empty() && change.left.is_empty(), "{change:?}");
        } else if change.truncated {
            return self.take_pages().await;
        }
        self.version = change.version;
        self.users
            .extend(change.joined.into_iter().map(|present| present.user));
        for user in change.left {
            self.users.remove(&user);
        }
    }

    async fn take_pages(&mut self) {
        if self.watch == wire::Watch::Counts {
            return;
        }
        self.users.clear();
        let mut after = String::new();
        let mut first = true;
        loop {
            let page = self.page(after).await;
            if std::mem::take(&mut first) {
                // Later pages may know more; changes after the first bring it again.
                self.version = page.version;
                self.counts = (page.users, page.connections);
            }
            self.users
                .extend(page.page.iter().map(|present| present.user.clone()));
            match page.page.last().filter(|_| page.more) {
                Some(last) => after = last.user.clone(),
                None => return,
            }
        }
    }

    async fn page(&mut self, after: String) -> wire::PresencePage {
        let presence = wire::Presence {
            room: ROOM.into(),
            after,
            limit: 1_000,
            counts_only: false,
        };
        match self.peer.ask(Request::Presence(presence)).await {
            Outcome::PresencePage(page) => page,
            other => panic!("{other:?}"),
        }
    }

    /// Reads until what it believes is so. Answers how many changes it was told.
    async fn read_until(mut self, truth: Arc<Truth>) -> u32 {
        loop {
            self.change().await;
            let expected = (truth.users.len() as u32, truth.users.len() as u32);
            if !truth.over.load(Ordering::Relaxed) || self.counts != expected {
                continue;
            }
            if self.watch == wire::Watch::Users && self.users != truth.users {
                continue;
            }
            return self.frames;
        }
    }
}

/// Who is there in the end.
struct Truth {
    users: BTreeSet<String>,
    over: AtomicBool,
}

/// One who comes and goes at its share of the rate until the storm is over. What becomes of it then is by its number.
async fn restless(address: SocketAddr, n: usize, until: Instant, steps: Arc<AtomicU64>) -> Option<Peer> {
    let token = token("a", &format!("restless-{n}"));
    let mut peer = Peer::connect(address, &token).await;
    let pause = Duration::from_micros(1_000_000 * RESTLESS as u64 / RATE);
    let mut beat = tokio::time::interval(pause);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut present = false;
    let mut visits = 0_u32;
    while Instant::now() < until {
        beat.tick().await;
        match present {
            true if visits % 4 == 3 => {
                // Gone without a word, and back within its grace.
                visits += 1;
                peer = Peer::connect(address, &token).await;
                peer.subscribe(wanted(wire::Watch::None)).await;
            }
            true => {
                peer.unsubscribe(ROOM).await;
                present = false;
            }
            false => {
                peer.subscribe(wanted(wire::Watch::None)).await;
                present = true;
                visits += 1;
            }
        }
        steps.fetch_add(1, Ordering::Relaxed);
    }
    if !present {
        peer.subscribe(wanted(wire::Watch::None)).await;
    }
    match n % ENDS {
        0 => None,
        1 => {
            peer.unsubscribe(ROOM).await;
            Some(peer)
        }
        _ => Some(peer),
    }
}

async fn churn(calm: usize, least_between: Duration) {
    let _alone = alone().await;
    let broker = Broker::with(OPEN_DOORS);
    classify(
        &broker,
        RoomClass {
            presence: PresenceMode::On { grace_ms: GRACE_MS },
            ..RoomClass::default()
        },
    );
    let calm_names: Vec<_> = (0..calm).map(|n| format!("calm-{n}")).collect();
    let mut residents = Vec::new();
    for name in &calm_names {
        residents.push(enter(&broker, name, wire::Watch::None).await);
    }
    // What a watcher is told of the watchers after it counts too.
    let watched = Instant::now();
    let mut watchers = Vec::new();
    for (name, watch) in [
        ("who", wire::Watch::Users),
        ("who-too", wire::Watch::Users),
        ("how-many", wire::Watch::Counts),
    ] {
        watchers.push(Watcher::enter(&broker, name, watch).await);
    }
    let staying = (0..RESTLESS).filter(|n| n % ENDS == ENDS - 1);
    let truth = Arc::new(Truth {
        users: staying
            .map(|n| format!("restless-{n}"))
            .chain(calm_names)
            .chain(["who", "who-too", "how-many"].map(str::to_owned))
            .collect(),
        over: AtomicBool::new(false),
    });
    let began = Instant::now();
    let watching: Vec<_> = watchers
        .into_iter()
        .map(|watcher| tokio::spawn(watcher.read_until(truth.clone())))
        .collect();
    let steps = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for n in 0..RESTLESS {
        tasks.spawn(restless(broker.address, n, began + STORM, steps.clone()));
    }
    let stayed = tasks.join_all().await;
    let (steps, stormed) = (steps.load(Ordering::Relaxed), began.elapsed());
    truth.over.store(true, Ordering::Relaxed);
    // A last change after the storm, so that whoever saw all before is told once more.
    let mut last = enter(&broker, "last", wire::Watch::None).await;
    last.unsubscribe(ROOM).await;
    for watcher in watching {
        let frames = tokio::time::timeout(PATIENCE, watcher)
            .await
            .expect("every watcher comes to the truth")
            .expect("a watcher");
        let took = watched.elapsed();
        let bound = took.as_millis() / least_between.as_millis() + 2;
        println!(
            "{steps} joins and leaves in {stormed:?} ({:.0} a second) among {calm} others: {frames} frames to a watcher in {took:?}",
            steps as f64 / stormed.as_secs_f64()
        );
        assert!(
            u128::from(frames) <= bound,
            "{frames} frames in {took:?}: at most {bound}"
        );
        assert!(frames >= 2, "it was told something");
    }
    drop((stayed, residents));
}

#[tokio::test]
async fn a_thousand_who_come_and_go_a_second_make_ten_frames_a_second_to_a_watcher_of_a_small_room() {
    churn(5, SMALL).await;
}

#[tokio::test]
async fn a_thousand_who_come_and_go_a_second_make_one_frame_a_second_to_a_watcher_of_a_large_room() {
    churn(MANY, LARGE).await;
}
