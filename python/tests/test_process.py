"""Processes: how they begin, how they end, and what they leave."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import METHODS, eventually, members, state

import forkyard


def double(queue, number):
    queue.put(2 * number)


def nothing():
    pass


def sleep():
    time.sleep(60)


def test_a_function_runs_in_a_child(ctx):
    queue = ctx.SimpleQueue()
    process = ctx.Process(target=double, args=(queue, 21))
    process.start()
    assert queue.get() == 42
    process.join()
    assert process.exitcode == 0


def test_the_end_by_a_signal_is_told(ctx):
    process = ctx.Process(target=sleep)
    process.start()
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


SUBCLASS = """
import subprocess
import sys
import forkyard as multiprocessing

class Counter(multiprocessing.Process):
    def __init__(self, queue):
        super().__init__(name="counter")
        self.queue = queue

    def run(self):
        self.queue.put(self.name)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    queue = multiprocessing.Queue()
    process = Counter(queue)
    process.start()
    print(queue.get())
    process.join()
"""


def test_a_subclass_runs_by_the_default_method(program, method):
    done = program(SUBCLASS, method)
    assert (done.stdout, done.stderr, done.returncode) == ("counter\n", "", 0)


ORPHANS = """
import os, signal, sys, time
import forkyard as multiprocessing

def child(queue):
    queue.put(os.getpid())
    time.sleep(60)

def start(ctx, queue):
    for _ in range(3):
        ctx.Process(target=child, args=(queue,), daemon=True).start()

if __name__ == "__main__":
    ctx = multiprocessing.get_context(sys.argv[1])
    queue = ctx.SimpleQueue()
    start(ctx, queue)
    print(*[queue.get() for _ in range(3)], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_daemons_end_with_a_killed_parent(program, method, tmp_path):
    done = program(ORPHANS, method)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 3
    eventually(lambda: all(state(pid) in (None, "Z") for pid in pids))


OTHERS = """
import os, signal, sys
import forkyard as multiprocessing

def child(queue):
    queue.put(os.getpid())
    multiprocessing.parent_process().join()
    print("outlived", flush=True)

def parent(queue):
    ctx = multiprocessing.get_context(sys.argv[1])
    for daemon in (False, True):
        ctx.Process(target=child, args=(queue,), daemon=daemon).start()
    child(queue)

if __name__ == "__main__":
    ctx = multiprocessing.get_context(sys.argv[1])
    queue = ctx.SimpleQueue()
    ctx.Process(target=child, args=(queue,)).start()
    print(queue.get(), flush=True)
    if sys.argv[2] == "9":
        ctx.Process(target=parent, args=(queue,)).start()
        print(queue.get(), queue.get(), queue.get(), flush=True)
    os.kill(os.getpid(), int(sys.argv[2]))
"""


def test_whoever_is_no_daemon_ends_with_a_killed_parent_too(program, method):
    done = program(OTHERS, method, "9")
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    # They have all closed their output by now.
    assert len(done.stdout.split()) == 4
    assert "outlived" not in done.stdout
    eventually(lambda: all(state(int(pid)) in (None, "Z") for pid in done.stdout.split()))


def test_whoever_is_no_daemon_outlives_a_parent_that_was_asked_to_end(program, method):
    done = program(OTHERS, method, "15")
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
    assert done.stdout.endswith("outlived\n")


LOCK_IN_MAIN = """
import subprocess
import sys
import forkyard as multiprocessing

lock = multiprocessing.Lock()

def child(ours, queue):
    with lock, ours:
        queue.put("ok")

if __name__ == "__main__":
    ctx = multiprocessing.get_context(sys.argv[1])
    queue = ctx.SimpleQueue()
    process = ctx.Process(target=child, args=(ctx.Lock(), queue))
    process.start()
    print(queue.get())
    process.join()
"""


def test_a_lock_made_while_the_main_module_is_imported_is_no_obstacle(program, method):
    done = program(LOCK_IN_MAIN, method)
    assert (done.stdout, done.stderr, done.returncode) == ("ok\n", "", 0)


def test_a_long_temporary_directory_is_no_obstacle(program, method, tmp_path):
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    done = program(LOCK_IN_MAIN, method, TMPDIR=str(deep))
    assert (done.stdout, done.stderr, done.returncode) == ("ok\n", "", 0)


def test_starting_and_joining_keeps_no_descriptors(ctx):
    def rounds(count):
        for _ in range(count):
            process = ctx.Process(target=nothing)
            process.start()
            process.join()
            process.close()

    rounds(3)
    before = len(os.listdir("/proc/self/fd"))
    rounds(20 if ctx.get_start_method() != "spawn" else 5)
    # A spare that was not there before has one.
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)


def test_all_methods_are_there():
    assert set(METHODS) <= set(forkyard.get_all_start_methods())
    assert sys.platform == "linux"


NO_SHM = """
import subprocess
import sys
import forkyard as multiprocessing

def child(lock, event, barrier, queue):
    with lock:
        event.wait()
        queue.put(barrier.wait())

if __name__ == "__main__":
    ctx = multiprocessing.get_context(sys.argv[1])
    lock, event, barrier, queue = ctx.Lock(), ctx.Event(), ctx.Barrier(2), ctx.SimpleQueue()
    process = ctx.Process(target=child, args=(lock, event, barrier, queue))
    process.start()
    event.set()
    print(sorted([barrier.wait(), queue.get()]))
    process.join()
"""


def test_locks_need_no_dev_shm(tmp_path, method):
    path = tmp_path / "program.py"
    path.write_text(NO_SHM)
    alone = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro,mode=555 none /dev/shm && exec "$@"', "sh"]
    try:
        allowed = subprocess.run([*alone, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("this machine does not let us hide /dev/shm")
    done = subprocess.run([*alone, sys.executable, str(path), method], capture_output=True, text=True, timeout=200)
    assert (done.stdout, done.stderr, done.returncode) == ("[0, 1]\n", "", 0)


BEGINNING = """
import sys, time
import forkyard as multiprocessing

def sleep():
    time.sleep(600)

if __name__ == "__main__":
    ctx = multiprocessing.get_context(sys.argv[1])
    print("ready", flush=True)
    while True:
        # Anything true will do.
        children = [ctx.Process(target=sleep, daemon=number) for number in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.kill()
            child.join()
"""


def test_a_child_that_begins_while_its_parent_is_killed_ends_too(method, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(BEGINNING)
    for wait in (0, 0.02, 0.15):
        command = [sys.executable, str(path), method]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        ) as parent:
            try:
                assert parent.stdout.readline() == b"ready\n"
                time.sleep(wait)
                parent.kill()
                assert parent.wait() == -signal.SIGKILL
                eventually(lambda: not members(parent.pid))
            finally:
                for pid in members(parent.pid):
                    os.kill(pid, signal.SIGKILL)


def test_threads_that_start_at_once_are_told_how_each_of_their_children_ended(ctx):
    codes = []

    def run():
        for code in range(3):
            process = ctx.Process(target=sys.exit, args=(code,))
            process.start()
            process.join()
            codes.append((code, process.exitcode))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == sorted([(code, code) for code in range(3)] * 6)
