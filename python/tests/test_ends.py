"""The reader of a queue as something that is waited for together with others."""

import asyncio
import os
import select
import selectors
from multiprocessing import connection

import pytest
from conftest import eventually, make, start

import forkyard


def put_all(items, messages):
    for message in messages:
        items.put(message)


def put_when_told(told, items, messages):
    told.get()
    put_all(items, messages)


@pytest.fixture
def items(ctx, kind):
    items = make(ctx, kind)
    yield items
    items.close()


def readable(items):
    return bool(select.select([items._reader], [], [], 0)[0])


def test_readers_and_sentinels_are_waited_for_together(ctx, items):
    told, others = ctx.Queue(), ctx.Queue()
    waiting = {items._reader, others._reader}
    assert connection.wait(waiting, 0) == []
    first = start(ctx, put_when_told, told, items, range(100))
    second = start(ctx, put_when_told, told, others, range(100, 200))
    told.put(None)
    told.put(None)
    got, ended = [], set()
    while len(got) < 200 or len(ended) < 2:
        for one in connection.wait({*waiting, first.sentinel, second.sentinel} - ended):
            if one in waiting:
                got.append(one.recv())
            else:
                ended.add(one)
    assert sorted(got) == list(range(200))
    assert connection.wait(waiting, 0) == []
    others.close()


def test_whoever_asks_once_is_told_of_each_message(kind):
    items = make(forkyard, kind)
    with selectors.DefaultSelector() as selector:
        selector.register(items._reader, selectors.EVENT_READ)
        assert selector.select(0) == []
        for message in range(3):
            items.put(message)
        got = []
        while len(got) < 3:
            assert selector.select()
            got.append(items.get())
        assert got == [0, 1, 2]
        assert selector.select(0) == []
        items.put("later")
        assert selector.select()
        assert items._reader.recv() == "later"
        assert selector.select(0) == []
    items.close()


def test_an_event_loop_calls_back(ctx):
    items = ctx.Queue()

    async def gather():
        loop, got, done = asyncio.get_running_loop(), [], asyncio.Event()

        def take():
            got.append(items.get_nowait())
            if len(got) == 50:
                done.set()

        loop.add_reader(items._reader.fileno(), take)
        await done.wait()
        loop.remove_reader(items._reader.fileno())
        return got

    process = start(ctx, put_all, items, range(50))
    assert asyncio.run(gather()) == list(range(50))
    process.join()
    items.close()


def take_one(items, done):
    assert items._reader.fileno() >= 0
    done.put(items.get())


def test_what_another_process_took_is_not_told(ctx, items):
    items.put("theirs")
    done = ctx.Queue()
    consumer = start(ctx, take_one, items, done)
    assert done.get() == "theirs"
    consumer.join()
    assert not readable(items)
    items.put("mine")
    assert readable(items)
    assert items.get() == "mine"


def test_a_producer_that_is_killed_is_no_message(ctx, items):
    assert not readable(items)
    producer = start(ctx, put_when_told, ctx.Queue(), items, [1])
    eventually(producer.is_alive, 10)
    producer.kill()
    assert connection.wait([items._reader, producer.sentinel]) == [producer.sentinel]
    producer.join()


def test_a_fork_has_a_descriptor_of_its_own(program):
    done = program("""
        import os
        import select
        import forkyard

        items = forkyard.Queue()
        items._reader.fileno()
        pid = os.fork()
        if pid == 0:
            assert select.select([items._reader], [], [], 0)[0] == []
            items.put("of the fork")
            assert select.select([items._reader], [], [])[0]
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert select.select([items._reader], [], [])[0]
        print(items.get(), select.select([items._reader], [], [], 0)[0])
    """)
    assert (done.stdout, done.returncode) == ("of the fork []\n", 0), done.stderr


def test_a_closed_one_has_none(kind):
    items = make(forkyard, kind)
    before = len(os.listdir("/proc/self/fd"))
    reader = items._reader
    reader.fileno()
    items.close()
    with pytest.raises(OSError, match="closed"):
        reader.fileno()
    # The thread lets go of it, too.
    eventually(lambda: len(os.listdir("/proc/self/fd")) == before, 10)
