//! Calls: who asks, who serves.

use cauce_protocol::wire;
use cauce_protocol::wire::client_frame::Request;

use super::{Said, said};

pub(super) fn calls() -> Vec<Said> {
    vec![
        said(
            "switch_on",
            "A command to a plug, answered with the plug's own words within three seconds.",
            22,
            Request::Call(wire::Call {
                device: "8CBFEAA133F0".into(),
                method: "Switch.Set".into(),
                params: r#"{"id":0,"on":true}"#.into(),
                timeout_ms: 3000,
                retry: false,
            }),
        ),
        said(
            "without_parameters",
            "No parameters and the broker's own time limit.",
            23,
            Request::Call(wire::Call {
                device: "8CBFEAA133F0".into(),
                method: "Shelly.GetStatus".into(),
                ..wire::Call::default()
            }),
        ),
        said(
            "to_whoever_serves_it",
            "No device: a client that serves the method is asked, and another if that one is lost.",
            60,
            Request::Call(wire::Call {
                method: "invoice.total".into(),
                params: r#"{"order":42}"#.into(),
                retry: true,
                ..wire::Call::default()
            }),
        ),
    ]
}

pub(super) fn serve() -> Vec<Said> {
    vec![
        said(
            "one_method",
            "Calls of one method come here from now on.",
            32,
            Request::Serve(wire::Serve {
                methods: vec!["invoice.total".into()],
                concurrency: 0,
            }),
        ),
        said(
            "a_family_of_methods",
            "Every method that begins with report., and one more; four calls at once.",
            33,
            Request::Serve(wire::Serve {
                methods: vec!["report.*".into(), "invoice.total".into()],
                concurrency: 4,
            }),
        ),
    ]
}

pub(super) fn unserve() -> Vec<Said> {
    vec![said(
        "unserve",
        "No more calls of these; the pattern is named as it was served.",
        34,
        Request::Unserve(wire::Unserve {
            methods: vec!["report.*".into()],
        }),
    )]
}

pub(super) fn responds() -> Vec<Said> {
    use wire::respond::Result as Outcome;
    let respond = |call, result| Request::Respond(wire::Respond { call, result });
    vec![
        said(
            "json",
            "The answer to call 9, any JSON. Asks for no answer itself.",
            0,
            respond(9, Some(Outcome::Json(r#"{"total":19.5}"#.into()))),
        ),
        said(
            "nothing",
            "Done, nothing to say: the caller gets null.",
            35,
            respond(10, None),
        ),
        said(
            "error",
            "What went wrong, in words for the caller.",
            36,
            respond(11, Some(Outcome::Error("there is no order 43".into()))),
        ),
    ]
}

pub(super) fn cancel() -> Vec<Said> {
    vec![said(
        "cancel",
        "Gives up waiting for the answer to request 22.",
        37,
        Request::Cancel(wire::Cancel { request: 22 }),
    )]
}
