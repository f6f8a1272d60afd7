#!/usr/bin/env bash
# Forkyard and its peers side by side: all of `peers/run`, whose flags it takes (--quick, --json, …).
set -euo pipefail
exec "$(dirname "$0")/../peers/run" "$@"
