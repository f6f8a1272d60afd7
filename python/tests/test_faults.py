"""What goes wrong in real programs, with every start method: somebody is killed, and that is all.

What happens to queues and to shared memory is in test_queues and test_shared_memory.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings

import pytest
from conftest import eventually, members, state

import forkyard

WAITERS = 4


def nothing():
    pass


def sleep(told):
    told.put(os.getpid())
    signal.pause()


def hold(lock, told):
    lock.acquire()
    told.put("held")
    signal.pause()


def wait_for(lock, rounds, told):
    warnings.simplefilter("ignore", forkyard.OwnerDiedWarning)
    while rounds.get():
        told.put("waits")
        if lock.acquire(timeout=200):
            told.put(os.getpid())
            lock.release()


@pytest.mark.parametrize("kind", ["Lock", "RLock", "BoundedSemaphore"])
@pytest.mark.filterwarnings("ignore::forkyard.OwnerDiedWarning")
def test_a_lock_whose_holder_ends_goes_to_all_who_wait(ctx, kind):
    lock, told, rounds = getattr(ctx, kind)(), ctx.SimpleQueue(), ctx.SimpleQueue()
    processes = [ctx.Process(target=wait_for, args=(lock, rounds, told)) for _ in range(WAITERS)]
    for process in processes:
        process.start()
    for end in ("kill", "terminate"):
        for waiters in (0, WAITERS):
            holder = ctx.Process(target=hold, args=(lock, told))
            holder.start()
            assert told.get() == "held"
            for _ in range(waiters):
                rounds.put(True)
            assert [told.get() for _ in range(waiters)] == ["waits"] * waiters
            getattr(holder, end)()
            holder.join()
            assert all(isinstance(told.get(), int) for _ in range(waiters))
            assert lock.acquire(timeout=200)
            lock.release()
    for _ in processes:
        rounds.put(False)
    for process in processes:
        process.join()
        assert process.exitcode == 0


def wait_once(condition, told):
    with condition:
        told.put("waits")
        told.put(condition.wait(timeout=200))


def test_a_notify_does_not_wait_for_a_waiter_that_was_killed(ctx):
    condition, told = ctx.Condition(), ctx.SimpleQueue()
    killed, *others = (ctx.Process(target=wait_once, args=(condition, told)) for _ in range(3))
    for process in (killed, *others):
        process.start()
    assert [told.get() for _ in range(3)] == ["waits"] * 3
    with condition:
        # All of them wait now: they have let go of the lock.
        pass
    killed.kill()
    killed.join()
    with condition:
        condition.notify_all()
    assert [told.get() for _ in others] == [True] * 2
    for process in others:
        process.join()


def party(barrier, told):
    try:
        barrier.wait(200)
    except threading.BrokenBarrierError:
        told.put("broken")


def test_a_barrier_breaks_when_a_party_is_killed(ctx):
    barrier, told = ctx.Barrier(3), ctx.SimpleQueue()
    killed, other = (ctx.Process(target=party, args=(barrier, told)) for _ in range(2))
    killed.start()
    other.start()
    eventually(lambda: barrier.n_waiting == 2)
    killed.kill()
    assert told.get() == "broken"
    for process in (killed, other):
        process.join()


def test_children_that_nobody_joins_are_no_zombies(ctx):
    foreign = subprocess.Popen(["true"])
    disposition = signal.getsignal(signal.SIGCHLD)
    processes = [ctx.Process(target=nothing) for _ in range(20)]
    for process in processes:
        process.start()
    pids = [process.pid for process in processes]
    eventually(lambda: all(state(pid) is None for pid in pids))
    assert [process.exitcode for process in processes] == [0] * 20
    # The program's own child is left to the program.
    eventually(lambda: state(foreign.pid) == "Z")
    assert os.waitpid(foreign.pid, 0) == (foreign.pid, 0)
    foreign.returncode = 0
    assert signal.getsignal(signal.SIGCHLD) is disposition


def test_a_status_that_somebody_else_took_is_no_hang(method):
    if method == "forkserver":
        pytest.skip("its children are not this process's")
    ctx = forkyard.get_context(method)
    told = ctx.SimpleQueue()
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = ctx.Process(target=sleep, args=(told,))
        process.start()
        told.get()
        process.kill()
        process.join()
        for _ in range(3):
            quick = ctx.Process(target=nothing)
            quick.start()
            quick.join()
            assert quick.exitcode in (0, 255)
            quick.close()
    finally:
        signal.signal(signal.SIGCHLD, old)
    # What the kernel still knows of it; the code that stands for an unknown one where that is nothing.
    assert process.exitcode in (-signal.SIGKILL, 255)
    assert not process.is_alive()


ORPHANS = """
import concurrent.futures, os, signal, subprocess, sys, time
import forkyard as multiprocessing

def busy(queue):
    queue.put(os.getpid())
    time.sleep(600)

def main(ctx):
    queue = ctx.Queue()
    daemons = [ctx.Process(target=busy, args=(queue,), daemon=True) for _ in range(3)]
    for daemon in daemons:
        daemon.start()
    manager = ctx.Manager()
    shared = manager.list()
    # All have tasks that last: nobody is to end because it has nothing to do.
    pool = ctx.Pool(2)
    pool.map_async(busy, [shared_queue(manager)] * 2)
    managers_pool = manager.Pool(2)
    managers_pool.map_async(time.sleep, [600] * 2)
    executor = concurrent.futures.ProcessPoolExecutor(2, mp_context=ctx)
    executor.submit(busy, shared_queue(manager))
    for _ in daemons:
        queue.get()
    print("ready", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def shared_queue(manager):
    return manager.Queue()

if __name__ == "__main__":
    main(multiprocessing.get_context(sys.argv[1]))
"""


def test_nothing_is_left_of_a_killed_parent(method, tmp_path, request):
    path = tmp_path / "program.py"
    path.write_text(ORPHANS)
    # What the standard library's manager keeps in a file is left, as the program cannot say goodbye.
    directory = tempfile.TemporaryDirectory(prefix="fy", ignore_cleanup_errors=True)
    request.addfinalizer(directory.cleanup)
    command, env = [sys.executable, str(path), method], os.environ | {"TMPDIR": directory.name}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, start_new_session=True) as running:
        try:
            assert running.stdout.read(5) == b"ready"
            assert running.wait() == -signal.SIGKILL
            eventually(lambda: not members(running.pid))
        finally:
            for pid in members(running.pid):
                os.kill(pid, signal.SIGKILL)


def answer(queue, number):
    queue.put(number)


def test_sixty_queues_and_their_processes_leave_no_descriptors(ctx):
    def use(number):
        queue = ctx.Queue()
        process = ctx.Process(target=answer, args=(queue, number))
        process.start()
        assert queue.get() == number
        process.join()
        process.close()
        queue.close()
        queue.join_thread()

    use(0)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(60):
        use(number)
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)


def take_both(first, second, met, told):
    with first:
        met.wait(200)
        try:
            with second:
                told.put("both")
        except forkyard.DeadlockError:
            told.put("deadlock")


def test_one_of_two_that_wait_for_each_other_is_told(ctx):
    one, other, met, told = ctx.Lock(), ctx.Lock(), ctx.Barrier(2), ctx.SimpleQueue()
    processes = [
        ctx.Process(target=take_both, args=(one, other, met, told)),
        ctx.Process(target=take_both, args=(other, one, met, told)),
    ]
    for process in processes:
        process.start()
    assert sorted(told.get() for _ in processes) == ["both", "deadlock"]
    for process in processes:
        process.join()


THREADS = """
import sys, threading
import forkyard as multiprocessing

lock = threading.Lock()

def hold():
    while True:
        with lock:
            sum(range(1000))

def child():
    with lock:
        pass

if __name__ == "__main__":
    threading.Thread(target=hold, daemon=True).start()
    ctx = multiprocessing.get_context(*sys.argv[1:])
    for _ in range(4):
        process = ctx.Process(target=child)
        process.start()
        process.join()
        print(process.exitcode)
"""


@pytest.mark.parametrize("start", ["default", "zygote", "spawn", "forkserver"])
def test_threads_of_the_parent_are_no_obstacle(program, start):
    done = program(THREADS, *(() if start == "default" else (start,)))
    assert (done.stdout, done.stderr, done.returncode) == ("0\n" * 4, "", 0)


WARNED = """
import sys, threading, warnings
import forkyard as multiprocessing

def nothing():
    pass

def starts():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process = multiprocessing.get_context("fork").Process(target=nothing)
        process.start()
        process.join()
    return [warning.category.__name__ for warning in caught]

if __name__ == "__main__":
    print([starts() for _ in range(3)])
    unjoined = multiprocessing.Process(target=nothing)
    unjoined.start()
    print(starts())
    stop = threading.Event()
    threading.Thread(target=stop.wait).start()
    print(starts())
    stop.set()
"""


def test_a_fork_beside_other_threads_warns_as_the_standard_library_does(program):
    done = program(WARNED)
    expected = ["DeprecationWarning"] if sys.version_info >= (3, 12) else []
    assert (done.stdout, done.stderr) == (f"[[], [], []]\n[]\n{expected}\n", "")


SHARED = """
import sys
import forkyard as multiprocessing

def child(lock, event, barrier, value, array, queue):
    with lock:
        event.wait()
        value.value += 1
        array[-1] = 7
        queue.put(b"x" * (3 << 20))
        barrier.wait()

if __name__ == "__main__":
    ctx = multiprocessing.get_context(sys.argv[1])
    lock, event, barrier, queue = ctx.Lock(), ctx.Event(), ctx.Barrier(2), ctx.Queue()
    value, array = ctx.Value("i", 1), ctx.Array("i", 1 << 20)
    process = ctx.Process(target=child, args=(lock, event, barrier, value, array, queue))
    process.start()
    event.set()
    print(len(queue.get()) >> 20)
    barrier.wait()
    process.join()
    print(value.value, array[-1], process.exitcode)
"""

# A /dev of its own, in which there is no shm.
WITHOUT = """
dev=$(mktemp -d) && mount -t tmpfs none "$dev" && ln -s /proc/self/fd "$dev/fd" || exit 77
for name in null zero random urandom; do
    touch "$dev/$name" && mount --bind "/dev/$name" "$dev/$name" || exit 77
done
mount --move "$dev" /dev && rmdir "$dev" && [ ! -e /dev/shm ] || exit 77
"""
SMALL = "mount -t tmpfs -o size=1m none /dev/shm || exit 77\n"


@pytest.mark.parametrize("shm", ["none", "1 MB"])
def test_dev_shm_is_not_needed(tmp_path, method, shm):
    path = tmp_path / "program.py"
    path.write_text(SHARED)
    script = {"none": WITHOUT, "1 MB": SMALL}[shm] + 'exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, str(path), method]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) here")
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"this machine does not let us change /dev/shm: {done.stderr.strip()}")
    assert (done.stdout, done.stderr, done.returncode) == ("3\n2 7 0\n", "", 0)


PROGRAMS = """
import os, signal, subprocess, sys, time
import forkyard as multiprocessing

def runs(told):
    program = subprocess.Popen(["sleep", "600"], start_new_session=True)
    # One that nobody is the parent of.
    orphan = subprocess.run(["sh", "-c", "setsid sleep 600 > /dev/null & echo $!"], stdout=subprocess.PIPE, text=True)
    told.put((program.pid, int(orphan.stdout)))
    program.wait()

if __name__ == "__main__":
    ctx = multiprocessing.get_context(sys.argv[1])
    told = ctx.SimpleQueue()
    ctx.Process(target=runs, args=(told,), daemon=True).start()
    print(*told.get(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("method", ["zygote", "forkserver"])
def test_programs_of_daemons_end_with_a_killed_parent(program, method):
    done = program(PROGRAMS, method)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    eventually(lambda: all(state(pid) in (None, "Z") for pid in pids))
