//! From bytes of a request to our types, or a refusal in the one form. Nobody else here sees raw input.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use cauce_protocol::Code;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::answer::Refused;

/// Largest body, in bytes: a batch of a hundred ordinary messages, or one of the largest in base64.
pub(super) const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// From the head of a request to the end of its body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What is read and thrown away of a body that is too large, in bytes, and for how long: most callers look for an answer only
/// when they have said everything, and would find a broken connection instead.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);

const _: () = assert!(BODY_BYTES_MAX > cauce_protocol::limits::PAYLOAD_BYTES_MAX * 4 / 3 + 64 * 1024);

/// A body in JSON, whatever its media type says: there is no other.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let (announced, waits) = expectations(request.headers());
        let mut chunks = request.into_body().into_data_stream();
        let body = if announced.is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
            Err(too_large())
        } else {
            match tokio::time::timeout(BODY_TIME, read(&mut chunks)).await {
                Ok(body) => body,
                Err(_) => {
                    let message = format!("the body did not come within {} seconds", BODY_TIME.as_secs());
                    return Err(Refused::new(Code::Timeout, message).with_status(StatusCode::REQUEST_TIMEOUT));
                }
            }
        };
        if body.is_err() && !waits {
            // Whether all of it came is of no interest.
            let _ = tokio::time::timeout(DRAIN_TIME, drain(&mut chunks)).await;
        }
        let body = body?;
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|e| unreadable(&e))
    }
}

/// The length that a body says it has, and whether its sender waits to be let in and so has not said anything yet.
fn expectations(headers: &HeaderMap) -> (Option<u64>, bool) {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    (length, headers.contains_key(header::EXPECT))
}

async fn read(chunks: &mut BodyDataStream) -> Result<Bytes, Refused> {
    let mut body = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Refused::new(Code::Malformed, "the body broke off"))?;
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

async fn drain(chunks: &mut BodyDataStream) {
    let mut drained = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        drained += chunk.len();
        if drained > DRAIN_BYTES_MAX {
            break;
        }
    }
}

fn too_large() -> Refused {
    Refused::new(
        Code::TooLarge,
        format!("the body is larger than {BODY_BYTES_MAX} bytes"),
    )
}

fn unreadable(error: &serde_json::Error) -> Refused {
    let code = match error.classify() {
        serde_json::error::Category::Data => Code::Invalid,
        _ => Code::Malformed,
    };
    // The library's words end with line and column.
    Refused::new(code, format!("the body cannot be read: {error}"))
}

/// What stands behind the question mark.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|e| Refused::new(Code::Invalid, e.body_text()))
    }
}

/// What the path names, percent signs undone.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let named = Path::<T>::from_request_parts(parts, state).await;
        named
            .map(|Path(named)| Self(named))
            .map_err(|e| Refused::new(Code::Invalid, e.body_text()))
    }
}
