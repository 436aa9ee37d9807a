#!/usr/bin/env bash
# Checks the running API against what it says of itself: the metrics with promtool, every operation of the OpenAPI document
# with generated requests. Takes about three minutes; needs python3, and apt if promtool is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

schemathesis_version=4.32.5
examples="${CHECK_API_EXAMPLES:-12}"
venv=target/check-api
work="$(mktemp -d)"
broker=

cleanup() {
    if [ -n "$broker" ]; then
        kill "$broker" 2>/dev/null || true
        wait "$broker" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT

if ! command -v promtool >/dev/null; then
    apt-get install -y --no-install-recommends prometheus >/dev/null \
        || { apt-get update >/dev/null && apt-get install -y --no-install-recommends prometheus >/dev/null; }
fi
if ! "$venv/bin/schemathesis" --version 2>/dev/null | grep -q "$schemathesis_version"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet "schemathesis==$schemathesis_version"
fi

cargo build --quiet -p cauce-broker --example serve
mkfifo "$work/stdin"
target/debug/examples/serve "$work/data" <"$work/stdin" >"$work/url" 2>"$work/log" &
broker=$!
# Open for as long as this script lives: the broker serves until its input ends.
exec 3>"$work/stdin"
for _ in $(seq 100); do
    [ -s "$work/url" ] && break
    kill -0 "$broker" || { cat "$work/log"; exit 1; }
    sleep 0.1
done
url="$(cat "$work/url")"
key="$(cat "$work/data/operator.key")"

metrics() {
    curl --silent --show-error --fail "$url/metrics" >"$work/metrics"
    promtool check metrics <"$work/metrics"
}

metrics
# Not its checks of missing keys: whoever keeps asking without one is answered 429, which it takes for a fault. That every
# operation wants a key is held by a test of its own.
"$venv/bin/schemathesis" run "$url/openapi.json" \
    --header "Authorization: Bearer $key" \
    --exclude-path-regex '^/health' \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,negative_data_rejection,unsupported_method \
    --max-examples "$examples" \
    --request-timeout 30 \
    --seed 1 \
    --suppress-health-check all \
    --no-color "$@"
# Again, now that every counter has moved.
metrics

exec 3>&-
wait "$broker"
broker=
echo "the API is as it says"
