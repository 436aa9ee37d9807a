#!/usr/bin/env bash
# `make bench-micro`: runs Criterion's benches, in four minutes or less once they are built, and writes their table into the documentation.
# Nothing is written before everything is measured.
#   make bench-micro ARGS="--measurement-time 5"      # Criterion's options, instead of those below
#   PROFILE=dev DOCUMENT=/tmp/page.md make bench-micro  # whether it works, without a release build: the figures mean nothing
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
profile=${PROFILE:-release}
document=${DOCUMENT:-docs/BENCHMARKS.md}
# Some thirty benches of three seconds each. `ordering` and `instructions` are programs of their own kind.
options=(--warm-up-time 0.5 --measurement-time 2 --sample-size 50)
if (($#)); then
  options=("$@")
fi
benches=(codec rooms delivery store auth device)

# The estimates of this run and no other's.
estimates=$(mktemp -d)
trap 'rm -rf "$estimates"' EXIT
selected=()
for bench in "${benches[@]}"; do
  selected+=(--bench "$bench")
done
"$cargo" build --profile "$profile" --locked --package cauce
"$cargo" bench --profile "$profile" --locked --package cauce-benches "${selected[@]}" --no-run
CRITERION_HOME=$estimates "$cargo" bench --profile "$profile" --locked --package cauce-benches "${selected[@]}" -- --noplot "${options[@]}"

built=${CARGO_TARGET_DIR:-target}/${profile/#dev/debug}
commit=$(git describe --always --dirty 2>/dev/null || true)
"$built/cauce" loadtest micro "$estimates" --commit="$commit" --how="${options[*]}" --document "$document"
