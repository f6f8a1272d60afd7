"""An interrupt from the terminal: one traceback, the parent's, and nothing is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import eventually, members, state

from forkyard import _interrupt

HEAD = """
import concurrent.futures, os, sys, time
import forkyard as multiprocessing

def sleep(told):
    told.put("ready")
    time.sleep(600)

def get(told, queue):
    told.put("ready")
    queue.get()

def acquire(told, lock):
    told.put("ready")
    lock.acquire()

def work(number):
    if number == 0:
        print("ready", flush=True)
    time.sleep(600)

def serve(told, shared):
    shared.append(1)
    told.put("ready")
    time.sleep(600)

def started(*children):
    for child in children:
        child.start()
    for child in children:
        told.get()
    print("ready", flush=True)
    return children

if __name__ == "__main__":
    ctx = multiprocessing.get_context(sys.argv[1])
    told = ctx.Queue()
"""

WAITS = """
    lock = ctx.Lock()
    lock.acquire()
    children = started(
        ctx.Process(target=sleep, args=(told,)),
        ctx.Process(target=sleep, args=(told,), daemon=True),
        ctx.Process(target=get, args=(told, ctx.Queue())),
        ctx.Process(target=get, args=(told, ctx.SimpleQueue())),
        ctx.Process(target=acquire, args=(told, lock)),
    )
    for child in children:
        child.join()
"""
POOL = """
    with ctx.Pool(3) as pool:
        pool.map(work, range(2))
"""
UNCLOSED_POOL = """
    pool = ctx.Pool(3)
    pool.map(work, range(2))
"""
EXECUTOR = """
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=ctx) as executor:
        list(executor.map(work, range(2)))
"""
MANAGER = """
    manager = ctx.Manager()
    shared = manager.list()
    (child,) = started(ctx.Process(target=serve, args=(told, shared)))
    child.join()
"""
# In a server process, or in the child.
IMPORT = """
    child = ctx.Process(target=sleep, args=(told,))
    child.start()
    child.join()
else:
    print("ready", flush=True)
    time.sleep(600)
"""


class Running:
    """A program in a session of its own."""

    def __init__(self, path, source, *args):
        path.write_text(HEAD + source)
        command = [sys.executable, str(path), *args]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Whatever runs the tests may ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def __enter__(self):
        return self

    def waits(self):
        """Nobody has run for a moment."""

        def looks():
            pids = members(self.process.pid)
            return [(state(pid), Path(f"/proc/{pid}/status").read_text().splitlines()[-2:]) for pid in pids]

        try:
            before = looks()
            time.sleep(0.1)
            return looks() == before and all(letter == "S" for letter, _ in before)
        except (FileNotFoundError, ProcessLookupError):
            return False

    def interrupt(self, settled=True):
        """What a terminal does, once everybody waits."""
        assert self.process.stdout.readline() == "ready\n"
        # A lock of the interpreter, as pools have, does not notice one that comes right before it waits.
        eventually(lambda: not settled or self.waits())
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.communicate(timeout=20)

    def __exit__(self, *_):
        for pid in members(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()


@pytest.mark.parametrize(
    "source",
    [WAITS, POOL, UNCLOSED_POOL, EXECUTOR, MANAGER, IMPORT],
    ids=["waits", "pool", "unclosed pool", "executor", "manager", "import"],
)
def test_the_parent_alone_tells_of_it(tmp_path, method, source):
    if method == "fork" and source == IMPORT:
        pytest.skip("a fork does not import the main module")
    with Running(tmp_path / "program.py", source, method) as running:
        out, err = running.interrupt()
        assert (out, running.process.returncode) == ("", -signal.SIGINT)
        assert err.count("Traceback (most recent call last)") == 1, err
        assert err.startswith("Traceback"), err
        assert err.endswith("KeyboardInterrupt\n"), err
        assert "Process " not in err
        eventually(lambda: not members(running.process.pid))


HANDLED = """
    children = started(ctx.Process(target=handle, args=(told,)), ctx.Process(target=sleep, args=(told,)))
    try:
        for child in children:
            child.join()
    except KeyboardInterrupt:
        for child in children:
            child.join()
        print(told.get(), [child.exitcode for child in children])
        # An interrupt that is over is not for whom is started later.
        for target in (quit, nothing):
            child = ctx.Process(target=target)
            child.start()
            child.join()
            print(child.exitcode)
"""
HANDLERS = """
def handle(told):
    told.put("ready")
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        told.put("handled")

def nothing():
    pass

def quit():
    sys.exit(3)

if __name__ == "__main__":
"""


def test_a_child_may_handle_it_and_whoever_is_started_later_has_none(tmp_path, method):
    with Running(tmp_path / "program.py", HANDLERS + HANDLED, method) as running:
        out, err = running.interrupt()
        assert (out, err, running.process.returncode) == ("handled [0, -2]\n3\n0\n", "", 0)


def ends_well(told, path):
    import atexit

    atexit.register(lambda: path.write_text(path.read_text() + "exit handler\n"))
    try:
        told.put("ready")
        # A pause does not notice what came right before it.
        while True:
            time.sleep(0.01)
    finally:
        path.write_text("finally\n")


def test_an_interrupted_child_ends_by_the_signal_and_in_order(ctx, tmp_path, capfd):
    told, path = ctx.SimpleQueue(), tmp_path / "log"
    child = ctx.Process(target=ends_well, args=(told, path))
    child.start()
    told.get()
    os.kill(child.pid, signal.SIGINT)
    child.join()
    assert child.exitcode == -signal.SIGINT
    assert path.read_text() == "finally\nexit handler\n"
    assert capfd.readouterr() == ("", "")


def ignore(told):
    told.put(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))


@pytest.mark.parametrize("blocked", [True, False])
def test_a_child_has_the_mask_of_whoever_starts_it(ctx, blocked):
    told = ctx.SimpleQueue()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT] if blocked else [])
    try:
        child = ctx.Process(target=ignore, args=(told,))
        child.start()
        assert told.get() is blocked
        child.join()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert (signal.SIGINT in mask) is blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


START = """
import threading

def quick():
    pass

def spin():
    while True:
        time.sleep(0.0005)

if __name__ == "__main__":
    # The kernel may give the signal to any of them.
    for _ in range(int(sys.argv[2])):
        threading.Thread(target=spin, daemon=True).start()
    queue = ctx.Queue()
    print("ready", flush=True)
    while True:
        children = [ctx.Process(target=quick), ctx.Process(target=get, args=(told, queue))]
        for child in children:
            child.start()
        queue.put(told.get())
        for child in children:
            child.join()
"""


@pytest.mark.parametrize("threads", [0, 4])
def test_an_interrupt_in_the_middle_of_starts_leaves_nobody(tmp_path, method, threads):
    for _ in range(3):
        with Running(tmp_path / "program.py", START, method, str(threads)) as running:
            out, err = running.interrupt(settled=False)
            assert (out, running.process.returncode) == ("", -signal.SIGINT)
            assert err.count("Traceback (most recent call last)") == 1, err
            eventually(lambda: not members(running.process.pid))


def test_an_interrupt_right_before_they_are_held_back_leaves_nothing_blocked(monkeypatch):
    real = signal.pthread_sigmask

    def interrupted(how, signals):
        before = real(how, signals)
        if how == signal.SIG_BLOCK and signals:
            # As the call does with one that is noted already: it raises, and has changed the mask.
            raise KeyboardInterrupt
        return before

    monkeypatch.setattr(signal, "pthread_sigmask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _interrupt.held(pytest.fail)
    assert signal.SIGINT not in real(signal.SIG_BLOCK, ())
    assert _interrupt.mask() == real(signal.SIG_BLOCK, ())


IN_BETWEEN = """
class Interrupts:
    def __reduce__(self):
        # As a thread does that takes the signal, while the mask of this one has it blocked.
        import _thread
        _thread.interrupt_main()
        return int, ()

if __name__ == "__main__":
    child = ctx.Process(target=print, args=("begun", Interrupts()), kwargs={"flush": True})
    print("ready", flush=True)
    try:
        child.start()
    except KeyboardInterrupt:
        print(child.pid is None, multiprocessing.active_children(), flush=True)
        raise
"""


def test_one_that_another_thread_takes_is_raised_before_the_child_is_made(tmp_path, method):
    if method == "fork":
        pytest.skip("nothing is written down for a fork")
    with Running(tmp_path / "program.py", IN_BETWEEN, method) as running:
        out, err = running.process.communicate(timeout=20)
        assert (out, running.process.returncode) == ("ready\nTrue []\n", -signal.SIGINT)
        assert err.count("Traceback (most recent call last)") == 1, err
        eventually(lambda: not members(running.process.pid))
