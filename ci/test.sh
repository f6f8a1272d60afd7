#!/usr/bin/env bash
# What must hold, step by step, a line each. Each step has a time limit, and each that runs tests is checked for leaks
# (ci/leaks.py). A step's output is in target/test-logs; of one that failed, what tells why is printed. A failed step
# does not stop the next one; the last line is the sum.
set -uo pipefail
cd "$(dirname "$0")/.."

logs=target/test-logs
rm -rf "$logs"
mkdir -p "$logs"
failed_steps=()
steps_passed=0

# step NAME SECONDS COMMAND…
step() {
    local name=$1 limit=$2 log="$logs/${1//[^a-z0-9.]/-}.log" code start=$SECONDS outcome
    shift 2
    printf '%s: ' "$name"
    timeout --foreground --kill-after=20 "$limit" "$@" >"$log" 2>&1 </dev/null
    code=$?
    case $code in
    0)
        outcome=ok
        steps_passed=$((steps_passed + 1))
        ;;
    77) outcome="skipped: $(tail -1 "$log")" ;;
    124) outcome="FAILED: still running after $limit s, ended" ;;
    *) outcome="FAILED with exit code $code" ;;
    esac
    echo "$outcome, $((SECONDS - start)) s"
    if [ "${outcome%%[: ]*}" = FAILED ]; then
        failed_steps+=("$name")
        why "$log" | sed 's/^/        /'
        echo "        (all of it: $log)"
    fi
}

# What of a log tells why its step failed: the reports of failed tests, leaks, errors, and the end.
why() { # LOG
    awk '
        /^failures:$/ {report = 1; lines = 0}
        /^test result: / {report = 0}
        report && lines++ < 60 {print; next}
        /^leaks: |^error|^warning|^E   |^FAILED|hung for|never happened|\.\.\. FAILED$|panicked at [^ ]*tests\// {if (others++ < 60) print}
    ' "$1"
    echo "… and its end:"
    tail -15 "$1"
}

# tests NAME SECONDS COMMAND…: the same under the leak check.
tests() {
    local name=$1 limit=$2
    shift 2
    step "$name" "$((limit + 30))" ci/leaks.py -- timeout --kill-after=10 "$limit" "$@"
}

# The integration tests that start processes: they are run again with each fallback forced. Not the two that stop or
# step the zygote itself, which a fallback does without.
process_tests() {
    integration_tests | grep -vE '^--test=(stepkill_sync|layering|platform|examples|fallbacks|ui|flags|model|top|connection(_fd|_limits)?|fuzz_.*|family_queues|asynchronous|bindings|.*browser.*)$' |
        grep -vxFf <(sync_tests)
}

# Those of shared memory and synchronisation: they are run again without futex_waitv.
sync_tests() {
    integration_tests | grep -E "^--test=($sync)$"
}
sync='storm_(sync|queue|handles)|lock|mutex|rwlock|once|rlock|deadlock|semaphore|condition|event|barrier|value|array|family|queue(_.*)?|ready'

integration_tests() {
    local path name
    for path in crates/*/tests/*.rs crates/*/tests/*/main.rs; do
        [ -e "$path" ] || continue
        name=${path#*/tests/}
        name=${name%/main.rs}
        echo "--test=${name%.rs}"
    done
}

# All is built once: other packages or features chosen would be other builds, of the dependencies too.
cargo_test=(cargo test --workspace --features forkyard/tokio --no-fail-fast)

# The command that makes its argument pid 1 of a new pid namespace, if this machine allows it.
as_pid_1() {
    local new="unshare --pid --fork --mount-proc --kill-child"
    if [ "$(id -u)" != 0 ]; then
        new="${new/unshare/unshare --user --map-root-user}"
    fi
    $new true 2>/dev/null && echo "$new"
}

step "format" 120 cargo fmt --all --check
step "lints" 900 cargo clippy --quiet --workspace --all-targets --features forkyard/tokio -- -D warnings
step "build" 900 "${cargo_test[@]}" --no-run
mapfile -t ordinary < <(integration_tests | grep -vxE -e '--test=(stepkill_sync|model)')
tests "unit and integration tests" 900 "${cargo_test[@]}" --lib --bins "${ordinary[@]}"
step "documentation" 300 env RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --features forkyard/tokio
tests "doc tests" 300 "${cargo_test[@]}" --doc

# Every instruction, and every order of steps: in optimised code both are a tenth.
exhaustive=(cargo test --profile exhaustive -p forkyard)
step "build what is exhaustive" 600 "${exhaustive[@]}" --no-run --test=stepkill_sync --test=model
tests "killed after each instruction" 300 "${exhaustive[@]}" --test=stepkill_sync
tests "killed after each instruction, without futex-waitv" 300 \
    env FORKYARD_TEST_FALLBACK=futex-waitv "${exhaustive[@]}" --test=stepkill_sync
tests "every order of steps" 300 "${exhaustive[@]}" --test=model

mapfile -t again < <(process_tests)
for fallback in clone3 all; do
    tests "without $fallback" 480 env FORKYARD_TEST_FALLBACK=$fallback "${cargo_test[@]}" --quiet "${again[@]}"
done
# The server starts its processes in the same way without that and without everything.
mapfile -t again_here < <(process_tests | grep -v serve)
tests "without clone-parent" 300 env FORKYARD_TEST_FALLBACK=clone-parent "${cargo_test[@]}" --quiet "${again_here[@]}"
tests "without close-range and pidfd-info" 240 \
    env FORKYARD_TEST_FALLBACK=close-range,pidfd-info "${cargo_test[@]}" --quiet \
    --test=process --test=lifetime --test=waiting --test=identity --test=surroundings --test=command
tests "servers without memfd-exec" 180 \
    env FORKYARD_TEST_FALLBACK=memfd-exec "${cargo_test[@]}" --quiet --test=serve
mapfile -t again_sync < <(sync_tests)
tests "without futex-waitv" 480 \
    env FORKYARD_TEST_FALLBACK=futex-waitv "${cargo_test[@]}" --quiet --lib "${again_sync[@]}"
runner=$(as_pid_1)
if [ -n "$runner" ]; then
    target=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    tests "as pid 1 of a pid namespace" 480 \
        env "CARGO_TARGET_${target}_RUNNER=$runner" "${cargo_test[@]}" --quiet "${again[@]}"
else
    echo "as pid 1 of a pid namespace: skipped: this machine does not let us make one"
fi

tests "kill storm" 180 ci/storm.py --connections 10000 target/debug/forkyard
tests "kill storm, prefork" 120 ci/storm.py --connections 5000 --server=--mode --server=prefork target/debug/forkyard
if [ -n "$runner" ]; then
    tests "kill storm, the server as pid 1" 120 \
        ci/storm.py --connections 3000 --launcher "$runner" target/debug/forkyard
fi

tests "status page in a browser" 120 ci/browser.py target/debug/forkyard

# The Python package, where there is a Python for it.
versions=$(ci/python.sh versions)
if [ -n "$versions" ]; then
    # As a user builds it, but in less time.
    step "python: build" 900 env CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 ci/python.sh build
    mapfile -t versions <<<"$versions"
    tests "python ${versions[*]}" 1200 ci/python.sh tests "${versions[@]}"
fi

# cargo's and pytest's own counts, plus one for each step.
read -r passed failed < <(awk '
    /^test result: /{p += $4; f += $6}
    / in [0-9.]+s( \([0-9:]+\))?$/{for (i = 2; i <= NF; i++) {if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^(failed|errors?),?$/) f += $(i-1)}}
    END {print p + 0, f + 0}' "$logs"/*.log)
passed=$((passed + steps_passed))
echo
if [ ${#failed_steps[@]} -gt 0 ]; then
    printf 'failed step: %s\n' "${failed_steps[@]}"
    failed=$((failed + ${#failed_steps[@]}))
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
