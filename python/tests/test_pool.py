"""Pools: what the death of a worker does to its task, and to nobody else's."""

import itertools
import os
import pickle
import random
import signal
import sys
import threading

import pytest
from conftest import eventually

import forkyard


def same(number):
    return number


def dies(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def leaves(code):
    sys.exit(code)


def sleeps(told):
    told.put(os.getpid())
    signal.pause()


def remember(*values):
    remember.values = values


def tells_and_sleeps(_number):
    sleeps(*remember.values)


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


class UnreadableError(Exception):
    def __init__(self, one, two):
        super().__init__("cannot be made of one")


def unreadable(_number):
    return Unreadable()


def raises(_number):
    raise UnreadableError(1, 2)


def test_the_task_of_a_killed_worker_fails_and_no_other(ctx):
    with ctx.Pool(2) as pool:
        results = [pool.apply_async(dies, (number,)) for number in range(8)]
        with pytest.raises(forkyard.WorkerDiedError, match="was killed by SIGKILL while it had this task") as told:
            results.pop(3).get()
        assert told.value.exitcode == -signal.SIGKILL
        assert [result.get() for result in results] == [0, 1, 2, 4, 5, 6, 7]
        with pytest.raises(forkyard.WorkerDiedError):
            pool.map(dies, range(8), 1)
        assert sorted(number for number in iterate(pool.imap_unordered(dies, range(8)))) == [0, 1, 2, 4, 5, 6, 7]
        pool.close()
        pool.join()


def iterate(results):
    while True:
        try:
            yield next(results)
        except forkyard.WorkerDiedError:
            continue
        except StopIteration:
            return


def test_whoever_is_killed_from_outside_is_named(ctx):
    told = ctx.SimpleQueue()
    with ctx.Pool(2, remember, (told,)) as pool:
        results = [pool.apply_async(tells_and_sleeps, (number,)) for number in range(2)]
        pids = [told.get(), told.get()]
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        found = []
        for result in results:
            with pytest.raises(forkyard.WorkerDiedError) as died:
                result.get()
            found.append(died.value)
        assert sorted(error.pid for error in found) == sorted(pids)
        assert {error.exitcode for error in found} == {-signal.SIGTERM}
        assert pool.map(same, range(5)) == list(range(5))


def test_a_task_may_end_its_worker(ctx):
    with ctx.Pool(1) as pool:
        with pytest.raises(forkyard.WorkerDiedError, match="ended with exit code 7") as died:
            pool.apply(leaves, (7,))
        assert died.value.exitcode == 7
        assert pool.apply(same, (1,)) == 1


def test_what_cannot_be_unpickled_fails_its_task(ctx):
    with ctx.Pool(1) as pool:
        with pytest.raises(ValueError, match="no number"):
            pool.apply(same, (Unreadable(),))
        with pytest.raises(forkyard.pool.MaybeEncodingError, match="no number"):
            pool.apply(unreadable, (1,))
        with pytest.raises(forkyard.pool.MaybeEncodingError, match="cannot be made of one"):
            pool.apply(raises, (1,))
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pool.apply(lambda: None)
        assert pool.apply(same, (1,)) == 1


def counts(number):
    (done,) = remember.values
    done[number] += 1
    return number, bytes(random.choice((0, 1000, 1_000_000)))


@pytest.mark.parametrize("lasts", [None, 5])
def test_whoever_is_killed_no_task_is_run_twice_or_forgotten(ctx, lasts):
    tasks, kills = 400, 20
    done = ctx.RawArray("i", tasks)
    with ctx.Pool(3, remember, (done,), lasts) as pool:
        some = threading.Semaphore(0)

        def kill():
            for _ in range(kills):
                # As many results as have come meanwhile.
                some.acquire()
                workers = list(pool._pool)
                if workers:
                    random.choice(workers).kill()

        killer = threading.Thread(target=kill)
        killer.start()
        results = [pool.apply_async(counts, (number,)) for number in range(tasks)]
        died = 0
        for number, result in enumerate(results):
            if number % (tasks // kills) == 0:
                some.release()
            try:
                assert result.get()[0] == number
                assert done[number] == 1
            except forkyard.WorkerDiedError:
                assert done[number] <= 1
                died += 1
        killer.join()
        assert died <= kills
        pool.close()
        pool.join()


def test_no_more_is_read_ahead_than_there_is_room_for(ctx):
    read, told = itertools.count(), ctx.SimpleQueue()
    with ctx.Pool(2, remember, (told,)) as pool:
        results = pool.imap(tells_and_sleeps, read)
        for _ in range(2):
            told.get()
        # Nobody is free now: besides the two that run, 64 wait, and whoever reads has one in its hand.
        eventually(lambda: len(pool._inqueue._waiting) == 64)
        assert next(read) <= 2 + 64 + 1
        del results


def test_a_pool_over_a_context_of_the_standard_library_is_its_own():
    import multiprocessing

    with forkyard.pool.Pool(1, context=multiprocessing.get_context("fork")) as pool:
        assert pool.map(same, range(3)) == [0, 1, 2]
