//! The program itself, run as people and scripts run it.

mod configuration;
mod crash;
mod demo;
mod devices;
mod drain;
mod durable;
mod help;
mod loadtest;
mod messages;
mod people;
mod plugs;
mod rooms;
mod serve;
mod simulate;
mod support;
mod tenants;
mod tls;
