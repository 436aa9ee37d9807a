//! The store against a real SQLite in a directory of its own.

mod admin;
mod connection_logs;
mod crash;
mod durable;
mod durable_trouble;
mod opening;
mod pages;
mod retention;
mod support;
mod telemetry;
mod tenants;
mod trouble;
