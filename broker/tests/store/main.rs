//! The store against a real SQLite in a directory of its own.

mod admin;
mod crash;
mod durable;
mod opening;
mod support;
mod telemetry;
mod tenants;
mod trouble;
