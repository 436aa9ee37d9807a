#!/usr/bin/env bash
# `make bench`: builds, runs the standard set against brokers of its own, and writes table and plots into the documentation. Servers,
# keys and directories are made and removed by the program itself, however it ends; nothing is written before everything is measured.
#   make bench ARGS="--lines 2,4 --rounds 5"
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-target}/release
"$cargo" build --release --locked --package cauce

options=(--serve "$target/cauce" --out docs/bench --document docs/BENCHMARKS.md)
commit=$(git describe --always --dirty 2>/dev/null || true)
if [[ -n $commit ]]; then
  options+=(--commit "$commit")
fi
# A core for each side; on a single one nothing would be measured but their quarrel.
if (($(nproc) > 1)); then
  options+=(--pin 0:1)
fi
# Where the machine grants it, the measured go before all else that runs on it: a tail is to be theirs and not the neighbours'.
if nice -n -20 true 2>/dev/null; then
  options+=(--priority 20)
fi
# The bench within one process is a program of its own, so that its dependencies stay out of the product.
if "$cargo" build --release --locked --package cauce-benches --bin cauce-in-process; then
  options+=(--in-process "$target/cauce-in-process")
fi
exec "$target/cauce" loadtest standard "${options[@]}" "$@"
