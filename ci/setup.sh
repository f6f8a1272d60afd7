#!/usr/bin/env bash
# setup.sh build|test|bench: installs what the job needs and this machine lacks.
#
# Quick and silent when all is there. As root on a Debian-like system it installs with apt; otherwise it prints
# what to install and goes on: a test that lacks its tool is skipped and says so. Only a missing Rust toolchain
# or linker is fatal, because then nothing can be built.
set -euo pipefail

# command=package, for each job.
build_tools=(cc=gcc)
test_tools=(nc=netcat-openbsd socat=socat curl=curl unshare=util-linux chromium=chromium)
bench_tools=(tcpserver=ucspi-tcp)

have() { command -v "$1" >/dev/null 2>&1; }

missing_packages() { # command=package…
    local pair
    for pair in "$@"; do
        have "${pair%%=*}" || echo "${pair#*=}"
    done
}

install() { # package…
    [ $# -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && have apt-get; then
        echo "setup: installing $*"
        export DEBIAN_FRONTEND=noninteractive
        timeout 90 apt-get -qq update >/dev/null || true
        timeout 300 apt-get -qq install -y --no-install-recommends "$@" >/dev/null && return 0
        echo "setup: could not install $*; going on without" >&2
    else
        echo "setup: please install: $*  (apt install $*); going on without" >&2
    fi
}

rust() {
    if ! have cargo; then
        echo "setup: cargo not found; install Rust 1.88 or later from https://rustup.rs" >&2
        exit 1
    fi
    local part
    for part in fmt clippy; do
        cargo "$part" --version >/dev/null 2>&1 && continue
        have rustup && rustup --quiet component add "${part/#fmt/rustfmt}" && continue
        echo "setup: cargo $part not found; install the Rust component for it" >&2
        exit 1
    done
}

case "${1:-}" in
build) wanted=("${build_tools[@]}") ;;
test) wanted=("${build_tools[@]}" "${test_tools[@]}") ;;
bench) wanted=("${build_tools[@]}" "${test_tools[@]}" "${bench_tools[@]}") ;;
*) echo "usage: setup.sh build|test|bench" >&2; exit 2 ;;
esac
rust
mapfile -t packages < <(missing_packages "${wanted[@]}" | sort -u)
install "${packages[@]}"
if ! have cc; then
    echo "setup: no C linker (cc); Rust cannot link without one" >&2
    exit 1
fi
