#!/usr/bin/env bash
# `make bench-micro`: runs Criterion's benches, in four minutes or less once they are built, and writes their table into the documentation.
# Nothing is written before everything is measured.
#   make bench-micro ARGS="--measurement-time 5"      # any option of Criterion's
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
# Some thirty benches of three seconds each. `ordering` and `instructions` are programs of their own kind.
options=(--warm-up-time 0.5 --measurement-time 2 --sample-size 50 --noplot "$@")
benches=(codec rooms delivery store auth device)

# The estimates of this run and no other's.
estimates=$(mktemp -d)
trap 'rm -rf "$estimates"' EXIT
selected=()
for bench in "${benches[@]}"; do
  selected+=(--bench "$bench")
done
"$cargo" build --release --locked --package cauce
"$cargo" bench --locked --package cauce-benches "${selected[@]}" --no-run
CRITERION_HOME=$estimates "$cargo" bench --locked --package cauce-benches "${selected[@]}" -- "${options[@]}"

commit=$(git describe --always --dirty 2>/dev/null || true)
"${CARGO_TARGET_DIR:-target}/release/cauce" loadtest micro "$estimates" --commit "$commit" --how "${options[*]}" --document docs/BENCHMARKS.md
