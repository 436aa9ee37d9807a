#!/usr/bin/env bash
# Counts the instructions of the operations that every message takes, and fails if one takes over 5 % more than is recorded in
# benches/instructions.toml. With --record, records what is counted.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  "") what=check ;;
  --record) what=record ;;
  *) echo "usage: $0 [--record]" >&2; exit 2 ;;
esac
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "NOT COMPARED: counts are recorded for Linux on x86_64, and this is $(uname -sm)" >&2
  exit 0
fi

# The whole workspace with all features is named, so that what is not counted is what `cargo test` has compiled. Flags of the caller's
# would give other instructions.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS
program=$(cargo build --config benches/instructions-profile.toml --workspace --all-features --bench instructions --message-format=json-render-diagnostics |
  python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["executable"] and message["target"]["name"] == "instructions":
        print(message["executable"])
')
"$program" "$what"
