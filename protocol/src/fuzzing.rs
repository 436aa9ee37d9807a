//! Entries for the fuzz targets: each takes any bytes and panics where a promise of this crate is broken, so that a target is
//! one line and the promise stands beside the code. Ordinary tests run them over the golden vectors too.

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::frame::{DecodeError, Frames, take_frame};
use crate::json;
use crate::limits::{
    ERROR_BYTES_MAX, EXCLUDE_MAX, FRAMES_A_MESSAGE_MAX, INTEGER_MAX, MARK_READ_MAX, METHODS_A_REQUEST_MAX,
    PAGE_MAX, PAYLOAD_DEPTH_MAX, PREVIOUS_MAX, REQUEST_ENTRIES_MAX, ROOMS_A_REQUEST_MAX, SAMPLE_MS_MAX,
    SAMPLE_MS_MIN,
};
use crate::message::{
    Call, History, MarkRead, Notifications, Notify, Policy, Presence, Publish, Request, Respond, Send, Serve,
    decode_json, decode_proto,
};
use crate::payload::{Payload, check_json, deeper_than};
use crate::wire;

/// Small, so that a fuzzer reaches both sides of it.
const BYTES_MAX: usize = 256;

/// Any frame is refused or means the same when said in JSON.
pub fn fuzz_decode_proto(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let Ok(Ok(message)) = decode_proto(&frame, BYTES_MAX) else {
        return;
    };
    let generated = wire::ClientFrame::decode(frame).expect("what one reading accepts, both do");
    within_limits(&message.request);
    // JSON drops blanks around a value, so a payload that has them comes back shorter.
    if !has_blank_ends(&message.request) {
        let text = json::encode_client(&generated);
        assert_eq!(decode_json(text.as_bytes(), BYTES_MAX), Ok(Ok(message)));
    }
}

/// Any text is refused or means the same when said in protobuf.
pub fn fuzz_decode_json(data: &[u8]) {
    let Ok(decoded) = decode_json(data, BYTES_MAX) else {
        return;
    };
    let frame = json::decode_client(data).expect("it was just read");
    assert_eq!(
        decode_proto(&frame.encode_to_vec().into(), BYTES_MAX),
        Ok(decoded)
    );
}

/// Frames of one message lie behind each other, within the limits, and nothing comes after an error.
pub fn fuzz_frames(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    let (mut end, mut failed, mut count) = (0, false, 0);
    for frame in Frames::new(message.clone(), BYTES_MAX) {
        assert!(!failed, "nothing follows an error");
        count += 1;
        match frame {
            Ok(frame) => {
                assert!(frame.len() <= BYTES_MAX);
                let start = frame.as_ptr() as usize - message.as_ptr() as usize;
                assert!(start > end, "a length stands before each frame");
                end = start + frame.len();
            }
            Err(_) => failed = true,
        }
    }
    assert!(failed || end == message.len(), "every byte belongs to a frame");
    assert!(count <= FRAMES_A_MESSAGE_MAX + 1);
}

/// A stream gives the same frames however it is cut. The first byte tells how many of the next ones are lengths of pieces.
pub fn fuzz_take_frame(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let (cuts, stream) = rest.split_at(usize::from(count).min(rest.len()));
    let mut pieces = Vec::with_capacity(cuts.len() + 1);
    let mut left = stream;
    for &cut in cuts {
        let (piece, behind) = left.split_at(usize::from(cut).min(left.len()));
        pieces.push(piece);
        left = behind;
    }
    pieces.push(left);
    assert_eq!(frames_of(pieces.into_iter()), frames_of(std::iter::once(stream)));
}

/// The frames of a stream, and what is left of it or how it broke.
fn frames_of<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Bytes>, Result<BytesMut, DecodeError>) {
    let (mut frames, mut buffer) = (Vec::new(), BytesMut::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match take_frame(&mut buffer, BYTES_MAX) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(buffer))
}

/// What passes as JSON is JSON for a full parser too, and what a full parser takes is refused for its depth alone.
pub fn fuzz_check_json(data: &[u8]) {
    let checked = check_json(data, PAYLOAD_DEPTH_MAX);
    if checked.is_ok() {
        serde_json::from_slice::<&serde_json::value::RawValue>(data).expect("a complete JSON text");
        assert_eq!(deeper_than(data, PAYLOAD_DEPTH_MAX), None);
    }
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) {
        assert_eq!(checked.is_ok(), depth(&value) <= PAYLOAD_DEPTH_MAX);
    }
}

/// What a client reads from a broker's JSON stays the same when written and read again.
pub fn fuzz_decode_server_json(data: &[u8]) {
    let Ok(frame) = json::decode_server(data) else {
        return;
    };
    let text = json::encode_server(&frame);
    assert_eq!(json::decode_server(text.as_bytes()), Ok(frame));
}

/// How deep the brackets go; the parser that built the value bounds the recursion.
fn depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn within_limits(request: &Request) {
    match request {
        Request::Hello(hello) => assert!(hello.previous.len() <= PREVIOUS_MAX),
        Request::Subscribe(subscriptions) => {
            assert!((1..=ROOMS_A_REQUEST_MAX).contains(&subscriptions.len()));
            let filters = subscriptions.iter().filter_map(|s| s.filter.as_deref());
            let entries: usize = filters.map(|f| f.events.len() + f.keys.len()).sum();
            assert!(entries <= REQUEST_ENTRIES_MAX);
            for subscription in subscriptions {
                let since = subscription.since;
                assert!(since.is_none_or(|at| at.epoch.0 <= INTEGER_MAX && at.seq.0 <= INTEGER_MAX));
                if let Some(Policy::Sample { every_ms }) = subscription.policy {
                    assert!((SAMPLE_MS_MIN..=SAMPLE_MS_MAX).contains(&every_ms));
                }
            }
        }
        Request::Unsubscribe(rooms) => assert!((1..=ROOMS_A_REQUEST_MAX).contains(&rooms.len())),
        Request::Publish(Publish { payload, exclude, .. }) | Request::Send(Send { payload, exclude, .. }) => {
            assert!(payload.len() <= BYTES_MAX && exclude.len() <= EXCLUDE_MAX);
        }
        Request::Call(Call { params, .. }) => assert!(params.len() <= BYTES_MAX),
        Request::Serve(Serve { methods, .. }) | Request::Unserve(methods) => {
            assert!((1..=METHODS_A_REQUEST_MAX).contains(&methods.len()));
        }
        Request::Respond(Respond { result, .. }) => match result {
            Ok(json) => assert!(json.len() <= BYTES_MAX),
            Err(error) => assert!(error.len() <= ERROR_BYTES_MAX),
        },
        Request::History(History { limit, .. })
        | Request::Presence(Presence { limit, .. })
        | Request::Notifications(Notifications { limit, .. }) => assert!(*limit as usize <= PAGE_MAX),
        Request::Notify(notify) => assert!(!notify.title.is_empty() && notify.json.len() <= BYTES_MAX),
        Request::MarkRead(MarkRead { ids, up_to }) => {
            assert!(ids.len() <= MARK_READ_MAX && (*up_to > 0 || !ids.is_empty()));
            assert!(ids.iter().chain([up_to]).all(|&id| id <= INTEGER_MAX));
        }
        Request::Ping | Request::Refresh(_) | Request::Cancel(_) => {}
    }
}

fn has_blank_ends(request: &Request) -> bool {
    let json = match request {
        Request::Publish(Publish {
            payload: Payload::Json(json),
            ..
        })
        | Request::Send(Send {
            payload: Payload::Json(json),
            ..
        })
        | Request::Call(Call { params: json, .. })
        | Request::Respond(Respond { result: Ok(json), .. })
        | Request::Notify(Notify { json, .. }) => json,
        _ => return false,
    };
    json.trim_ascii().len() != json.len()
}
