"""Queues, as the standard library has them and as their users' deaths leave them."""

import gc
import logging
import logging.handlers
import multiprocessing.queues
import os
import pickle
import queue
import signal
import threading
import time
import warnings

import pytest
from conftest import eventually, make, start

import forkyard
import forkyard.queues

MIB = 1 << 20


class Held:
    """Pickled with its buffer outside of the pickle."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Held, (pickle.PickleBuffer(self.data),)


class Slow:
    """Takes so long to be read that its reader can be killed meanwhile; but only if that is in such a file."""

    def __init__(self, path, value):
        self.path, self.value = path, value

    def __reduce__(self):
        return read_slowly, (self.path, self.value)


def read_slowly(path, value):
    if os.getpid() != value[0]:
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)
    return value


OBJECTS = [
    None,
    True,
    False,
    0,
    -1,
    2**62,
    -(2**80),
    1.5,
    "",
    "text",
    "\ud800",
    "ä" * 70_000,
    b"",
    b"bytes",
    b"x" * 5000,
    b"y" * (3 * MIB),
    bytearray(b"z" * 100_000),
    [1, [2, (3,)], {"four": 5}],
    {"large": b"l" * 200_000, "small": 1},
    ValueError("an exception", 7),
]


def echo(there, back):
    while True:
        obj = there.get()
        if obj == "end":
            return
        back.put(obj)


def test_objects_arrive_as_they_were(ctx, kind):
    there, back = make(ctx, kind), make(ctx, kind)
    process = start(ctx, echo, there, back)
    for obj in OBJECTS:
        there.put(obj)
        arrived = back.get()
        assert type(arrived) is type(obj)
        if isinstance(obj, Exception):
            assert arrived.args == obj.args
        else:
            assert arrived == obj
    there.put("end")
    process.join()
    assert process.exitcode == 0


def test_a_buffer_arrives_writable_and_is_nobody_elses(ctx):
    there, back = ctx.Queue(), ctx.Queue()
    process = start(ctx, echo, there, back)
    for size in (10, 64 * 1024, 5 * MIB + 3):
        sent = bytearray(os.urandom(size))
        there.put([Held(sent), Held(sent[: size // 2])])
        whole, half = (memoryview(held.data) for held in back.get())
        assert whole == sent
        assert half == sent[: size // 2]
        assert not whole.readonly
        whole[0] ^= 255
        assert whole[0] == sent[0] ^ 255
        assert half[0] == sent[0]
    there.put("end")
    process.join()


def test_a_fork_keeps_what_its_parent_got():
    ctx = forkyard.get_context("fork")
    items, ready, read = ctx.Queue(), ctx.Event(), ctx.Queue()
    items.put(Held(b"a" * (2 * MIB)))
    got = [items.get()]

    def look():
        ready.wait()
        read.put(bytes(memoryview(got[0].data)) == b"a" * (2 * MIB))

    process = start(ctx, look)
    # The parent gives the memory back, and others write there.
    got.clear()
    gc.collect()
    for _ in range(5):
        items.put(Held(b"b" * (2 * MIB)))
        items.get()
    ready.set()
    assert read.get(timeout=30)
    process.join()


def test_the_order_is_its_producers(ctx):
    numbers = ctx.Queue(10)
    processes = [start(ctx, count, numbers, index) for index in range(3)]
    seen = {index: [] for index in range(3)}
    for _ in range(3 * 300):
        index, number = numbers.get(timeout=30)
        seen[index].append(number)
    assert all(numbers == list(range(300)) for numbers in seen.values())
    for process in processes:
        process.join()


def count(numbers, index):
    for number in range(300):
        numbers.put((index, number))


def put_one(items):
    items.put("late")


def test_a_large_bound_takes_no_memory_before_there_are_so_many(ctx):
    items = ctx.Queue(10_000_000)
    assert not items.full()
    items = ctx.Queue(2000)
    items.put_many(range(2000))
    assert items.full()
    with pytest.raises(queue.Full):
        items.put_nowait(0)
    with pytest.raises(queue.Full):
        items.put(b"x" * MIB, timeout=0.01)
    process = start(ctx, put_one, items)
    assert [items.get(timeout=30) for _ in range(2001)] == [*range(2000), "late"]
    process.join()


def test_a_queue_has_room_for_so_many():
    items = forkyard.Queue(2)
    assert items.empty()
    assert not items.full()
    items.put(1)
    items.put(2)
    assert items.full()
    assert items.qsize() == 2
    with pytest.raises(queue.Full):
        items.put_nowait(3)
    with pytest.raises(queue.Full):
        items.put(3, timeout=0.01)
    with pytest.raises(queue.Full):
        items.put(b"x" * MIB, True, 0.01)
    assert [items.get(), items.get_nowait()] == [1, 2]
    with pytest.raises(queue.Empty):
        items.get_nowait()
    with pytest.raises(queue.Empty):
        items.get(timeout=0.01)
    with pytest.raises(queue.Empty):
        items.get(True, -1)


def test_without_a_number_there_is_room_for_any():
    items = forkyard.Queue()
    for number in range(30_000):
        items.put_nowait(number)
    assert items.qsize() == 30_000
    assert not items.full()
    assert [items.get_nowait() for _ in range(30_000)] == list(range(30_000))


def test_many_at_once():
    items = forkyard.Queue()
    items.put_many(range(10))
    assert items.get_many(4) == [0, 1, 2, 3]
    assert items.get_many(100) == [4, 5, 6, 7, 8, 9]
    assert items.get_many(0) == []
    with pytest.raises(queue.Empty):
        items.get_many(1, block=False)


def test_after_close_it_is_of_no_use_here():
    items = forkyard.Queue()
    items.close()
    items.join_thread()
    assert items.empty()
    for call in (lambda: items.put(1), items.get, items.get_nowait):
        with pytest.raises(ValueError, match="is closed"):
            call()
    used = forkyard.Queue()
    used.put(1)
    used.close()
    with pytest.raises(OSError, match="is closed"):
        used.empty()
    simple = forkyard.SimpleQueue()
    simple.close()
    for call in (lambda: simple.put(1), simple.get, simple.empty):
        with pytest.raises(OSError, match="is closed"):
            call()


def test_what_cannot_be_pickled_is_told_at_once(kind):
    items = make(forkyard, kind)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        items.put(lambda: None)
    items.put("next")
    assert items.get() == "next"


def test_a_subclass_is_told_what_cannot_be_pickled():
    class Told(forkyard.queues.Queue):
        def _on_queue_feeder_error(self, error, obj):
            told.append((type(error), obj))

    def unpicklable():
        """It has no name that a process could look for."""

    told = []
    items = Told(ctx=forkyard.get_context())
    items.put(unpicklable)
    assert told
    assert told[0][1] is unpicklable
    assert items.empty()


class Counting(forkyard.queues.Queue):
    """As people write them: with more than its base class has."""

    def __init__(self, ctx):
        super().__init__(ctx=ctx)
        self.puts = ctx.Value("i", 0)

    def __getstate__(self):
        return super().__getstate__(), self.puts

    def __setstate__(self, state):
        super().__setstate__(state[0])
        self.puts = state[1]

    def put(self, obj, block=True, timeout=None):
        with self.puts.get_lock():
            self.puts.value += 1
        super().put(obj, block, timeout)


def put_all(items, objs):
    for obj in objs:
        items.put_nowait(obj)


def test_a_subclass_travels(ctx):
    items = Counting(ctx)
    process = start(ctx, put_all, items, [1, 2, 3])
    assert [items.get(timeout=30) for _ in range(3)] == [1, 2, 3]
    process.join()
    assert items.puts.value == 3


def test_a_queue_travels_only_to_a_child_that_is_started(kind):
    with pytest.raises(RuntimeError):
        pickle.dumps(make(forkyard.get_context("spawn"), kind))


def test_they_are_the_standard_librarys():
    assert isinstance(forkyard.Queue(), multiprocessing.queues.Queue)
    assert isinstance(forkyard.JoinableQueue(), multiprocessing.queues.JoinableQueue)
    assert isinstance(forkyard.SimpleQueue(), multiprocessing.queues.SimpleQueue)


def put_and_exit(items, obj, how):
    items.put(obj)
    if how == "exit":
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
@pytest.mark.parametrize("how", ["exit", "kill"])
def test_what_was_put_is_there_whatever_becomes_of_its_producer(ctx, kind, how):
    items = make(ctx, kind)
    for obj in ("small", b"large" * MIB):
        process = start(ctx, put_and_exit, items, obj, how)
        # Nobody has to read first.
        process.join()
        assert items.get() == obj


def put_for_ever(items, size):
    number = 0
    while True:
        items.put(bytes([number % 256]) * size)
        number += 1


def drained(items):
    while not items.empty():
        yield items.get()


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_a_producer_killed_in_a_large_put_leaves_whole_messages(ctx, kind):
    items = ctx.Queue(3) if kind == "Queue" else ctx.SimpleQueue()
    for round_ in range(3):
        process = start(ctx, put_for_ever, items, 4 * MIB)
        seen = [items.get() for _ in range(1 + round_ % 2)]
        process.kill()
        process.join()
        seen += drained(items)
        for number, message in enumerate(seen):
            assert len(message) == 4 * MIB
            assert message == bytes([number]) * len(message)
    items.put("next")
    assert items.get() == "next"


def get_for_ever(items, ready):
    ready.set()
    while True:
        items.get()


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_a_consumer_killed_while_it_waits_takes_nothing_along(ctx, kind):
    items, ready = make(ctx, kind), ctx.Event()
    consumers = [start(ctx, get_for_ever, items, ready) for _ in range(2)]
    assert ready.wait(30)
    for consumer in consumers:
        consumer.kill()
    for consumer in consumers:
        consumer.join()
    for number in range(3):
        items.put(number)
    assert [items.get() for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
@pytest.mark.parametrize("size", [10, 300_000])
def test_a_consumer_killed_inside_get_gives_back(ctx, kind, size, tmp_path):
    items, path = make(ctx, kind), tmp_path / "reader"
    value = os.getpid(), b"x" * size
    items.put(Slow(str(path), value))
    items.put("second")
    consumer = start(ctx, get_for_ever, items, ctx.Event())
    eventually(lambda: path.exists() and path.read_text() == str(consumer.pid), 30)
    consumer.kill()
    consumer.join()
    assert items.get() == value
    assert items.get() == "second"


def test_join_before_get_does_not_wait(ctx):
    items = ctx.Queue()
    process = start(ctx, put_all, items, [b"x" * (10 * MIB), "last"])
    process.join()
    assert process.exitcode == 0
    assert items.get() == b"x" * (10 * MIB)
    assert items.get() == "last"


def test_its_reader_is_asked_whether_there_is_something(kind):
    items = make(forkyard, kind)
    assert not items._reader.poll()
    assert not items._reader.poll(0.01)
    threading.Timer(0.1, items.put, ("late",)).start()
    assert items._reader.poll(None)
    assert items._reader.recv() == "late"


def test_a_queue_needs_no_descriptor():
    forkyard.Queue().put(1)
    before = len(os.listdir("/proc/self/fd"))
    queues = [forkyard.Queue() for _ in range(50)]
    for items in queues:
        items.put(1)
    assert len(os.listdir("/proc/self/fd")) == before


class HandlerError(Exception):
    pass


def interrupted(*_):
    # Once: whoever was told is not told again while it cleans up.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    raise HandlerError


def disturbed(disturber, call):
    disturber.start()
    call()


@pytest.mark.parametrize("call", ["get", "put", "put_large"])
def test_a_signal_handler_ends_a_wait(call):
    items = forkyard.Queue(1)
    if call != "get":
        items.put(0)
    calls = {"get": items.get, "put": lambda: items.put(1), "put_large": lambda: items.put(b"x" * MIB)}
    old = signal.signal(signal.SIGUSR1, interrupted)
    stop = threading.Event()

    def disturb():
        while not stop.wait(0.05):
            os.kill(os.getpid(), signal.SIGUSR1)

    disturber = threading.Thread(target=disturb)
    try:
        # It comes into the wait, or before it.
        with pytest.raises(HandlerError):
            disturbed(disturber, calls[call])
    finally:
        stop.set()
        disturber.join()
        signal.signal(signal.SIGUSR1, old)
    # Nothing was put or got.
    assert items.qsize() == (0 if call == "get" else 1)


def test_a_signal_without_a_handler_of_its_own_ends_nothing(program):
    done = program(
        """
        import os, signal, threading, forkyard
        items = forkyard.Queue()
        signal.signal(signal.SIGUSR1, lambda *_: items.put("from the handler"))
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        print(items.get())
        """
    )
    assert done.stdout == "from the handler\n", done.stderr


def test_ctrl_c_ends_a_wait(program):
    done = program(
        """
        import os, signal, threading, forkyard
        items = forkyard.Queue()
        try:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            items.get()
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert done.stdout == "interrupted\n", done.stderr


def test_threads_share_a_queue(kind):
    items, sums = make(forkyard, kind), []

    def consume():
        total = 0
        while (number := items.get()) is not None:
            total += number
        sums.append(total)

    consumers = [threading.Thread(target=consume) for _ in range(3)]
    producers = [threading.Thread(target=put_each, args=(items, range(500))) for _ in range(3)]
    for thread in (*consumers, *producers):
        thread.start()
    for thread in producers:
        thread.join()
    put_each(items, [None] * 3)
    for thread in consumers:
        thread.join()
    assert sum(sums) == 3 * sum(range(500))


def put_each(items, objs):
    for obj in objs:
        items.put(obj)


def work(items, done):
    while True:
        done.put(items.get())
        items.task_done()


def test_join_waits_for_what_is_done(ctx):
    items, done = ctx.JoinableQueue(), ctx.Queue()
    processes = [start(ctx, work, items, done) for _ in range(2)]
    for number in range(20):
        items.put(number)
    items.put_many(range(20, 40))
    items.join()
    assert sorted(done.get() for _ in range(40)) == list(range(40))
    with pytest.raises(ValueError, match="too many times"):
        items.task_done()
    for process in processes:
        process.kill()
        process.join()


def get_and_end(items, got, how):
    got.put(items.get())
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("how", ["kill", "end"])
def test_join_does_not_wait_for_who_has_ended(ctx, how):
    items, got = ctx.JoinableQueue(), ctx.Queue()
    items.put("never done")
    process = start(ctx, get_and_end, items, got, how)
    assert got.get() == "never done"
    with pytest.warns(forkyard.OwnerDiedWarning, match="1 object of a JoinableQueue was got by a process that ended"):
        items.join()
    process.join()
    # It was told, and everything is as it was.
    items.put("done")
    items.get()
    items.task_done()
    items.join()


def join_and_say(items, got):
    got.put("joins")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        items.join()
    got.put([str(warning.message) for warning in told])


def test_who_joins_already_is_woken_by_a_death(ctx):
    items, got = ctx.JoinableQueue(), ctx.Queue()
    items.put_many(["mine", "its"])
    mine = items.get()
    joiner = start(ctx, join_and_say, items, got)
    assert got.get() == "joins"
    process = start(ctx, get_and_end, items, got, "kill")
    assert (mine, got.get()) == ("mine", "its")
    process.join()
    items.task_done()
    assert len(got.get()) == 1
    joiner.join()


def get_and_wait(items, got, end):
    got.put(items.get())
    end.wait()


def test_who_has_not_got_it_may_report_it(ctx):
    items, got, end = ctx.JoinableQueue(), ctx.Queue(), ctx.Event()
    items.put("by another")
    process = start(ctx, get_and_wait, items, got, end)
    got.get()
    items.task_done()
    items.join()
    with pytest.raises(ValueError, match="too many times"):
        items.task_done()
    end.set()
    process.join()


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


def test_an_object_that_cannot_be_read_is_reported_as_any_other():
    items = forkyard.JoinableQueue(2)
    items.put(Unreadable())
    with pytest.raises(ValueError, match="no number"):
        items.get()
    items.task_done()
    items.join()


def test_more_may_be_undone_than_have_permits():
    items = forkyard.JoinableQueue()
    items.put_many(range(5000))
    assert len(items.get_many(5000)) == 5000
    for _ in range(5000):
        items.task_done()
    items.join()


def log(records):
    logger = logging.getLogger("child")
    logger.addHandler(logging.handlers.QueueHandler(records))
    logger.warning("from %s", "a child")


def test_log_records_travel(ctx):
    records, seen = ctx.Queue(), []

    class Handler(logging.Handler):
        def emit(self, record):
            seen.append(record.getMessage())

    listener = logging.handlers.QueueListener(records, Handler())
    process = start(ctx, log, records)
    process.join()
    listener.start()
    listener.stop()
    assert seen == ["from a child"]
