"""Synchronisation, as the standard library has it and as its users' deaths leave it."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest
from conftest import end, eventually, start, state

import forkyard

LOCKS = ("Lock", "RLock", "BoundedSemaphore")


def hold(lock, held):
    lock.acquire()
    held.set()
    time.sleep(60)


def take(lock, taken):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lock.acquire()
    taken.put([str(warning.message) for warning in caught])
    lock.release()


def killed_holder(ctx, lock):
    held = ctx.Event()
    holder = start(ctx, hold, lock, held)
    assert held.wait(30)
    return holder


@pytest.mark.parametrize("kind", LOCKS)
def test_what_the_dead_held_is_free(ctx, kind):
    lock = getattr(ctx, kind)()
    holder = killed_holder(ctx, lock)
    assert not lock.acquire(block=False)
    holder.kill()
    holder.join()
    if kind == "BoundedSemaphore":
        assert lock.acquire(timeout=10)
        return
    with pytest.warns(forkyard.OwnerDiedWarning, match="died while it had it") as caught:
        assert lock.acquire(timeout=10)
    assert caught[0].filename == __file__
    lock.release()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lock.acquire(timeout=10)


@pytest.mark.parametrize("kind", LOCKS)
def test_four_waiters_of_the_dead_all_get_their_turn(ctx, kind):
    lock, taken = getattr(ctx, kind)(), ctx.SimpleQueue()
    holder = killed_holder(ctx, lock)
    waiters = [start(ctx, take, lock, taken) for _ in range(4)]
    holder.terminate()
    told = [warning for _ in waiters for warning in taken.get()]
    assert len(told) == (kind != "BoundedSemaphore")
    end(*waiters)
    holder.join()
    assert holder.exitcode == -signal.SIGTERM


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_lock_can_be_made_to_raise_when_its_owner_died(ctx, kind):
    lock = getattr(ctx, kind)(on_owner_death="raise")
    holder = killed_holder(ctx, lock)
    holder.kill()
    holder.join()
    with pytest.raises(forkyard.OwnerDiedError):
        lock.acquire()
    assert lock.acquire(timeout=10)


def test_a_warning_that_is_an_error_leaves_the_lock_free(ctx):
    lock = ctx.Lock()
    holder = killed_holder(ctx, lock)
    holder.kill()
    holder.join()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(forkyard.OwnerDiedWarning), lock:
            pass
    assert lock.acquire(block=False)


def test_permits_of_a_plain_semaphore_stay_as_they_are(ctx):
    semaphore = ctx.Semaphore(2)
    holder = killed_holder(ctx, semaphore)
    holder.kill()
    holder.join()
    assert semaphore.get_value() == 1


def wait(waited_for, waits):
    waits.release()
    waited_for.wait()


def test_a_killed_waiter_of_an_event_holds_up_nobody(ctx):
    event, waits = ctx.Event(), ctx.Semaphore(0)
    processes = [start(ctx, wait, event, waits) for _ in range(3)]
    for _ in processes:
        assert waits.acquire(timeout=30)
    processes[0].kill()
    processes[0].join()
    event.set()
    end(*processes[1:])
    assert event.wait(10)


def cross(one, other, have_one, go, told):
    with one:
        have_one.release()
        go.wait()
        try:
            with other:
                told.put(None)
        except forkyard.DeadlockError as error:
            told.put(str(error))


def test_one_of_two_that_wait_for_each_other_is_told(ctx):
    a, b = ctx.Lock(), ctx.RLock()
    have_one, go, told = ctx.Semaphore(0), ctx.Event(), ctx.SimpleQueue()
    pairs = [("first", a, b), ("second", b, a)]
    processes = [
        ctx.Process(target=cross, args=(one, other, have_one, go, told), name=name) for name, one, other in pairs
    ]
    for process in processes:
        process.start()
    for _ in processes:
        assert have_one.acquire(timeout=30)
    go.set()
    results = [told.get(), told.get()]
    for process in processes:
        process.join()
    texts = [result for result in results if result is not None]
    assert len(texts) == 1, results
    assert "first" in texts[0]
    assert "second" in texts[0]
    assert os.path.basename(__file__) in texts[0]


def waits_for_both(one, other, met, told):
    with one:
        met.wait()
        told.put(other.acquire(timeout=2.5))


def test_a_lock_can_be_made_for_which_nobody_looks_for_deadlocks(ctx):
    one, other = ctx.Lock(on_deadlock="wait"), ctx.RLock(on_deadlock="wait")
    met, told = ctx.Barrier(2), ctx.SimpleQueue()
    processes = [start(ctx, waits_for_both, *pair, met, told) for pair in ((one, other), (other, one))]
    # A deadlock would have been seen after a second. Who is first leaves what it has to the other one.
    assert False in [told.get(), told.get()]
    end(*processes)


def test_waiting_for_somebody_to_release_ones_own_lock_is_no_deadlock():
    lock = forkyard.Lock()
    lock.acquire()
    timer = threading.Timer(2.5, lock.release)
    timer.start()
    assert lock.acquire(timeout=20)
    timer.join()


def release(lock):
    lock.release()


def test_a_lock_is_released_by_another_process(ctx):
    lock = ctx.Lock()
    lock.acquire()
    end(start(ctx, release, lock))
    assert lock.acquire(block=False)


class AlarmError(Exception):
    pass


@pytest.mark.parametrize("make", ["Lock", "Semaphore", "BoundedSemaphore", "Event", "Condition"])
def test_a_signal_handler_runs_during_a_wait_and_may_end_it(make):
    waited_for = getattr(forkyard, make)(*([0] if "Semaphore" in make else []))
    if make == "Lock":
        waited_for.acquire()
    runs = []

    def handler(*_):
        runs.append(1)
        if len(runs) > 2:
            raise AlarmError

    old = signal.signal(signal.SIGUSR1, handler)
    timer = [threading.Timer(0.1 * n, os.kill, (os.getpid(), signal.SIGUSR1)) for n in (1, 2, 3)]
    for each in timer:
        each.start()

    def blocks():
        if make == "Condition":
            with waited_for:
                waited_for.wait(20)
        elif make == "Event":
            waited_for.wait(20)
        else:
            waited_for.acquire(timeout=20)

    try:
        with pytest.raises(AlarmError):
            blocks()
    finally:
        for each in timer:
            each.join()
        signal.signal(signal.SIGUSR1, old)
    assert len(runs) == 3


def test_time_left_is_honoured_after_signals():
    lock = forkyard.Lock()
    lock.acquire()
    old = signal.signal(signal.SIGUSR1, lambda *_: None)
    stop = threading.Event()

    def disturb():
        while not stop.wait(0.01):
            os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=disturb)
    thread.start()
    begin = time.monotonic()
    assert not lock.acquire(timeout=0.5)
    assert time.monotonic() - begin >= 0.5
    stop.set()
    thread.join()
    signal.signal(signal.SIGUSR1, old)


INTERRUPTED = """
import signal
import forkyard as multiprocessing
signal.signal(signal.SIGINT, signal.default_int_handler)
lock = multiprocessing.Lock()
with lock:
    print("waits", flush=True)
    try:
        lock.acquire()
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_ctrl_c_ends_a_wait():
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "waits\n"
        eventually(lambda: state(running.pid) == "S")
        running.send_signal(signal.SIGINT)
        assert running.communicate(timeout=20)[0] == "interrupted\n"


def test_threads_of_one_interpreter_share_a_lock():
    lock, count = forkyard.Lock(), [0]

    def work():
        for _ in range(2000):
            with lock:
                count[0] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == [8000]


def count_up(lock, value):
    for _ in range(200):
        with lock:
            value.value += 1


def test_a_counter_under_a_lock(ctx):
    lock, value = ctx.Lock(), ctx.RawValue("i")
    end(*[start(ctx, count_up, lock, value) for _ in range(4)])
    assert value.value == 800


def test_shared_objects_travel_to_children_only():
    for make in (forkyard.Lock, forkyard.RLock, forkyard.Semaphore, forkyard.BoundedSemaphore, forkyard.Event):
        with pytest.raises(RuntimeError, match="should only be shared between processes through inheritance"):
            pickle.dumps(make())


def test_a_lock_of_a_fork_context_does_not_travel_to_a_new_interpreter():
    lock = forkyard.get_context("fork").Lock()
    process = forkyard.get_context("spawn").Process(target=release, args=(lock,))
    with pytest.raises(RuntimeError, match="created in a fork context"):
        process.start()


def test_misuse_is_told_as_the_standard_library_does():
    for make in (forkyard.Lock, forkyard.BoundedSemaphore):
        with pytest.raises(ValueError, match="released too many times"):
            make().release()
    with pytest.raises(AssertionError, match="not owned by thread"):
        forkyard.RLock().release()
    with pytest.raises(ValueError, match="on_owner_death"):
        forkyard.Lock(on_owner_death="ignore")
    with pytest.raises(ValueError, match="on_deadlock must be 'raise' or 'wait', not 'warn'"):
        forkyard.RLock(on_deadlock="warn")
    for make in (forkyard.Semaphore, forkyard.BoundedSemaphore):
        with pytest.raises(OSError, match="Invalid argument"):
            make(-1)
        with pytest.raises(OverflowError):
            make(2**31)
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            make("1")
    with pytest.raises(ValueError, match="parties"):
        forkyard.Barrier(-1)


@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "BoundedSemaphore"])
def test_a_call_that_does_not_wait_says_whether_it_acquired(kind):
    lock = getattr(forkyard, kind)()
    for arguments, named in (((), {}), ((True,), {}), ((False,), {}), ((True, 5), {}), ((), {"timeout": 1.5})):
        assert lock.acquire(*arguments, **named) is True
        for refused in ({"block": False}, {"timeout": 0}, {"timeout": -1.5}, {"block": True, "timeout": 0.001}):
            assert lock.acquire(**refused) is False
        lock.release()
    for arguments, named in (((1, 2, 3), {}), ((), {"wait": 1}), ((True,), {"block": True}), ((), {"timeout": "x"})):
        with pytest.raises(TypeError):
            assert not lock.acquire(*arguments, **named)
        assert lock.acquire(False)
        lock.release()


def test_a_condition_is_notified_by_who_has_its_lock():
    for lock in (None, forkyard.Lock()):
        condition = forkyard.Condition(lock)
        for notify in (condition.notify, condition.notify_all):
            with pytest.raises(AssertionError):
                notify()
        with condition:
            condition.notify()
            condition.notify(n=3)
            condition.notify(-1)
            condition.notify_all()
            assert not condition.wait(0)


def test_a_recursive_lock_is_released_as_often_as_acquired():
    lock = forkyard.RLock()
    for _ in range(3):
        assert lock.acquire()
    assert repr(lock) == "<RLock(MainProcess, 3)>"
    for _ in range(3):
        lock.release()
    assert repr(lock) == "<RLock(None, 0)>"


def put_some(queue):
    for number in range(3):
        queue.put(number)


def test_the_places_of_a_queue_do_not_come_back_with_its_producers_end(ctx):
    queue = ctx.Queue(3)
    end(start(ctx, put_some, queue))
    assert queue.full()
    assert [queue.get() for _ in range(3)] == [0, 1, 2]
    assert queue.empty()


def notified(condition, waits, woken):
    with condition:
        waits.release()
        condition.wait()
    woken.release()


def test_a_killed_waiter_of_a_condition_holds_up_nobody(ctx):
    condition, waits, woken = ctx.Condition(), ctx.Semaphore(0), ctx.Semaphore(0)
    processes = [start(ctx, notified, condition, waits, woken) for _ in range(3)]
    for _ in processes:
        assert waits.acquire(timeout=30)
    with condition:
        # All have let go of the lock: they wait.
        processes[0].kill()
    processes[0].join()
    with condition:
        condition.notify_all()
    for _ in processes[1:]:
        assert woken.acquire(timeout=30)
    end(*processes[1:])


def test_a_condition_waits_for_what_somebody_else_does(ctx):
    condition, value = ctx.Condition(), ctx.RawValue("i")
    process = start(ctx, three, condition, value)
    with condition:
        assert condition.wait_for(lambda: value.value == 3, timeout=30)
        assert not condition.wait_for(lambda: value.value == 4, timeout=0.05)
        assert not condition.wait(0)
    process.join()
    with pytest.raises(AssertionError, match="must acquire"):
        condition.wait()
    with pytest.raises(AssertionError, match="not owned"):
        condition.notify()


def three(condition, value):
    for number in (1, 2, 3):
        with condition:
            value.value = number
            condition.notify()


def party(barrier, told):
    try:
        told.put(barrier.wait())
    except threading.BrokenBarrierError:
        told.put("broken")


def test_a_party_that_is_killed_breaks_the_barrier(ctx):
    barrier, told = ctx.Barrier(3), ctx.SimpleQueue()
    killed, other = (start(ctx, party, barrier, told) for _ in range(2))
    eventually(lambda: barrier.n_waiting == 2)
    killed.kill()
    killed.join()
    assert told.get() == "broken"
    other.join()
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken


def act():
    with open(os.environ["ACTION_LOG"], "a") as log:
        log.write("x")


def rounds(barrier, count, told):
    told.put([barrier.wait() for _ in range(count)])


def test_an_action_runs_once_in_each_round(ctx, tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("ACTION_LOG", str(log))
    if ctx.get_start_method() == "forkserver":
        pytest.skip("the server's environment is older")
    barrier, told = ctx.Barrier(3, action=act), ctx.SimpleQueue()
    processes = [start(ctx, rounds, barrier, 20, told) for _ in range(3)]
    results = [told.get() for _ in processes]
    end(*processes)
    assert [sorted(round_) for round_ in zip(*results, strict=True)] == [[0, 1, 2]] * 20
    assert log.read_text() == "x" * 20


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_death_in_the_action_breaks_the_barrier(ctx):
    barrier, told = ctx.Barrier(3, action=dies), ctx.SimpleQueue()
    processes = [start(ctx, party, barrier, told) for _ in range(3)]
    assert [told.get(), told.get()] == ["broken"] * 2
    for process in processes:
        process.join()
    assert sorted(process.exitcode for process in processes) == [-signal.SIGKILL, 0, 0]
