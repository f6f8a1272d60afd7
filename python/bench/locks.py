"""Locks, alone and contended, and values with a lock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from common import Case, plain


def acquire_and_release(library: Any, seconds: float, kind: str = "Lock") -> float:
    lock, count, start = getattr(library.get_context("fork"), kind)(), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(1000):
            lock.acquire()
            lock.release()
        count += 1000
    return count / (time.perf_counter() - start)


def with_lock(library: Any, seconds: float) -> float:
    lock, count, start = library.get_context("fork").Lock(), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(1000):
            with lock:
                pass
        count += 1000
    return count / (time.perf_counter() - start)


def increment(library: Any, seconds: float) -> float:
    value, count, start = library.get_context("fork").Value("i", 0), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(1000):
            with value.get_lock():
                value.value += 1
        count += 1000
    return count / (time.perf_counter() - start)


def notify(library: Any, seconds: float) -> float:
    condition, count, start = library.get_context("fork").Condition(), 0, time.perf_counter()
    with condition:
        while time.perf_counter() - start < seconds:
            for _ in range(1000):
                condition.notify()
            count += 1000
    return count / (time.perf_counter() - start)


def ask(library: Any, seconds: float) -> float:
    event, count, start = library.get_context("fork").Event(), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(1000):
            event.is_set()
        count += 1000
    return count / (time.perf_counter() - start)


def contend(lock: Any, seconds: float, counts: Any) -> None:
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        with lock:
            count += 1
    counts.send(count / (time.perf_counter() - start))


def contended(library: Any, seconds: float) -> float:
    lock = library.get_context("fork").Lock()
    pipes = [plain.Pipe(False) for _ in range(2)]
    processes = [plain.Process(target=contend, args=(lock, seconds, sender)) for _, sender in pipes]
    for process in processes:
        process.start()
    total: float = sum(receiver.recv() for receiver, _ in pipes)
    for process in processes:
        process.join()
    return total


def cases() -> Iterator[Case]:
    """Return what is measured."""
    # 45 ns where the standard library's took 62.
    yield Case("Lock acquire, release", acquire_and_release, unit="ns", budget=62 / 45)
    yield Case("Lock, with", with_lock, unit="ns")
    for kind in ("RLock", "Semaphore", "BoundedSemaphore"):
        yield Case(f"{kind} acquire, release", partial(acquire_and_release, kind=kind), unit="ns")
    yield Case("Condition notify, nobody waits", notify, unit="ns")
    yield Case("Event is_set", ask, unit="ns")
    yield Case("Lock, two processes", contended, unit="ns")
    yield Case("Value, increment under lock", increment, unit="ns")
