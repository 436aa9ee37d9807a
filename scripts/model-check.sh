#!/bin/sh
# Runs mailbox and rooms under thousands of random interleavings (shuttle). A failure prints the schedule that repeats it.
set -eu
cd "$(dirname "$0")/.."
RUSTFLAGS="--cfg shuttle" exec cargo test --quiet --manifest-path broker/models/Cargo.toml --target-dir target/shuttle --lib models "$@"
