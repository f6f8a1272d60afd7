"""Pools: tasks that take no time, one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from common import Case

# Two workers, whatever the machine has: the rest is for the pool's own threads.
WORKERS = 2
AT_ONCE = 2000


def same(argument: Any) -> Any:
    return argument


def mapped(pool: Any, argument: Any) -> None:
    pool.map(same, [argument] * AT_ONCE, chunksize=1)


def iterated(pool: Any, argument: Any) -> None:
    for _ in pool.imap_unordered(same, [argument] * AT_ONCE):
        pass


def applied(pool: Any, argument: Any) -> None:
    for result in [pool.apply_async(same, (argument,)) for _ in range(AT_ONCE)]:
        result.get()


def applied_alone(pool: Any, argument: Any) -> None:
    for _ in range(AT_ONCE):
        pool.apply(same, (argument,))


def rate(library: Any, how: Callable[[Any, Any], None], argument: Any, seconds: float) -> float:
    """Return tasks per second."""
    with library.get_context("fork").Pool(WORKERS) as pool:
        how(pool, argument)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            how(pool, argument)
            count += AT_ONCE
        return count / (time.perf_counter() - start)


def cases() -> Iterator[Case]:
    """Return what is measured."""

    def pool(name: str, how: Callable[[Any, Any], None], argument: Any, budget: float | None = None) -> Case:
        return Case(
            f"Pool {name}", lambda library, seconds: rate(library, how, argument, seconds), unit="us", budget=budget
        )

    yield pool("map, a task each", mapped, 7, budget=1.0)
    yield pool("imap_unordered", iterated, 7, budget=1.0)
    yield pool("apply_async", applied, 7, budget=1.0)
    yield pool("apply, nothing else to do", applied_alone, 7)
    yield pool("map, 100 kB each", mapped, bytes(100_000))
