#!/usr/bin/env bash
# Runs every fuzz target of every crate for a while: scripts/fuzz-short.sh [SECONDS each, default 10]
#
# A crate takes part by having a `fuzz/` folder made for cargo-fuzz; seeds lie in `fuzz/seeds/<target>/`. What a run finds new
# stays in `fuzz/target/corpus/` and is used by the next run on this machine. Ends with an error at the first crash and says
# where its input lies. FUZZ_SANITIZER=none is faster and finds only panics.
set -euo pipefail
cd "$(dirname "$0")/.."

duration="${1:-10}"
sanitizer="${FUZZ_SANITIZER:-address}"
crates=(protocol broker)
cargo_fuzz_version=0.13.2
input_bytes_max=4096
memory_mib_max=1024
# By the clock on the wall: far more than any input takes, also where the machine stands still for a moment.
input_seconds_max=30

case "$duration" in
    '' | *[!0-9]*) echo "usage: $0 [SECONDS]" >&2; exit 2 ;;
esac

if ! cargo fuzz --version 2>/dev/null | grep -qx "cargo-fuzz $cargo_fuzz_version"; then
    echo "installing cargo-fuzz $cargo_fuzz_version"
    cargo install --locked --quiet --version "$cargo_fuzz_version" cargo-fuzz
fi

# libFuzzer needs compiler flags that stable keeps behind this variable.
export RUSTC_BOOTSTRAP=1

for crate in "${crates[@]}"; do
    folder="$crate/fuzz"
    [ -f "$folder/Cargo.toml" ] || continue
    echo "$crate: building fuzz targets ($sanitizer sanitizer)"
    log="$(mktemp)"
    if ! cargo fuzz build --fuzz-dir "$folder" --sanitizer "$sanitizer" >"$log" 2>&1; then
        cat "$log" >&2
        exit 1
    fi
    for target in $(cargo fuzz list --fuzz-dir "$folder"); do
        corpus="$folder/target/corpus/$target"
        seeds="$folder/seeds/$target"
        mkdir -p "$corpus"
        inputs=("$corpus")
        [ -d "$seeds" ] && inputs+=("$seeds")
        if ! cargo fuzz run --fuzz-dir "$folder" --sanitizer "$sanitizer" "$target" "${inputs[@]}" -- \
            -max_total_time="$duration" -max_len="$input_bytes_max" -rss_limit_mb="$memory_mib_max" \
            -timeout="$input_seconds_max" -print_final_stats=1 >"$log" 2>&1; then
            tail -n 60 "$log" >&2
            echo "$crate $target: CRASHED; the input lies in $folder/artifacts/$target/" >&2
            exit 1
        fi
        executions="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
        if [ -z "$executions" ] || [ "$executions" -eq 0 ]; then
            tail -n 60 "$log" >&2
            echo "$crate $target: nothing was executed" >&2
            exit 1
        fi
        echo "$crate $target: $executions executions, no crash"
    done
    rm -f "$log"
done
