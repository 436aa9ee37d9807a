#!/usr/bin/env bash
# Installs the tools that `make test` needs and that are not here yet. Debian and its kin; elsewhere it says what to install.
# Python tools live in virtual environments under target/, which the scripts that use them make.
set -euo pipefail

missing=()
command -v gcc >/dev/null || missing+=(gcc)
command -v g++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
command -v curl >/dev/null || missing+=(curl)
# A client of TLS that nobody here wrote.
command -v openssl >/dev/null || missing+=(openssl)
command -v promtool >/dev/null || missing+=(prometheus)
# Servers that the load test is held to.
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
PATH="$PATH:/usr/sbin" command -v mosquitto >/dev/null || missing+=(mosquitto)
PATH="$PATH:/usr/sbin" command -v nats-server >/dev/null || missing+=(nats-server)
# Counts of instructions are recorded for this architecture alone.
if [ "$(uname -m)" = x86_64 ]; then
  command -v valgrind >/dev/null || missing+=(valgrind)
fi
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
if [ "${#missing[@]}" -gt 0 ]; then
  if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "install these first: ${missing[*]}" >&2
    exit 1
  fi
  # Prometheus is wanted for promtool alone, the servers are started by the tests: no service is to start.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null; then
  echo "install Rust 1.95 or later first: https://rustup.rs" >&2
  exit 1
fi
