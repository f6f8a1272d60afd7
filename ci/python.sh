#!/usr/bin/env bash
# python.sh build|test VERSION|tests VERSION…|check|versions|conformance ARGS…|bench ARGS…: the Python package, in virtual environments under
# target/.
#
# build: the wheel, once for all versions, by pip as a user does it; and an environment with it for each interpreter.
# test: the tests, with one interpreter. tests: with several at once, for they wait more than they compute; what they
# print comes one after the other. check: formatting, lints and types. versions: the interpreters that are found.
# conformance: the interpreter's own suite, by conformance.py or the harness that FORKYARD_CONFORMANCE names.
# bench: against the standard library, with the newest of these interpreters.
# Exit code 77: cannot be done here, and the reason has been said.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=$PWD/target/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

skip() {
    echo "python: skipped: $*" >&2
    exit 77
}

# The interpreter of a version, if there is one that runs: on the path, or one of pyenv's.
interpreter() { # VERSION
    local candidate
    for candidate in "python$1" python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python3; do
        if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

versions() {
    local version
    for version in 3.11 3.12 3.13 3.14; do
        if interpreter "$version" >/dev/null; then echo "$version"; fi
    done
}

# 3.11 and 3.13 where they are found; otherwise the newest there is.
tested() {
    local all some
    all=$(versions)
    some=$(grep -xE '3\.11|3\.13' <<<"$all" || tail -1 <<<"$all")
    [ -n "$some" ] || skip "no Python 3.11 or later found"
    echo "$some"
}

environment() { # VERSION [PACKAGE…]
    local version=$1 python directory=target/venv-$1
    shift
    python=$(interpreter "$version") || skip "no Python $version found"
    if ! "$directory/bin/python" -c pass 2>/dev/null; then
        rm -rf "$directory"
        "$python" -m venv "$directory" >/dev/null 2>&1 || skip "Python $version cannot make virtual environments"
    fi
    local package
    for package in "$@"; do
        "$directory/bin/python" -P -c "import $package" 2>/dev/null ||
            "$directory/bin/pip" install --quiet "$package" ||
            skip "$package is not there, and could not be installed"
    done
}

build() {
    local version first=
    for version in $(tested); do
        environment "$version" pytest
        # A client that one test uses, and skips without.
        (environment "$version" joblib 2>/dev/null) || true
        if [ -z "$first" ]; then
            first=$version
            rm -rf target/wheels
            # Without pip's environment of its own where the builder cannot be downloaded.
            "target/venv-$version/bin/pip" wheel --quiet --no-deps --wheel-dir target/wheels ./python ||
                { "target/venv-$version/bin/python" -P -c "import maturin" 2>/dev/null &&
                    "target/venv-$version/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir target/wheels ./python; }
        fi
        "target/venv-$version/bin/pip" install --quiet --no-deps --force-reinstall target/wheels/forkyard-*.whl
    done
}

case "${1:-}" in
versions) tested ;;
build) build ;;
test)
    environment "$2" pytest
    # What new interpreters import is compiled once.
    unset PYTHONDONTWRITEBYTECODE
    export PYTHONPYCACHEPREFIX=$PWD/target/pycache
    exec "target/venv-$2/bin/python" -P -m pytest -q --basetemp="target/pytest-$2" python/tests "${@:3}"
    ;;
tests)
    runs=() failed=0
    for version in "${@:2}"; do
        # The shell has what is in the background ignore interrupts.
        env --default-signal=INT,QUIT ci/python.sh test "$version" >"target/pytest-$version.log" 2>&1 &
        runs+=("$version:$!")
    done
    for run in "${runs[@]}"; do
        echo "== Python ${run%:*}"
        wait "${run#*:}" || failed=$?
        cat "target/pytest-${run%:*}.log"
    done
    exit "$failed"
    ;;
check)
    version=$(tested | sed -n 1p)
    environment "$version" ruff mypy
    "target/venv-$version/bin/ruff" format --check python
    "target/venv-$version/bin/ruff" check python
    (cd python && MYPYPATH=. "../target/venv-$version/bin/mypy")
    cargo fmt --manifest-path python/Cargo.toml --check
    cargo clippy --quiet --manifest-path python/Cargo.toml --release -- -D warnings
    ;;
conformance)
    failed=
    for version in $(tested); do
        python=target/venv-$version/bin/python
        if [ -z "${FORKYARD_CONFORMANCE:-}" ]; then
            "$python" -P python/conformance.py "${@:2}" || [ $? = 77 ] || failed=1
            continue
        fi
        for method in fork spawn forkserver; do
            echo "== CPython $version, $method"
            "$python" "$FORKYARD_CONFORMANCE" --package forkyard --start-method "$method" "${@:2}" || failed=1
        done
    done
    exit "${failed:-0}"
    ;;
bench)
    version=$(tested | tail -1)
    # Peers that can be done without.
    for package in numpy faster_fifo; do
        (environment "$version" "$package" 2>/dev/null) || true
    done
    exec "target/venv-$version/bin/python" -P python/bench "${@:2}"
    ;;
*) echo "usage: python.sh build|test VERSION|tests VERSION…|check|versions|conformance|bench" >&2; exit 2 ;;
esac
