#!/usr/bin/env bash
# The load test against real servers of other kinds: ws and socket.io on Node, mosquitto, nats-server.
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH="$PATH:/usr/sbin"
for program in node npm mosquitto nats-server; do
  command -v "$program" >/dev/null || {
    echo "$program is missing: scripts/install-tools.sh installs it on Debian and its kin" >&2
    exit 1
  }
done
# Versions are exact in package.json; a lock file would also hold where they were downloaded from.
npm install --prefix loadtest/peers --no-package-lock --no-audit --no-fund --silent
# The whole workspace is named, so that most of what they need is what `cargo test` has compiled.
cargo test --workspace --all-features --test against_other_servers -- --ignored
