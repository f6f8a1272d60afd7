#!/usr/bin/env bash
# Clones HEAD into a temporary directory and runs the test command there: what a newcomer gets.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -z "$(git status --porcelain)" ] || echo "fresh: uncommitted changes are not part of the clone" >&2
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
chmod 755 "$directory" # some tests run as other users
git clone --quiet --no-hardlinks . "$directory/forkyard"
cd "$directory/forkyard"
env -u CARGO_TARGET_DIR make test
