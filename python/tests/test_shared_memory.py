"""Shared memory by a name, and what is left of it."""

import errno
import multiprocessing.shared_memory
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import end, eventually, start

import forkyard
from forkyard.shared_memory import ShareableList, SharedMemory

MIB = 1 << 20
FILES = Path("/dev/shm")


def write(name, data):
    memory = SharedMemory(name)
    memory.buf[: len(data)] = data
    memory.close()


def create(names):
    memory = SharedMemory(create=True, size=100_000)
    memory.buf[:5] = b"child"
    names.put(memory.name)
    memory.close()


def run(ctx, target, *args):
    end(start(ctx, target, *args))


def test_others_attach_by_its_name(ctx):
    memory = SharedMemory(create=True, size=1000)
    assert memory.size == len(memory.buf) == 1000
    assert bytes(memory.buf) == bytes(1000)
    run(ctx, write, memory.name, b"hello")
    assert bytes(memory.buf[:5]) == b"hello"
    memory.close()
    again = SharedMemory(memory.name)
    assert bytes(again.buf[:5]) == b"hello"
    again.close()
    memory.unlink()
    for call in (memory.unlink, lambda: SharedMemory(memory.name)):
        with pytest.raises(FileNotFoundError):
            call()


def test_it_is_there_when_its_creator_has_ended(ctx):
    names = ctx.Queue()
    run(ctx, create, names)
    memory = SharedMemory(names.get())
    assert bytes(memory.buf[:5]) == b"child"
    memory.unlink()
    # Whoever has it goes on.
    memory.buf[:5] = b"still"
    memory.close()


def create_and_wait(names):
    create(names)
    signal.pause()


def test_it_is_there_when_its_creator_was_killed(ctx):
    names = ctx.Queue()
    creator = start(ctx, create_and_wait, names)
    name = names.get()
    before = SharedMemory(name)
    creator.kill()
    creator.join()
    after = SharedMemory(name)
    assert bytes(before.buf[:5]) == bytes(after.buf[:5]) == b"child"
    after.unlink()
    with pytest.raises(FileNotFoundError):
        SharedMemory(name)
    before.close()
    after.close()


OTHER = """
import sys
from forkyard.shared_memory import SharedMemory
memory = SharedMemory(sys.argv[1])
print(bytes(memory.buf[:5]), memory.size)
memory.buf[:5] = b"other"
if len(sys.argv) > 2:
    memory.unlink()
"""


def other_program(*args):
    command = [sys.executable, "-W", "error", "-c", OTHER, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("name", [None, f"forkyard-test-{os.getpid()}"])
def test_another_program_attaches_and_ends_and_it_is_still_there(name):
    memory = SharedMemory(name, create=True, size=1000)
    for data in (b"first", b"other"):
        memory.buf[:5] = data
        assert other_program(memory.name) == f"{data!r} 1000\n"
        assert bytes(memory.buf[:5]) == b"other"
        SharedMemory(memory.name).close()
    other_program(memory.name, "unlink")
    with pytest.raises(FileNotFoundError):
        SharedMemory(memory.name)
    # It is nobody else's memory by now.
    more = [SharedMemory(create=True, size=1000) for _ in range(20)]
    assert bytes(memory.buf[:5]) == b"other"
    for other in more:
        other.unlink()
        other.close()
    memory.close()


def test_a_name_of_ones_own_is_the_systems():
    name = f"forkyard-own-{os.getpid()}"
    memory = SharedMemory(name, create=True, size=4000)
    assert memory.name == name
    assert (FILES / name).stat().st_size == 4000
    theirs = multiprocessing.shared_memory.SharedMemory(name, track=False) if sys.version_info >= (3, 13) else None
    if theirs is not None:
        theirs.buf[0] = 7
        assert memory.buf[0] == 7
        theirs.close()
    with pytest.raises(FileExistsError):
        SharedMemory(name, create=True, size=4000)
    memory.close()
    memory.unlink()
    assert not (FILES / name).exists()


def test_a_name_that_was_given_is_taken():
    memory = SharedMemory(create=True, size=10)
    with pytest.raises(FileExistsError, match=memory.name):
        SharedMemory(memory.name, create=True, size=10)
    memory.unlink()
    with pytest.raises(FileNotFoundError) as gone:
        memory.unlink()
    assert gone.value.filename == "/" + memory.name
    memory.close()


def test_what_is_wrong_is_told():
    for wrong in ({"size": -1}, {"size": 0}, {}):
        with pytest.raises(ValueError, match="size"):
            SharedMemory(create=True, **wrong)
    with pytest.raises(ValueError, match="name"):
        SharedMemory()
    with pytest.raises(FileNotFoundError):
        SharedMemory("forkyard-no-such-name")


@pytest.mark.parametrize("name", [None, f"forkyard-large-{os.getpid()}"])
def test_shortage_is_an_error(name):
    with pytest.raises(OSError, match=r"memory|space|large") as caught:
        SharedMemory(name, create=True, size=1 << 50)
    assert caught.value.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG)
    with pytest.raises(FileNotFoundError):
        SharedMemory(name or "x")


def test_who_looks_at_it_keeps_it():
    memory = SharedMemory(create=True, size=10)
    view = memory.buf[2:5]
    memory.close()
    memory.unlink()
    others = [SharedMemory(create=True, size=10) for _ in range(20)]
    view[:] = b"abc"
    for other in others:
        assert bytes(other.buf) == bytes(10)
        other.unlink()
    assert bytes(view) == b"abc"


def change(items):
    items[0] = "changed"
    items.shm.close()


def test_a_list_is_shared(ctx):
    items = ShareableList(["something", 1, 2.5, None, True, b"bytes"])
    run(ctx, change, items)
    assert list(items) == ["changed", 1, 2.5, None, True, b"bytes"]
    assert ShareableList(name=items.shm.name)[1] == 1
    items.shm.close()
    items.shm.unlink()


CREATOR = """
import os, signal, sys
from forkyard import Process
from forkyard.shared_memory import SharedMemory
memory = SharedMemory(create=True, size=1 << 20)
named = SharedMemory(sys.argv[2], create=True, size=1000) if len(sys.argv) > 2 else None
print(memory.name, flush=True)
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["kill", "end"])
def test_a_creator_leaves_nothing_however_it_ends(program, how):
    name = f"forkyard-named-{os.getpid()}"
    done = program(CREATOR, how, *([name] if how == "end" else []))
    assert done.returncode == (-signal.SIGKILL if how == "kill" else 0)
    assert done.stderr == ""
    assert not {name, done.stdout.strip()} & set(os.listdir(FILES))

    def is_gone():
        try:
            SharedMemory(done.stdout.strip()).close()
        except FileNotFoundError:
            return True
        return False

    eventually(is_gone, 30)


# In a mount namespace of its own: without /dev/shm at all, or with a small one.
WITHOUT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, flags, data=None):
    if libc.mount(source, target, kind, flags, data) != 0:
        print("skip", os.strerror(ctypes.get_errno())); sys.exit()
NEWNS, NEWUSER, PRIVATE, REC, BIND = 0x20000, 0x10000000, 1 << 18, 1 << 14, 1 << 12
if libc.unshare(NEWNS) != 0 and libc.unshare(NEWNS | NEWUSER) != 0:
    print("skip", os.strerror(ctypes.get_errno())); sys.exit()
mount(None, b"/", None, PRIVATE | REC)
if sys.argv[1] == "none":
    null = os.open("/dev/null", os.O_RDWR)
    mount(b"tmpfs", b"/dev", b"tmpfs", 0)
    open("/dev/null", "w").close()
    mount(b"/proc/self/fd/%d" % null, b"/dev/null", None, BIND)
    assert not os.path.exists("/dev/shm")
else:
    mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1m")
sys.argv.pop(1)
"""

USES = """
import forkyard
from forkyard.shared_memory import ShareableList, SharedMemory

def use(queue, value, array, lock, name):
    with lock, value.get_lock():
        value.value += 1
        array[1] = 2.5
    memory = SharedMemory(name)
    memory.buf[:5] = b"child"
    memory.close()
    queue.put(b"x" * (8 << 20))

if __name__ == "__main__":
    for method in ("zygote", "fork", "spawn", "forkserver"):
        ctx = forkyard.get_context(method)
        queue, value, array, lock = ctx.Queue(), ctx.Value("i", 1), ctx.Array("d", 1_000_000), ctx.Lock()
        for name in (None, "forkyard-" + method):
            memory = SharedMemory(name, create=True, size=8 << 20)
            process = ctx.Process(target=use, args=(queue, value, array, lock, memory.name))
            process.start()
            process.join()
            assert process.exitcode == 0
            assert queue.get() == b"x" * (8 << 20)
            assert bytes(memory.buf[:5]) == b"child"
            memory.buf[-1] = 1
            memory.close()
            memory.unlink()
        assert value.value == 3 and array[1] == 2.5
    print("done")
"""


@pytest.mark.parametrize("there", ["none", "small"])
def test_it_needs_no_directory_for_it(program, there, tmp_path):
    uses = tmp_path / "uses.py"
    uses.write_text(USES)
    done = program(WITHOUT + f"\nos.execv(sys.executable, [sys.executable, {str(uses)!r}])", there)
    if done.stdout.startswith("skip"):
        pytest.skip(f"no mounts here: {done.stdout}")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


KILLED = """
import os, signal, sys
import forkyard
from forkyard.shared_memory import SharedMemory

def use(name):
    SharedMemory(name).close()

if __name__ == "__main__":
    first, second, taken = sys.argv[2:]
    ctx = forkyard.get_context(sys.argv[1])
    memory = SharedMemory(first, create=True, size=1000)
    child = ctx.Process(target=use, args=(first,))
    child.start()
    child.join()
    # Named when there was a server already; and one that belongs to somebody else by now.
    others = [SharedMemory(name, create=True, size=1000) for name in (second, taken)]
    others[1].unlink()
    open("/dev/shm/" + taken, "x").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("method", ["zygote", "forkserver"])
def test_names_of_a_killed_program_are_removed_by_its_server(program, method):
    names = [f"forkyard-{word}-{os.getpid()}" for word in ("first", "second", "taken")]
    done = program(KILLED, method, *names)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    eventually(lambda: not set(names[:2]) & set(os.listdir(FILES)), 30)
    (FILES / names[2]).unlink()


def test_the_classes_are_the_standard_librarys():
    memory = SharedMemory(create=True, size=1)
    assert isinstance(memory, multiprocessing.shared_memory.SharedMemory)
    memory.close()
    memory.unlink()
    assert forkyard.shared_memory.SharedMemory is SharedMemory
