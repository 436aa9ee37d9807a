//! The whole broker against a reference model: random operations of many clients of two tenants over real sockets, in both
//! dialects. Whoever subscribed has in the end seen every message that was meant for it, once and in order, or was told by
//! number what it lost; nothing that excluded it or that its filter passes over; and nothing of another tenant, ever.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod oracle;
mod world;

use proptest::prelude::*;

use crate::oracle::Policy;
use crate::world::{EVENTS, KEYS, Op, ROOMS, SLOTS, Since, TENANTS, World};

fn op() -> impl Strategy<Value = Op> {
    let (slot, room, tenant) = (0..SLOTS, 0..ROOMS.len(), 0..TENANTS.len());
    let since = prop_oneof![
        2 => Just(Since::Plain),
        6 => Just(Since::Remembered),
        1 => Just(Since::Wrong),
        2 => (0u32..12).prop_map(Since::Recent),
    ];
    let policy = prop_oneof![
        6 => Just(Policy::Reliable),
        2 => Just(Policy::Latest),
        2 => Just(Policy::DropOldest),
        1 => Just(Policy::Sample),
    ];
    // Half of the subscribers want everything.
    let some = |names: usize| prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(0..names, 1..3)];
    let subscribe = (
        (slot.clone(), room.clone(), since, policy),
        some(EVENTS.len()),
        some(KEYS.len()),
        any::<bool>(),
    )
        .prop_map(
            |((slot, room, since, policy), events, keys, watch)| Op::Subscribe {
                slot,
                room,
                since,
                policy,
                events,
                keys,
                watch,
            },
        );
    let publish = (
        (slot.clone(), room.clone(), 0..EVENTS.len(), 0..KEYS.len()),
        any::<bool>(),
        prop::collection::vec(slot.clone(), 0..3),
        prop::option::weighted(0.2, 0..3usize),
    )
        .prop_map(
            |((slot, room, event, key), myself, exclude, repeat)| Op::Publish {
                slot,
                room,
                event,
                key,
                myself,
                exclude,
                repeat,
            },
        );
    let history = (slot.clone(), room.clone(), 0u64..30, any::<bool>(), 0u32..8);
    prop_oneof![
        8 => (slot.clone(), prop::bool::weighted(0.8)).prop_map(|(slot, remember)| Op::Connect { slot, remember }),
        5 => slot.clone().prop_map(|slot| Op::Drop { slot }),
        12 => subscribe,
        5 => (slot.clone(), room.clone()).prop_map(|(slot, room)| Op::Unsubscribe { slot, room }),
        20 => publish,
        2 => (tenant.clone(), room).prop_map(|(tenant, room)| Op::Burst { tenant, room }),
        3 => history.prop_map(|(slot, room, from, backwards, limit)| Op::History { slot, room, from, backwards, limit }),
        3 => slot.clone().prop_map(|slot| Op::Who { slot }),
        2 => (tenant.clone(), 0u32..12).prop_map(|(tenant, messages)| Op::Keep { tenant, messages }),
        1 => (tenant, any::<bool>()).prop_map(|(tenant, on)| Op::Presence { tenant, on }),
        2 => slot.prop_map(|slot| Op::Read { slot }),
    ]
}

fn run(ops: Vec<Op>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut world = World::start().await;
        for op in ops {
            world.perform(op).await;
        }
        world.check_end().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_subscriber_has_seen_what_the_model_says(ops in prop::collection::vec(op(), 1..90)) {
        run(ops);
    }
}
