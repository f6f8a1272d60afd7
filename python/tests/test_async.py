"""Queues in asyncio."""

import asyncio
import contextlib
import threading
from pathlib import Path

import pytest
from conftest import eventually

import forkyard


def echo(there, back):
    while (obj := there.get()) is not None:
        back.put(obj)


def test_a_queue_is_awaited(ctx):
    there, back = ctx.Queue(1), ctx.Queue(1)
    process = ctx.Process(target=echo, args=(there, back), daemon=True)

    async def feed():
        for number in range(200):
            await there.put_async(number)
        await there.put_async(None)

    async def drain():
        return [await back.get_async() for _ in range(200)]

    async def both():
        process.start()
        _, got = await asyncio.gather(feed(), drain())
        return got

    assert asyncio.run(both()) == list(range(200))
    process.join()
    assert process.exitcode == 0


def test_the_loop_goes_on_meanwhile_and_a_wait_is_cancelled():
    items = forkyard.Queue()

    async def wait():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(items.get_async(), 0.05)
        waits = [asyncio.create_task(items.get_async()) for _ in range(5)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waits)
        threading.Thread(target=items.put_many, args=([range(5)])).start()
        return sorted(await asyncio.gather(*waits))

    assert asyncio.run(wait()) == list(range(5))
    eventually(lambda: "forkyard-sentry" not in list(threads()))


def threads():
    """The names of all threads, native ones too."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            yield (task / "comm").read_text().strip()
