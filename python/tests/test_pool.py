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
    # Each kill is a new interpreter with spawn, and so are five tasks.
    tasks, kills = (100, 10) if ctx.get_start_method() == "spawn" else (400, 20)
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


def pairs_up(number):
    semaphores = remember.values
    if number % 2:
        semaphores[number // 2].release()
    else:
        semaphores[number // 2].acquire()


def test_tasks_begin_in_their_order(ctx):
    # Whoever waits for the next task finds that one begun, whatever lies behind it and whoever else waits.
    with ctx.Pool(2, remember, [ctx.Semaphore(0) for _ in range(40)]) as pool:
        pool.map(pairs_up, range(80), 1)
        pool.apply_async(pairs_up, (0,))
        between = [pool.apply_async(same, (number,)) for number in range(20)]
        pool.apply(pairs_up, (1,))
        assert [result.get() for result in between] == list(range(20))


def waits_first(number):
    told, done = remember.values
    done[number] += 1
    if number == 0:
        sleeps(told)
    return number


def test_what_lies_behind_the_task_of_a_killed_worker_is_done_once(ctx):
    told, done = ctx.SimpleQueue(), ctx.RawArray("i", 50)
    with ctx.Pool(1, remember, (told, done)) as pool:
        results = [pool.apply_async(waits_first, (number,)) for number in range(50)]
        os.kill(told.get(), signal.SIGKILL)
        with pytest.raises(forkyard.WorkerDiedError):
            results[0].get()
        assert [result.get() for result in results[1:]] == list(range(1, 50))
        assert list(done) == [1] * 50


def pid_of(_argument):
    return os.getpid()


def test_a_worker_ends_after_its_last_task(ctx):
    with ctx.Pool(2, maxtasksperchild=3) as pool:
        pids = pool.map(pid_of, range(40), 1)
        assert max(pids.count(pid) for pid in pids) <= 3
    with ctx.Pool(1, maxtasksperchild=1) as pool:
        # What could not be unpickled was its last, too.
        with pytest.raises(ValueError, match="no number"):
            pool.apply(same, (Unreadable(),))
        assert pool.apply(same, (1,)) == 1
        pool.close()
        pool.join()


def sometimes_unpicklable(number):
    return {7: lambda: None, 13: Unreadable()}.get(number, number)


def test_a_result_that_cannot_be_pickled_fails_its_task_alone(ctx):
    with ctx.Pool(2) as pool:
        results = [pool.apply_async(sometimes_unpicklable, (number,)) for number in range(20)]
        for number, result in enumerate(results):
            if number in (7, 13):
                with pytest.raises(forkyard.pool.MaybeEncodingError):
                    result.get()
            else:
                assert result.get() == number


def returns(buffer):
    return pickle.PickleBuffer(bytes(buffer)[::-1])


def test_large_buffers_go_there_and_back(ctx):
    with ctx.Pool(2) as pool:
        for size in (10, 100_000, 3_000_000):
            data = random.randbytes(size)
            assert bytes(pool.apply(returns, (pickle.PickleBuffer(data),))) == data[::-1]


def dies_taking(moment, chance, done):
    take = forkyard.pool._take

    def dying(number, *parts):
        if moment == "after":
            take(number, *parts)
        if chance.acquire(False):
            os.kill(os.getpid(), signal.SIGKILL)
        return take(number, *parts)

    forkyard.pool._take = dying
    remember(done)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_whoever_dies_while_it_takes_a_task(ctx, moment):
    chance, done = ctx.Semaphore(5), ctx.RawArray("i", 100)
    with ctx.Pool(2, dies_taking, (moment, chance, done)) as pool:
        results = [pool.apply_async(counts, (number,)) for number in range(100)]
        died = 0
        for result in results:
            try:
                result.get()
            except forkyard.WorkerDiedError:
                died += 1
        pool.close()
        pool.join()
    # After its word is written it has begun, for the pool. The queue gives the task back in any case, maybe to the next
    # who dies so.
    assert died == 0 if moment == "before" else 1 <= died <= 5
    assert list(done) == [1] * 100


def test_whoever_may_take_no_more_puts_back_what_it_takes(ctx):
    done = ctx.RawArray("i", 50)
    with ctx.Pool(2, remember, (done,)) as pool:
        for worker in list(pool._inqueue._workers.values()):
            worker.word[1] = 1
        assert sorted(number for number, _ in pool.map(counts, range(50), 1)) == list(range(50))
        assert list(done) == [1] * 50
        pool.close()
        pool.join()


def test_no_more_is_read_ahead_than_there_is_room_for(ctx):
    read, told = itertools.count(), ctx.SimpleQueue()
    with ctx.Pool(2, remember, (told,)) as pool:
        results = pool.imap(tells_and_sleeps, read)
        for _ in range(2):
            told.get()
        # Nobody is free now: besides the two that run, 64 wait, and whoever reads has one in its hand.
        eventually(lambda: len(pool._inqueue._open) == 2 + 64)
        assert next(read) <= 2 + 64 + 1
        del results


def test_a_pool_over_a_context_of_the_standard_library_is_its_own():
    import multiprocessing

    with forkyard.pool.Pool(1, context=multiprocessing.get_context("fork")) as pool:
        assert pool.map(same, range(3)) == [0, 1, 2]
