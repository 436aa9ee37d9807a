//! Random frames of every kind.

use bytes::Bytes;
use cauce_protocol::Payload;
use cauce_protocol::wire::{self, client_frame, reply, server_frame};
use proptest::prelude::*;
use serde_json::Value;

pub(crate) fn json_text() -> impl Strategy<Value = Bytes> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zé]{0,5}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
    .prop_map(|value| value.to_string().into())
}

pub(crate) fn object_text() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::new()),
        json_text().prop_map(|json| [b"{\"a\":", &json[..], b"}"].concat().into()),
    ]
}

pub(crate) fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..60).prop_map(Bytes::from)
}

/// Mostly names that pass the checks, so that the mutations start from something worth breaking.
pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z$:é]{1,20}", 1 => any::<String>()]
}

pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..300, any::<u64>()]
}

pub(crate) fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        json_text().prop_map(Payload::Json),
        any::<String>().prop_map(|text| Payload::Text(text.into())),
        bytes().prop_map(Payload::Binary),
    ]
}

/// The same choice, in whichever message.
macro_rules! choice {
    ($payload:expr, $choice:path) => {{
        use $choice as Choice;
        $payload.map(|payload| match payload {
            Payload::Json(json) => Choice::Json(json),
            Payload::Text(text) => Choice::Text(String::from_utf8(text.into()).expect("it was a string")),
            Payload::Binary(binary) => Choice::Binary(binary),
        })
    }};
}

pub(crate) fn client_frames() -> impl Strategy<Value = wire::ClientFrame> {
    use client_frame::Request;
    let options = || (any::<[bool; 2]>(), prop::collection::vec(number(), 0..6));
    let names = || prop::collection::vec(name(), 0..5);
    let to = prop_oneof![
        name().prop_map(wire::send::To::User),
        number().prop_map(wire::send::To::Connection),
        name().prop_map(wire::send::To::Role),
        any::<bool>().prop_map(wire::send::To::Tenant),
    ];
    let publish = (name(), name(), prop::option::of(payload()), name(), options()).prop_map(
        |(room, event, payload, idempotency_key, ([exclude_sender, want_receivers], exclude))| {
            Request::Publish(wire::Publish {
                room,
                event,
                payload: choice!(payload, wire::publish::Payload),
                idempotency_key,
                exclude_sender,
                exclude,
                want_receivers,
                ..wire::Publish::default()
            })
        },
    );
    let request = prop_oneof![
        1 => (any::<u32>(), number(), name(), name()).prop_map(|(version, features, token, client)| {
            Request::Hello(wire::Hello {
                version,
                features,
                token,
                client,
                previous: Vec::new(),
            })
        }),
        1 => names().prop_map(|rooms| Request::Subscribe(wire::Subscribe { rooms, subscriptions: Vec::new() })),
        1 => names().prop_map(|rooms| Request::Unsubscribe(wire::Unsubscribe { rooms })),
        3 => publish,
        1 => (prop::option::of(to), name(), prop::option::of(payload()), options()).prop_map(
            |(to, event, payload, ([exclude_sender, _], exclude))| {
                Request::Send(wire::Send {
                    to,
                    event,
                    payload: choice!(payload, wire::send::Payload),
                    exclude_sender,
                    exclude,
                })
            }
        ),
        1 => (name(), name(), object_text(), any::<u32>()).prop_map(|(device, method, params, timeout_ms)| {
            Request::Call(wire::Call {
                device,
                method,
                params,
                timeout_ms,
                retry: false,
            })
        }),
        1 => Just(Request::Ping(wire::Ping {})),
    ];
    (any::<u32>(), prop::option::weighted(0.95, request))
        .prop_map(|(id, request)| wire::ClientFrame { id, request })
}

pub(crate) fn limits() -> impl Strategy<Value = wire::Limits> {
    any::<[u32; 10]>().prop_map(|l| wire::Limits {
        frame_bytes: l[0],
        payload_bytes: l[1],
        payload_depth: l[2],
        room_name_bytes: l[3],
        event_name_bytes: l[4],
        subscriptions: l[5],
        rooms_a_request: l[6],
        exclude: l[7],
        requests_per_second: l[8],
        requests_burst: l[9],
    })
}

pub(crate) fn errors() -> impl Strategy<Value = wire::Error> {
    (any::<u32>(), name(), any::<String>(), any::<bool>(), any::<u32>()).prop_map(
        |(code, name, message, retryable, retry_after_ms)| wire::Error {
            code,
            name,
            message,
            retryable,
            retry_after_ms,
        },
    )
}

pub(crate) fn outcomes() -> impl Strategy<Value = reply::Outcome> {
    use reply::Outcome;
    let position =
        (name(), number(), number(), number()).prop_map(|(name, room, epoch, seq)| wire::RoomPosition {
            name,
            room,
            epoch,
            seq,
            ..wire::RoomPosition::default()
        });
    prop_oneof![
        errors().prop_map(Outcome::Error),
        (
            any::<[u32; 2]>(),
            any::<[u64; 3]>(),
            name(),
            name(),
            prop::option::of(limits())
        )
            .prop_map(
                |([version, heartbeat_ms], [connection, features, expires_in_ms], tenant, user, limits)| {
                    Outcome::Welcome(wire::Welcome {
                        connection,
                        version,
                        features,
                        tenant,
                        user,
                        heartbeat_ms,
                        expires_in_ms,
                        limits,
                    })
                }
            ),
        prop::collection::vec(position, 0..4)
            .prop_map(|rooms| Outcome::Subscribed(wire::Subscribed { rooms })),
        Just(Outcome::Unsubscribed(wire::Unsubscribed {})),
        (number(), number(), any::<u32>(), any::<bool>()).prop_map(|(epoch, seq, receivers, repeated)| {
            Outcome::Published(wire::Published {
                epoch,
                seq,
                receivers,
                repeated,
                ..wire::Published::default()
            })
        }),
        Just(Outcome::Sent(wire::Sent {})),
        prop_oneof![Just(Bytes::new()), json_text()].prop_map(|json| Outcome::Answer(wire::Answer { json })),
        number().prop_map(|unix_ms| Outcome::Pong(wire::Pong { unix_ms })),
    ]
}

pub(crate) fn server_frames() -> impl Strategy<Value = wire::ServerFrame> {
    use server_frame::Message;
    let message = prop_oneof![
        1 => (number(), number(), name(), prop::option::of(payload())).prop_map(|(room, seq, event, payload)| {
            Message::Push(wire::Push {
                room,
                seq,
                event,
                payload: choice!(payload, wire::push::Payload),
                key: String::new(),
            })
        }),
        1 => (name(), prop::option::of(payload())).prop_map(|(event, payload)| {
            Message::Direct(wire::Direct {
                event,
                payload: choice!(payload, wire::direct::Payload),
            })
        }),
        1 => (number(), number()).prop_map(|(room, seq)| Message::Advance(wire::Advance { room, seq })),
        1 => prop::option::of(errors()).prop_map(|error| Message::Goaway(wire::Goaway { error })),
        3 => (any::<u32>(), outcomes())
            .prop_map(|(id, outcome)| Message::Reply(wire::Reply { id, outcome: Some(outcome) })),
    ];
    message.prop_map(|message| wire::ServerFrame {
        message: Some(message),
    })
}
