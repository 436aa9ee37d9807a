//! The one form of refusal, and the one function from [`Refusal`] to it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cauce_protocol::{Code, Refusal};
use serde::Serialize;
use utoipa::ToSchema;

/// What a handler answers.
pub(super) type Answer<T> = Result<Json<T>, Refused>;

/// A request that was refused.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    status: StatusCode,
    refusal: Refusal,
}

impl Refused {
    pub(super) fn new(code: Code, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Refusal::new(code, message).into()
    }

    /// The same under a status that HTTP has and our codes have not.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                code: self.refusal.code.number(),
                name: self.refusal.code.name().to_owned(),
                message: self.refusal.message.clone().into_owned(),
                retryable: self.refusal.code.is_retryable(),
                retry_after_ms: self.refusal.retry_after_ms,
            },
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: status(refusal.code),
            refusal,
        }
    }
}

/// What a code is in HTTP. 5xx means that the broker cannot do now what it should be able to do.
fn status(code: Code) -> StatusCode {
    match code {
        Code::Malformed | Code::Invalid => StatusCode::BAD_REQUEST,
        Code::Unauthenticated
        | Code::TokenExpired
        | Code::TokenInvalid
        | Code::TokenNotYetValid
        | Code::TokenRevoked => StatusCode::UNAUTHORIZED,
        Code::Forbidden | Code::OriginRefused | Code::TenantDisabled | Code::WrongTenant => {
            StatusCode::FORBIDDEN
        }
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::HandshakeTimeout | Code::HeartbeatTimeout => StatusCode::REQUEST_TIMEOUT,
        // Nobody serves it, as a device may be offline: the broker itself is well.
        Code::Cancelled | Code::Conflict | Code::DeviceOffline | Code::NotServed | Code::Replaced => {
            StatusCode::CONFLICT
        }
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        // The device understood and will not: neither our fault nor that of the form of the request.
        Code::DeviceError | Code::MethodError | Code::SchemaViolation => StatusCode::UNPROCESSABLE_ENTITY,
        Code::QuotaExceeded | Code::RateLimited | Code::Slow | Code::TooManyConnections => {
            StatusCode::TOO_MANY_REQUESTS
        }
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Code::GoingAway | Code::Overloaded | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        // For whoever counts.
        response.extensions_mut().insert(self.refusal.code);
        let headers = response.headers_mut();
        if self.refusal.retry_after_ms > 0 {
            // In whole seconds, and never earlier than said.
            let seconds = u64::from(self.refusal.retry_after_ms).div_ceil(1_000);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Every refusal has this form.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorDetail,
}

/// Why, and what to do.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// Stable; the hundred tells what to do: see the table of codes of the protocol.
    #[schema(minimum = 4000, maximum = 4399)]
    code: u16,
    /// Stable name of the code.
    name: String,
    /// For people: what happened and what to do.
    message: String,
    /// Whether the same request may succeed later without anyone changing it.
    retryable: bool,
    /// Not to be repeated before this many milliseconds have passed; 0 where the code says enough.
    retry_after_ms: u32,
}

/// Done, and there is nothing to tell.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct Done {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_that_agrees_with_its_advice() {
        for &code in Code::ALL {
            let status = status(code);
            assert!(status.is_client_error() || status.is_server_error(), "{code}");
            if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
                assert!(code.is_retryable(), "{code}: {status}");
            }
        }
    }

    #[test]
    fn the_time_to_wait_is_rounded_up_to_seconds() {
        for (ms, seconds) in [(1, "1"), (1_000, "1"), (1_001, "2")] {
            let refusal = Refusal::new(Code::RateLimited, "slowly").retry_after(ms);
            let response = Refused::from(refusal).into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        }
        let response = Refused::new(Code::NotFound, "nothing").into_response();
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }
}
