#!/usr/bin/env bash
# Checks the emulated devices against aioshelly, an independent client of real ones. Installs what it needs into
# target/venv-aioshelly, with a pinned version; fails loudly if that is impossible.
set -euo pipefail
cd "$(dirname "$0")/.."

version=13.35.0
venv=${CARGO_TARGET_DIR:-target}/venv-aioshelly

python=
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
  if [ -n "$candidate" ] && "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "check-aioshelly: needs Python 3.11 or newer with venv; set PYTHON to one" >&2
  exit 1
fi

if ! "$venv/bin/python" -c "import importlib.metadata as m, sys; sys.exit(m.version('aioshelly') != '$version')" 2>/dev/null; then
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "aioshelly==$version"
fi

# The whole workspace with all features is named, so that what they need is what `cargo test` has compiled.
cargo build --quiet --workspace --all-features --example lan --example outbound
programs=${CARGO_TARGET_DIR:-target}/debug/examples
"$venv/bin/python" loadtest/fleet/tests/aioshelly_check.py "$programs/lan" "$programs/outbound"
