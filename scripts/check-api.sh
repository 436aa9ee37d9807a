#!/usr/bin/env bash
# Checks the running API against what it says of itself: the metrics, the alert rules and the dashboard's expressions with
# promtool, every operation of the OpenAPI document with generated requests. Takes a minute or two; needs python3, and apt if promtool is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

schemathesis_version=4.32.5
examples="${CHECK_API_EXAMPLES:-60}"
venv="$PWD/target/check-api"
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
for _ in $(seq 600); do
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

# The dashboard's expressions as rules, with a range for Grafana's own variable: promtool knows no dashboards.
expressions() {
    python3 - docs/grafana/cauce.json >"$work/dashboard.yml" <<'END'
import json, sys
print("groups:\n  - name: dashboard\n    rules:")
at = 0
for panel in json.load(open(sys.argv[1]))["panels"]:
    for target in panel.get("targets", []):
        at += 1
        expression = target["expr"].replace("$__rate_interval", "1m")
        print(f"      - record: dashboard:{at}\n        expr: {json.dumps(expression)}")
END
    promtool check rules --lint=none "$work/dashboard.yml" docs/grafana/alerts.yml
}

ask() {
    curl --silent --show-error --fail --header "Authorization: Bearer $key" --request "$1" "$url$2" --data "$3" >/dev/null
}

# Generated requests. Not the checks of missing keys: whoever keeps asking without one is answered 429, which they take for a
# fault. That every operation wants a key is held by a test of its own.
generate() {
    # In the temporary folder, because it leaves what it learned where it runs.
    (cd "$work" && "$venv/bin/schemathesis" --config-file "$1" run "$url/openapi.json" \
        --header "Authorization: Bearer $key" \
        --exclude-path-regex '^/health' \
        --checks "$checks" \
        --max-examples "$examples" \
        --request-timeout 30 \
        --seed 1 \
        --suppress-health-check all \
        --no-color)
}
checks=not_a_server_error,status_code_conformance,content_type_conformance
checks+=,response_headers_conformance,response_schema_conformance,negative_data_rejection,unsupported_method

# A name that is too long is 413 here.
cat >"$work/anything.toml" <<'END'
[checks]
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "408", "409", "413", "422", "429", "501"]
END
# The same with names of what is there, so that requests get past looking things up.
cat "$work/anything.toml" - >"$work/existing.toml" <<'END'

[parameters]
tenant = "default"

[[operations]]
include-path-regex = "^/v1/devices/"
parameters = { id = "8CBFEAA133F0" }

[[operations]]
include-path-regex = "^/v1/tenants/"
parameters = { id = "spare" }
END

expressions
metrics
ask PUT /v1/devices/8CBFEAA133F0 '{"metadata":{"hall":3}}'
ask POST /v1/tenants '{"id":"spare"}'
generate "$work/existing.toml"
generate "$work/anything.toml"
# Again, now that every counter has moved.
metrics

exec 3>&-
wait "$broker"
broker=
echo "the API is as it says"
