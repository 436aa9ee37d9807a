//! To people and connections.

use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::{self, send};

use super::{Said, said};

fn send(to: send::To, payload: Option<send::Payload>) -> wire::Send {
    wire::Send {
        to: Some(to),
        event: "notification".into(),
        payload,
        ..wire::Send::default()
    }
}

pub(super) fn sends() -> Vec<Said> {
    use send::{Payload, To};
    vec![
        said(
            "to_user",
            "To all connections of one user.",
            18,
            Request::Send(send(
                To::User("ana".into()),
                Some(Payload::Json(r#"{"title":"Hola","type":"INFO"}"#.into())),
            )),
        ),
        said(
            "to_connection",
            "To one connection, as text.",
            19,
            Request::Send(send(
                To::Connection(4_294_967_296),
                Some(Payload::Text("hola".into())),
            )),
        ),
        said(
            "to_role",
            "To everyone with a role, as bytes, not to the sender nor to connection 12.",
            20,
            Request::Send(wire::Send {
                exclude_sender: true,
                exclude: vec![12],
                ..send(
                    To::Role("staff".into()),
                    Some(Payload::Binary(vec![1, 2, 3].into())),
                )
            }),
        ),
        said(
            "to_tenant",
            "To everyone in the sender's tenant, without payload.",
            21,
            Request::Send(send(To::Tenant(true), None)),
        ),
    ]
}

pub(super) fn notifies() -> Vec<Said> {
    use wire::notify::To;
    vec![
        said(
            "to_user",
            "To one user, with a title only: kind info, priority normal.",
            38,
            Request::Notify(wire::Notify {
                to: Some(To::User("ana".into())),
                title: "Tu pedido está listo".into(),
                ..wire::Notify::default()
            }),
        ),
        said(
            "to_role",
            "An alert that overtakes what waits, with data, for an hour; a repeat is harmless.",
            39,
            Request::Notify(wire::Notify {
                to: Some(To::Role("staff".into())),
                kind: wire::NotificationKind::Alert.into(),
                title: "Oven too hot".into(),
                message: "Kitchen 2: 310 °C".into(),
                json: r#"{"device":"8CBFEAA133F0","celsius":310}"#.into(),
                priority: wire::Priority::High.into(),
                expires_in_ms: 3_600_000,
                idempotency_key: "oven-2-310".into(),
            }),
        ),
        said(
            "to_tenant",
            "To everyone in the sender's tenant, without hurry.",
            40,
            Request::Notify(wire::Notify {
                to: Some(To::Tenant(true)),
                kind: wire::NotificationKind::Success.into(),
                title: "Version 2 is here".into(),
                priority: wire::Priority::Low.into(),
                ..wire::Notify::default()
            }),
        ),
    ]
}

pub(super) fn notifications() -> Vec<Said> {
    vec![
        said(
            "newest",
            "The newest of the user's own, read or not.",
            41,
            Request::Notifications(wire::Notifications::default()),
        ),
        said(
            "older_unread",
            "Ten unread ones older than notification 512.",
            42,
            Request::Notifications(wire::Notifications {
                before: 512,
                limit: 10,
                unread_only: true,
            }),
        ),
    ]
}

pub(super) fn mark_read() -> Vec<Said> {
    vec![
        said(
            "some",
            "These three have been read.",
            43,
            Request::MarkRead(wire::MarkRead {
                ids: vec![501, 502, 9_007_199_254_740_991],
                up_to: 0,
            }),
        ),
        said(
            "all_up_to",
            "All up to and including 512.",
            44,
            Request::MarkRead(wire::MarkRead {
                ids: Vec::new(),
                up_to: 512,
            }),
        ),
    ]
}
