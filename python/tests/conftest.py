"""The start method as a parameter, a deadline for each test, and programs that run in a process of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import forkyard

# Children import the module with the test in it, and that imports this. What they find for pytest is short.
CHILDREN = str(Path(__file__).parent / "children")
if CHILDREN not in sys.path:
    sys.path.insert(0, CHILDREN)

# With it, lines of several processes come in pieces.
os.environ.pop("PYTHONUNBUFFERED", None)

METHODS = ("zygote", "fork", "spawn", "forkserver")
DEADLINE = 240


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def ctx(method: str):
    return forkyard.get_context(method)


@pytest.fixture(params=("Queue", "SimpleQueue", "JoinableQueue"))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def make(ctx, kind: str):
    """A queue of that kind."""
    return getattr(ctx, kind)()


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """A test that hangs fails with its stack."""

    def passed(*_: object) -> None:
        pytest.fail(f"still running after {DEADLINE} s")

    old = signal.signal(signal.SIGALRM, passed)
    signal.alarm(DEADLINE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


# Without a buffer a line and its end are written one by one, and another process may write between them.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in a new interpreter and session; whatever it leaves is killed."""

    def run(source: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(source))
        # A program that is killed leaves what the standard library keeps there; and socket addresses are short.
        directory = tempfile.TemporaryDirectory(prefix="fy", ignore_cleanup_errors=True)
        request.addfinalizer(directory.cleanup)
        command = [sys.executable, "-W", "error::ResourceWarning", str(path), *args]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=BUFFERED | {"TMPDIR": directory.name} | env,
            start_new_session=True,
        ) as running:
            try:
                out, err = running.communicate(timeout=DEADLINE - 10)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
        return subprocess.CompletedProcess(command, running.returncode, out, err)

    return run


def start(ctx, target: Callable[..., object], *args: object):
    """Starts a process that does not outlive the test."""
    process = ctx.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def end(*processes) -> None:
    """Waits for processes, which end well."""
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def eventually(condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits until the condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not true after {seconds} s"
        time.sleep(0.005)


def state(pid: int) -> str | None:
    """The letter of proc(5), or None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def members(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(ProcessLookupError):
            if name.isdigit() and os.getsid(int(name)) == session and state(int(name)) not in (None, "Z"):
                found.append(int(name))
    return found
