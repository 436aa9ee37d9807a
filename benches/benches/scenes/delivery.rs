//! A room with subscribers on one shard that a bench drives by hand: from publish to the bytes in every outbox, and no socket written.

use std::sync::Arc;

use bytes::Bytes;
use cauce_broker::config::{LoadInputs, load};
use cauce_broker::hub::{Hub, Tenant};
use cauce_broker::hub_alone;
use cauce_broker::publication::Draft;
use cauce_broker::rooms::Manner;
use cauce_broker::shard::Audience;
use cauce_protocol::message::Text;
use cauce_protocol::server::Dialect;
use cauce_protocol::{Payload, RoomName};

const ROOM: &str = "chat:lobby";

/// The node, the room and who is in it.
pub(crate) struct Stage {
    hub: Arc<Hub>,
    tenant: Arc<Tenant>,
    audience: Audience,
    event: Text,
    payload: Payload,
    /// Sockets must be registered somewhere; nothing ever runs here.
    _runtime: tokio::runtime::Runtime,
}

impl Stage {
    /// The broker as it is configured by default, with one shard, and so many subscribers in a room.
    pub(crate) fn new(subscribers: u32) -> Self {
        let inputs = LoadInputs {
            flags: vec![
                "threads.client_shards=1".to_owned(),
                "threads.ingest_shards=1".to_owned(),
            ],
            ..LoadInputs::default()
        };
        let config = load(inputs).expect("a good configuration").config;
        let hub = hub_alone(&config).expect("a hub");
        let tenant = hub.tenants.get("default").expect("the default tenant");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime");
        let audience = {
            let _entered = runtime.enter();
            let room = RoomName::new(ROOM).expect("a good name");
            Audience::new(&hub, &tenant, &room, subscribers, Dialect::Proto).expect("an audience")
        };
        Self {
            hub,
            tenant,
            audience,
            event: Text::from("message"),
            payload: Payload::Json(Bytes::from(format!("{{\"text\":\"{}\"}}", "x".repeat(117)))),
            _runtime: runtime,
        }
    }

    /// One message, from publish to queued for all, then taken as if written. Answers how many deliveries it was.
    pub(crate) fn round(&self) -> u64 {
        let draft = Draft::new(self.event.clone(), self.payload.clone());
        self.hub
            .publish(&self.tenant, ROOM, draft, Manner::default())
            .expect("an empty mailbox");
        let deliveries = self.audience.deliver();
        self.audience.discard();
        deliveries
    }
}
