"""Values and arrays: memory without a name, locks that survive their owners."""

import ctypes
import gc
import os
import threading
import warnings
from multiprocessing import sharedctypes as stdlib
from pathlib import Path

import pytest
from conftest import start

import forkyard
from forkyard.sharedctypes import RawArray, RawValue, copy, synchronized


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double)]


def count(value, times):
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def change(raw, array, points):
    raw.value *= 2
    for index in range(len(array)):
        array[index] += 1
    points[1].x = 9


def test_a_counter_loses_nothing(ctx):
    value = ctx.Value("i", 0)
    processes = [start(ctx, count, value, 500) for _ in range(3)]
    for process in processes:
        process.join()
    assert value.value == 1500


def test_what_a_child_changes_is_changed(ctx):
    raw, array = ctx.RawValue("d", 1.5), ctx.Array("i", [1, 2, 3])
    points = ctx.Array(Point, [(1, 2), (3, 4)], lock=False)
    start(ctx, change, raw, array, points).join()
    assert raw.value == 3
    assert array[:] == [2, 3, 4]
    assert (points[1].x, points[1].y) == (9, 4)


def hold_and_die(value):
    value.get_lock().acquire()
    value.value = 5
    os._exit(1)


def test_the_lock_of_the_dead_is_free(ctx):
    value = ctx.Value("i", 0)
    start(ctx, hold_and_die, value).join()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", forkyard.OwnerDiedWarning)
        with value.get_lock():
            assert value.value == 5


def test_locks_are_ours_whoever_makes_them():
    from forkyard import sharedctypes, synchronize

    assert isinstance(sharedctypes.Value("i").get_lock(), synchronize.RLock)
    assert isinstance(synchronized(RawValue("i")).get_lock(), synchronize.RLock)
    assert sharedctypes.Value("i", lock=False).value == 0
    with pytest.raises(AttributeError):
        sharedctypes.Value("i", lock="none")


def test_a_copy_is_another_one():
    original = RawValue(Point, 1, 2)
    other = copy(original)
    other.x = 7
    assert (original.x, other.x, other.y) == (1, 7, 2)


def test_memory_is_used_again():
    for size in (10, 100_000, 5_000_000):
        for _ in range(20):
            array = RawArray("b", size)
            assert not any(array[::4096])
            array[-1] = 1
            del array
    gc.collect()
    assert Path("/proc/self/maps").read_text().count("forkyard-heap") < 20


def test_no_file_is_needed(program, tmp_path):
    done = program(
        """
        import os, tempfile
        import forkyard
        array = forkyard.Array("d", 1_000_000)
        array[5] = 1
        value = forkyard.Value("i")
        value.value += 1
        print(value.value, array[5], tempfile.tempdir)
        """,
        TMPDIR=str(tmp_path / "none"),
    )
    assert done.stdout == "1 1.0 None\n", done.stderr


def test_shortage_is_an_error():
    with pytest.raises((OSError, MemoryError, OverflowError)):
        RawArray("b", 1 << 50)


def test_values_are_the_standard_librarys(ctx):
    value, array, text = ctx.Value("i", 3), ctx.Array("i", [1, 2, 3]), ctx.Array("c", b"abc")
    assert isinstance(value, stdlib.Synchronized)
    assert isinstance(array, stdlib.SynchronizedArray)
    assert isinstance(text, stdlib.SynchronizedString)
    assert repr(value) == "<Synchronized wrapper for c_int(3)>"
    assert (len(array), list(array), array[1:]) == (3, [1, 2, 3], [2, 3])
    assert (text.value, text.raw[1:]) == (b"abc", b"bc")
    with pytest.raises(TypeError):
        value.value = "three"
    with pytest.raises(AttributeError, match="no deleter"):
        del value.value
    with pytest.raises(IndexError):
        array[3]
    # None of them has kept the lock.
    assert all(shared.acquire(False) for shared in (value, array, text))


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, forkyard.Lock, lambda: forkyard.Semaphore(1)])
def test_any_lock_will_do(make):
    lock = make()
    value = forkyard.Value("i", 1, lock=lock)
    value.value += 1
    with value:
        pass
    assert value.get_lock() is lock
    assert (value.value, value.acquire(), value.release()) == (2, True, None)


def test_a_lock_with_a_will_of_its_own_is_asked():
    class Counting(type(forkyard.Lock())):
        acquired = 0

        def acquire(self, *args, **kwargs):
            Counting.acquired += 1
            return super().acquire(*args, **kwargs)

    value = forkyard.Value("i", 1, lock=Counting(ctx=forkyard.get_context()))
    assert value.value == 1
    assert Counting.acquired == 1


def test_an_access_waits_for_the_lock():
    value, seen = forkyard.Value("i", 1), []
    reader = threading.Thread(target=lambda: seen.append(value.value))
    with value:
        reader.start()
        value.value = 2
        assert seen == []
    reader.join(30)
    assert seen == [2]
