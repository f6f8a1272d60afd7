"""The zygote: what its children find around them, and what happens to it."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import eventually, state

import forkyard
from forkyard import _launch, _zygote

ctx = forkyard.get_context("zygote")


def child(told):
    told.put((os.getpid(), os.getppid()))


def started():
    """A child of the zygote, which has ended: its pid and its parent's."""
    told = ctx.SimpleQueue()
    process = ctx.Process(target=child, args=(told,))
    process.start()
    pid, parent = told.get()
    process.join()
    assert (process.pid, process.exitcode) == (pid, 0)
    return pid, parent


def test_its_children_are_the_callers_own():
    _, parent = started()
    assert parent == os.getpid()
    assert _zygote._zygote.server.pid != parent


def test_a_killed_one_is_replaced():
    started()
    killed = _zygote._zygote.server.pid
    os.kill(killed, signal.SIGKILL)
    # The first one may have been made before.
    assert {started()[1] for _ in range(3)} == {os.getpid()}
    assert _zygote._zygote.server.pid != killed
    eventually(lambda: state(killed) is None)


def test_one_that_is_killed_while_a_start_is_made_ready_is_replaced(monkeypatch):
    started()
    ready = _zygote._zygote.ready
    looks = []

    def killed_after_the_first_look(wanted):
        server = ready(wanted)
        looks.append(server.pid)
        if len(looks) == 1:
            os.kill(server.pid, signal.SIGKILL)
            eventually(lambda: not server.lives())
        return server

    send = _launch.Server.send
    sent = []

    def noted(self, packet, fds):
        sent.append((self.pid, fds[0]))
        send(self, packet, fds)

    monkeypatch.setattr(_zygote._zygote, "ready", killed_after_the_first_look)
    monkeypatch.setattr(_launch.Server, "send", noted)
    assert started()[1] == os.getpid()
    assert len(looks) == 2
    # What belonged to the first one is closed, and its number may be somebody else's.
    assert (looks[1], _zygote._zygote.cradle.fileno()) in sent


def test_a_stopped_one_is_replaced(monkeypatch):
    monkeypatch.setattr(_zygote, "_PATIENCE", 0.5)
    started()
    stopped = _zygote._zygote.server.pid
    os.kill(stopped, signal.SIGSTOP)
    # The first one may have been made before. What would be made in the end is not made twice.
    assert {started()[1] for _ in range(3)} == {os.getpid()}
    eventually(lambda: state(stopped) is None)


def test_a_killed_spare_is_replaced():
    for _ in range(3):
        started()
        eventually(lambda: len(zygotes_children()) == 1)
        (spare,) = zygotes_children()
        os.kill(spare, signal.SIGKILL)
        eventually(lambda: state(spare) in (None, "Z"))  # noqa: B023
        assert started()[1] == os.getpid()
        eventually(lambda: state(spare) is None)  # noqa: B023


def zygotes_children():
    """Children of this process that wait for something to do."""
    born = _zygote._zygote.cradle.born()
    return [born] if born and _zygote._zygote.spare is not None and state(born) not in (None, "Z") else []


def interrupted(told):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        told.put("ready")
        # A pause does not notice what came right before it.
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        told.put("interrupted")


def test_an_interrupt_is_for_its_children_and_not_for_it():
    started()
    zygote = _zygote._zygote.server.pid
    os.kill(zygote, signal.SIGINT)
    told = ctx.SimpleQueue()
    process = ctx.Process(target=interrupted, args=(told,))
    process.start()
    assert told.get() == "ready"
    os.kill(process.pid, signal.SIGINT)
    assert told.get() == "interrupted"
    process.join()
    assert _zygote._zygote.server.pid == zygote


SURROUNDINGS = """
import os, sys
import forkyard

imported = os.environ.get("WHEN", "unset")

def child():
    print(os.getcwd(), os.environ.get("WHEN"), sys.argv, sys.path[-1], flush=True)

def start():
    process = forkyard.Process(target=child)
    process.start()
    process.join()

if __name__ == "__main__":
    start()
    os.chdir("/")
    os.environ["WHEN"] = "later"
    sys.argv.append("later")
    sys.path.append("/later")
    start()
    del os.environ["WHEN"]
    # Standard output is another one now.
    out = os.open(os.environ["LOG"], os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    start()
"""


def test_a_child_finds_the_callers_surroundings_as_they_are_now(program, tmp_path):
    log = tmp_path / "log"
    done = program(SURROUNDINGS, WHEN="first", LOG=str(log))
    assert done.stderr == ""
    path = tmp_path / "program.py"
    first, later = done.stdout.splitlines()
    assert first.startswith(f"{os.getcwd()} first ['{path}'] ")
    assert later == f"/ later ['{path}', 'later'] /later"
    assert log.read_text() == f"/ None ['{path}', 'later'] /later\n"


ONCE = """
import os
import forkyard

with open(os.environ["LOG"], "a") as log:
    print(__name__, file=log)

def child():
    pass

if __name__ == "__main__":
    for _ in range(5):
        process = forkyard.Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0
"""


def test_the_main_module_is_imported_once(program, tmp_path):
    done = program(ONCE, LOG=str(tmp_path / "log"))
    assert done.stderr == ""
    assert (tmp_path / "log").read_text() == "__main__\n__mp_main__\n"


UNGUARDED = """
import forkyard

def child():
    pass

process = forkyard.Process(target=child)
process.start()
process.join()
print(process.exitcode)
"""


def test_a_main_module_without_a_guard_is_told(program):
    done = program(UNGUARDED)
    assert done.stdout == "1\n"
    assert "before the" in done.stderr


EXITS = """
import os, sys
import forkyard

def child():
    pass

if __name__ != "__main__":
    os._exit(3)
if __name__ == "__main__":
    process = forkyard.Process(target=child)
    process.start()
    process.join()
    print(process.exitcode)
"""


def test_a_main_module_that_ends_the_process_ends_the_child_alone(program):
    assert program(EXITS).stdout == "3\n"


TYPED = """
import forkyard as multiprocessing

def child(queue):
    queue.put("hello")

if __name__ == "__main__":
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=child, args=(queue,))
    process.start()
    print(queue.get(), multiprocessing.get_start_method())
    process.join()
"""


@pytest.mark.parametrize("how", ["-c", "-"])
def test_a_program_that_is_in_no_file(how):
    words = ["-c", TYPED] if how == "-c" else ["-"]
    done = subprocess.run([sys.executable, *words], input=TYPED, capture_output=True, text=True, timeout=200)
    assert (done.stdout, done.stderr) == ("hello zygote\n", "")


NOWHERE = """
import os
import forkyard

def child(queue):
    queue.put(os.readlink("/proc/self/cwd"))

if __name__ == "__main__":
    queue = forkyard.SimpleQueue()
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")
    for _ in range(2):
        process = forkyard.Process(target=child, args=(queue,))
        process.start()
        print(queue.get())
        process.join()
    os.chdir("/")
    process = forkyard.Process(target=child, args=(queue,))
    process.start()
    print(queue.get())
    process.join()
"""


def test_a_working_directory_that_was_removed_is_no_obstacle(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = program(NOWHERE)
    gone = f"{tmp_path}/gone (deleted)\n"
    assert (done.stdout, done.stderr, done.returncode) == (gone * 2 + "/\n", "", 0)


FROZEN = """
import sys
import forkyard

def child(queue):
    queue.put("hello")

if __name__ == "__main__":
    sys.frozen = True
    # A frozen program is its own executable.
    forkyard.set_executable("/bin/false")
    queue = forkyard.Queue()
    process = forkyard.Process(target=child, args=(queue,))
    process.start()
    print(queue.get())
    process.join()
    try:
        forkyard.get_context("forkserver").Process(target=child).start()
    except RuntimeError as error:
        print(error)
"""


def test_a_frozen_program_is_copied_and_not_started_again(program):
    done = program(FROZEN)
    assert done.stderr == ""
    assert done.stdout.startswith("hello\na frozen program has no interpreter")


REFUSED = """
import os
import forkyard
from forkyard import _zygote

def child(queue, data):
    queue.put((os.getppid(), len(data)))

def inner(queue):
    assert forkyard.get_start_method() == "zygote"
    process = forkyard.Process(target=child, args=(queue, b"x" * 1000000))
    process.start()
    process.join()

if __name__ == "__main__":
    queue = forkyard.Queue()
    for target, args in ((child, (b"",)), (inner, ())):
        process = forkyard.Process(target=target, args=(queue, *args))
        process.start()
        process.join()
        assert process.exitcode == 0
    answers = queue.get(), queue.get()
    print(answers[0][0] == os.getpid(), answers[1][1])
"""


def test_where_siblings_are_refused_a_fork_server_does_it(program):
    done = program(REFUSED, FORKYARD_TEST_FALLBACK="clone-parent")
    assert (done.stdout, done.stderr, done.returncode) == ("False 1000000\n", "", 0)


def test_children_have_zygotes_of_their_own(program):
    done = program(REFUSED)
    assert (done.stdout, done.stderr, done.returncode) == ("True 1000000\n", "", 0)


def test_in_the_first_process_of_a_namespace(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(REFUSED)
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) here")
    if "unshare:" in done.stderr:
        pytest.skip(f"this machine does not let us make a namespace: {done.stderr.strip()}")
    assert (done.stdout, done.stderr, done.returncode) == ("True 1000000\n", "", 0)


THREAD_IN_MAIN = """
import threading
import forkyard

threading.Thread(target=threading.Event().wait, daemon=True).start()

def child(queue):
    queue.put("hello")

if __name__ == "__main__":
    queue = forkyard.Queue()
    process = forkyard.Process(target=child, args=(queue,))
    process.start()
    print(queue.get())
    process.join()
"""


def test_a_main_module_that_starts_threads(program):
    done = program(THREAD_IN_MAIN)
    assert (done.stdout, done.returncode) == ("hello\n", 0)


def test_a_spare_that_is_killed_while_it_waits_is_no_zombie():
    for _ in range(3):
        started()
        # Whoever joins a child looks after the spare, once that one is there.
        eventually(lambda: started() and _zygote._zygote.made is not None)
        spare = _zygote._zygote.made[0]
        os.kill(spare, signal.SIGKILL)
        eventually(lambda: state(spare) is None)  # noqa: B023
        assert started()[1] == os.getpid()
