#!/usr/bin/env python3
"""leaks.py [--grace SECONDS] -- COMMAND…: runs the command, then checks that nothing of it remains.

Looked for: living processes (this script is the subreaper of all that the command starts, so an orphan cannot
hide, whatever its session or environment), entries in /dev/shm, and files in the temporary directory, which is
a fresh one. What is found is named, removed, and makes the exit code 1; otherwise the command's own is passed on.
"""

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from procfs import descendants

PR_SET_CHILD_SUBREAPER = 36
# A browser keeps its own house; what it drops is not ours to judge.
FOREIGN = (".org.chromium.", ".com.google.", "org.chromium.", "com.google.")


def shm_entries():
    try:
        return {name for name in os.listdir("/dev/shm") if not name.startswith(FOREIGN)}
    except FileNotFoundError:
        return set()


def describe(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        return f"process {pid} [{fields['Name'].strip()}] state {fields['State'].strip()}: {command or '-'}"
    except OSError:
        return f"process {pid}"


def reap():
    """Reaps orphans as init does; returns once there is nothing more to reap right now."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def run(command, environment):
    main = subprocess.Popen(command, env=environment).pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(main, number))
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == main:
            return os.waitstatus_to_exitcode(status)


def wait_gone(grace):
    deadline = time.monotonic() + grace
    while True:
        reap()
        left = descendants(os.getpid())
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(0.02)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grace", type=float, default=2.0, help="seconds that processes may take to end")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit("leaks: failed to become subreaper")
    shm_before = shm_entries()
    scratch = tempfile.mkdtemp(prefix="fy-test-")
    os.chmod(scratch, 0o1777)  # as /tmp: tests run programs from it as other users
    code = run(arguments.command, {**os.environ, "TMPDIR": scratch})

    found = []
    left = wait_gone(arguments.grace)
    found += [describe(pid) for pid in left]
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        left = wait_gone(0.5)
    found += [f"/dev/shm/{name}" for name in sorted(shm_entries() - shm_before)]
    found += [f"temporary file {name}" for name in sorted(os.listdir(scratch)) if not name.startswith(FOREIGN)]
    shutil.rmtree(scratch, ignore_errors=True)

    for what in found:
        print(f"leaks: {what}", flush=True)
    if code < 0:
        code = 128 - code
    sys.exit(code or (1 if found else 0))


if __name__ == "__main__":
    main()
