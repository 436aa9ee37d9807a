#!/usr/bin/env bash
# Everything that must pass to land: `make test`. Installs what the tests need, runs each stage, stops at the first that fails.
# Single stages by name: `scripts/test.sh lint unit`.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-tools.sh

stages=(lint unit instructions models fuzz conformance api devices peers)
passed=0

lint() {
  cargo fmt --all --check
  cargo clippy --quiet --workspace --all-targets --all-features -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
}

# Unit, property and integration tests with real sockets and a real database; examples in the documents.
unit() { cargo test --workspace --all-features; }

# What a message costs in instructions, against what is recorded. Behind `unit`, whose compiled dependencies it shares.
instructions() { scripts/check-instructions.sh; }

# Concurrency primitives under random interleavings.
models() { scripts/model-check.sh; }

# Every decoder for a few seconds, with address sanitizer.
fuzz() { scripts/fuzz-short.sh "${FUZZ_SECONDS:-5}"; }

# RFC 6455 by a referee that nobody here wrote.
conformance() { scripts/autobahn.sh; }

# The API against its own document, the metrics against Prometheus' own checker.
api() { scripts/check-api.sh; }

# The emulated devices against Home Assistant's client library.
devices() { scripts/check-aioshelly.sh; }

# The load test against the servers that it compares with.
peers() { scripts/check-peers.sh; }

for stage in "${@:-${stages[@]}}"; do
  echo "==> $stage"
  began=$SECONDS
  "$stage"
  echo "==> $stage passed in $((SECONDS - began)) s"
  passed=$((passed + 1))
done
echo "stages: $passed passed, 0 failed"
