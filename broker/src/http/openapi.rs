//! The document that describes the API. Routes bring their own description; here is what they have in common.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Info, License, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::answer::ErrorBody;
use super::{internal_routes, main_routes};

/// Name of the way to authenticate, within the document.
const API_KEY: &str = "api_key";

/// What the API can be asked to refuse, and when.
const REFUSALS: [(&str, &str, Extra); 13] = [
    (
        "400",
        "The request is malformed, or a name or value in it is not allowed",
        Extra::None,
    ),
    ("401", "No API key, or none that is valid", Extra::Authenticate),
    (
        "403",
        "The key may not do this, or its tenant is switched off",
        Extra::None,
    ),
    (
        "404",
        "There is no such thing, or none that this key may see",
        Extra::None,
    ),
    ("408", "The body did not come in time", Extra::None),
    (
        "409",
        "It exists already, or is in a state that does not allow this",
        Extra::RetryAfter,
    ),
    ("413", "The body or something in it is too large", Extra::None),
    ("422", "The device answered with an error of its own", Extra::None),
    (
        "429",
        "Too many requests, or more things than allowed",
        Extra::RetryAfter,
    ),
    ("500", "A fault of the broker; it is logged there", Extra::None),
    ("501", "This broker runs without what this needs", Extra::None),
    ("503", "The broker cannot do this now", Extra::RetryAfter),
    ("504", "The device did not answer in time", Extra::RetryAfter),
];

/// What a refusal says besides its body.
#[derive(Clone, Copy)]
enum Extra {
    None,
    Authenticate,
    RetryAfter,
}

const DESCRIPTION: &str = "Publish, look at rooms, see and command devices, and administer tenants, keys and tokens. \
An API key goes into `Authorization: Bearer ck_…`. A tenant's key acts for its tenant; an operator's key chooses one by \
`?tenant=`. Every refusal has the same form; `retryable` and `retry_after_ms` say what to do.";

/// The whole document, whichever listener serves a path.
pub fn document() -> OpenApi {
    let mut document = main_routes().merge(internal_routes()).into_openapi();
    document.info = Info::new("Cauce", env!("CARGO_PKG_VERSION"));
    document.info.description = Some(DESCRIPTION.to_owned());
    document.info.license = Some(License::new("Apache-2.0"));
    let components = document.components.get_or_insert_with(Components::new);
    let mut schemas = vec![(ErrorBody::name().into_owned(), ErrorBody::schema())];
    ErrorBody::schemas(&mut schemas);
    components.schemas.extend(schemas);
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme(API_KEY, bearer);
    for (path, item) in &mut document.paths.paths {
        if path.starts_with("/v1/") {
            operations(item).for_each(describe);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
    ]
    .into_iter()
    .flatten()
}

/// What every path that wants a key has in common.
fn describe(operation: &mut Operation) {
    operation.security = Some(vec![SecurityRequirement::new(API_KEY, [""; 0])]);
    let responses = &mut operation.responses.responses;
    for (status, description, extra) in REFUSALS {
        let refused = || RefOr::T(refusal(description, extra));
        responses.entry(status.to_owned()).or_insert_with(refused);
    }
    if let Some(RefOr::T(done)) = responses.get_mut("200")
        && done.description.is_empty()
    {
        "Done".clone_into(&mut done.description);
    }
}

fn refusal(description: &str, extra: Extra) -> Response {
    let schema = Ref::from_schema_name(ErrorBody::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = ResponseBuilder::new()
        .description(description)
        .content("application/json", content);
    let header = |schema, words: &str| {
        let schema = ObjectBuilder::new().schema_type(schema);
        HeaderBuilder::new()
            .schema(Some(schema))
            .description(Some(words))
            .build()
    };
    match extra {
        Extra::None => response,
        Extra::Authenticate => {
            response.header("WWW-Authenticate", header(Type::String, "How to authenticate"))
        }
        Extra::RetryAfter => response.header(
            "Retry-After",
            header(Type::Integer, "Seconds to wait, where waiting helps"),
        ),
    }
    .build()
}

static JSON: LazyLock<Bytes> = LazyLock::new(|| {
    // A document of ours, built from constants; a test writes it.
    serde_json::to_vec(&document()).unwrap_or_default().into()
});

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operation",
    responses((status = 200, body = Object, description = "The document", content_type = "application/json")))]
pub(super) async fn openapi_json() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], JSON.clone())
}

/// Where to read on.
#[utoipa::path(get, path = "/", tag = "operation",
    responses((status = 200, body = String, description = "One line", content_type = "text/plain")))]
pub(super) async fn pointer() -> &'static str {
    concat!(
        "Cauce ",
        env!("CARGO_PKG_VERSION"),
        ": clients connect to /v1/ws, devices to /shelly; the API is described in /openapi.json\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_under_v1_documents_its_key_and_its_refusals() {
        let mut document = document();
        let mut seen = 0;
        for (path, item) in &mut document.paths.paths {
            for operation in operations(item) {
                seen += 1;
                let id = operation.operation_id.as_deref().unwrap_or_default();
                assert!(operation.summary.is_some(), "{id} says nothing of itself");
                assert!(operation.responses.responses.contains_key("200"), "{id}");
                if path.starts_with("/v1/") {
                    assert!(operation.security.is_some(), "{id}");
                    for (status, ..) in REFUSALS {
                        assert!(
                            operation.responses.responses.contains_key(status),
                            "{id} {status}"
                        );
                    }
                }
            }
        }
        assert!(seen > 30, "{seen} operations");
    }

    #[test]
    fn names_of_operations_are_unique_and_references_lead_somewhere() {
        let mut document = document();
        let mut names = std::collections::HashSet::new();
        for item in document.paths.paths.values_mut() {
            for operation in operations(item) {
                assert!(
                    names.insert(operation.operation_id.clone()),
                    "{:?}",
                    operation.operation_id
                );
            }
        }
        let text = serde_json::to_string(&document).unwrap();
        let schemas = &document.components.as_ref().unwrap().schemas;
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
