//! Calls of methods that clients or the embedding program serve.

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use cauce_protocol::Code;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, Refused};
use super::caller::Caller;
use super::devices::{CALL_TIME_MAX, CallResult, raw};
use super::extract::{Body, Params};
use super::page::TenantQuery;
use crate::auth::secret::Scope;
use crate::hub::MethodCall;

/// A call of a method.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MethodCallBody {
    #[schema(pattern = "^[0-9A-Za-z._-]{1,100}$")]
    method: String,
    #[schema(value_type = Option<Object>)]
    params: Option<Box<RawValue>>,
    /// How long to wait for the answer.
    #[schema(minimum = 1, maximum = 25000)]
    timeout_ms: Option<u64>,
    /// If the server is lost before it answers, ask another: the method may then run more than once.
    #[serde(default)]
    retry: bool,
}

/// Call a method and wait for the answer of whoever serves it. `method_error` has the server's words.
#[utoipa::path(post, path = "/v1/calls", tag = "calls", params(TenantQuery), request_body = MethodCallBody,
    responses((status = 200, body = CallResult)))]
pub(super) async fn call_method(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<TenantQuery>,
    Body(body): Body<MethodCallBody>,
) -> Answer<CallResult> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Calls)?;
    let call = MethodCall {
        method: body.method,
        params: body
            .params
            .map(|json| Bytes::from(String::from(Box::<str>::from(json))))
            .unwrap_or_default(),
        timeout_ms: api.call_time(body.timeout_ms)?,
        retry: body.retry,
    };
    let result = raw(&api.hub.ask(&tenant, call).await?)?;
    Ok(Json(CallResult { result }))
}

impl Api {
    /// How long a call may wait, in milliseconds.
    ///
    /// # Errors
    /// `invalid` for no time at all or more than a request has.
    pub(super) fn call_time(&self, asked_ms: Option<u64>) -> Result<u64, Refused> {
        let max = CALL_TIME_MAX.as_millis() as u64;
        match asked_ms {
            None => Ok(self.hub.tunables().connection.call_timeout_ms.min(max)),
            Some(ms) if (1..=max).contains(&ms) => Ok(ms),
            Some(_) => Err(Refused::new(Code::Invalid, format!("timeout_ms is 1 to {max}"))),
        }
    }
}
