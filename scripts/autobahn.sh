#!/usr/bin/env bash
# Runs the Autobahn conformance suite (RFC 6455) against the broker's own framing, and judges the result.
# The suite is Python 2. Where no Python 2.7 can be had, it says so loudly and is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

python=""
for candidate in python2.7 "$(command -v pyenv >/dev/null && pyenv root)/versions/2.7.18/bin/python2.7"; do
  if command -v "$candidate" >/dev/null 2>&1 && "$candidate" --version 2>&1 | grep -q '^Python 2\.7'; then
    python=$(command -v "$candidate")
    break
  fi
done
if [ -z "$python" ]; then
  echo "SKIPPED: the Autobahn suite needs Python 2.7, and there is none here" >&2
  exit 0
fi

venv=target/venv-autobahn
if [ ! -x "$venv/bin/wstest" ]; then
  python3 -m venv target/venv-virtualenv
  target/venv-virtualenv/bin/pip install --quiet virtualenv==20.21.1
  target/venv-virtualenv/bin/virtualenv --quiet --python "$python" "$venv"
  "$venv/bin/pip" install --quiet autobahntestsuite==25.10.1
fi

cargo build --quiet -p cauce-broker --example conformance --features testing
out=target/autobahn
rm -rf "$out" && mkdir -p "$out"
target/debug/examples/conformance >"$out/address" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 600); do
  [ -s "$out/address" ] && break
  kill -0 "$server" || { echo "the broker ended before it listened" >&2; exit 1; }
  sleep 0.1
done

# Compression is not offered (docs/DECISIONS.md), so its cases are left out; nothing else is.
cat >"$out/spec.json" <<JSON
{"outdir": "$out/report", "servers": [{"agent": "cauce", "url": "ws://$(cat "$out/address")/echo"}],
 "cases": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"], "exclude-cases": [], "exclude-agent-cases": {}}
JSON
"$venv/bin/wstest" -m fuzzingclient -s "$out/spec.json" >"$out/log" 2>&1 || { tail -20 "$out/log"; exit 1; }

python3 - "$out/report/index.json" <<'PY'
import collections, json, sys
cases = json.load(open(sys.argv[1]))["cauce"]
behaviour = collections.Counter(case["behavior"] for case in cases.values())
bad = {name: case["behavior"] for name, case in cases.items()
       if case["behavior"] not in ("OK", "NON-STRICT", "INFORMATIONAL") or case["behaviorClose"] not in ("OK", "INFORMATIONAL")}
print("autobahn:", len(cases), "cases,", ", ".join(f"{n} {b}" for b, n in sorted(behaviour.items())))
if len(cases) < 300:
    sys.exit(f"only {len(cases)} cases ran")
if bad or behaviour["NON-STRICT"] > 4:
    sys.exit(f"not conformant: {bad}")
PY
