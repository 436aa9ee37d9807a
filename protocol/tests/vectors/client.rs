//! What clients say: the frames whose bytes every SDK must write, and the broker read.

mod calls;
mod people;
mod rooms;

use cauce_protocol::wire;
use cauce_protocol::wire::client_frame::Request;

/// Advance, Gap and notifications.
pub(crate) const ALL_FEATURES: u64 =
    wire::Feature::Advance as u64 | wire::Feature::Gap as u64 | wire::Feature::Notifications as u64;

/// One frame and what it means.
pub(crate) struct Said {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) frame: wire::ClientFrame,
}

fn said(name: &'static str, meaning: &'static str, id: u32, request: Request) -> Said {
    Said {
        name,
        meaning,
        frame: wire::ClientFrame {
            id,
            request: Some(request),
        },
    }
}

/// The files, by the name of their message.
pub(crate) fn files() -> Vec<(&'static str, Vec<Said>)> {
    vec![
        ("hello", hello()),
        ("subscribe", rooms::subscribe()),
        ("unsubscribe", rooms::unsubscribe()),
        ("publish", rooms::publishes()),
        ("send", people::sends()),
        ("call", calls::calls()),
        ("ping", ping()),
        ("refresh", refresh()),
        ("history", rooms::history()),
        ("presence", rooms::presence()),
        ("serve", calls::serve()),
        ("unserve", calls::unserve()),
        ("respond", calls::responds()),
        ("cancel", calls::cancel()),
        ("notify", people::notifies()),
        ("notifications", people::notifications()),
        ("mark_read", people::mark_read()),
    ]
}

fn hello() -> Vec<Said> {
    let hello = |token: &str, client: &str, features| {
        Request::Hello(wire::Hello {
            version: 1,
            features,
            token: token.into(),
            client: client.into(),
            previous: Vec::new(),
        })
    };
    vec![
        said(
            "with_token",
            "Version 1, the token in the frame, Advance is understood. The token is cut short to stay readable.",
            1,
            hello(
                "eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
                "cauce-js/0.1.0",
                wire::Feature::Advance as u64,
            ),
        ),
        said(
            "token_came_with_the_handshake",
            "Hello without a token, to offer features and give a name.",
            1,
            hello("", "cauce-rust/0.1.0", wire::Feature::Advance as u64),
        ),
        said(
            "unknown_features",
            "Bits that no broker knows yet, up to the highest that JavaScript reads exactly; the answer leaves them out.",
            2,
            hello("", "", (1 << 52) | 1),
        ),
        said(
            "coming_back",
            "Advance, Gap and notifications are understood; the client was connections 41 and, before it, 17.",
            1,
            Request::Hello(wire::Hello {
                version: 1,
                features: ALL_FEATURES,
                client: "cauce-js/0.1.0".into(),
                previous: vec![41, 17],
                ..wire::Hello::default()
            }),
        ),
    ]
}

fn refresh() -> Vec<Said> {
    vec![said(
        "refresh",
        "A new token for the same user, before the old one expires. Cut short to stay readable.",
        25,
        Request::Refresh(wire::Refresh {
            token: "eyJhbGciOiJIUzI1NiJ9.e30.bmV3".into(),
        }),
    )]
}

fn ping() -> Vec<Said> {
    vec![said(
        "ping",
        "Are you there? An empty message.",
        24,
        Request::Ping(wire::Ping {}),
    )]
}
