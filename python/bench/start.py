"""Starting and joining a process that does nothing, by each start method."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

from common import Case

import forkyard


def nothing() -> None:
    pass


def start_and_join(ctx: Any, seconds: float) -> float:
    """Return how many processes a second, one after the other."""
    count, start = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - start < seconds:
        process = ctx.Process(target=nothing)
        process.start()
        process.join()
        assert process.exitcode == 0
        count += 1
    return count / (time.perf_counter() - start)


def cases() -> Iterator[Case]:
    """Return what is measured: each against its own kind, and the default against the standard library's fork."""
    pairs = [("zygote", "fork"), ("fork", "fork"), ("forkserver", "forkserver"), ("spawn", "spawn")]
    for ours, theirs in pairs:
        contexts = {"forkyard": forkyard.get_context(ours), "stdlib": multiprocessing.get_context(theirs)}
        for ctx in contexts.values():
            # What is started once for all of them.
            start_and_join(ctx, 0)
        name = f"start, {ours}" if ours == theirs else f"start, {ours} and {theirs}"
        yield Case(name, start_and_join, unit="ms", budget=1.0 if ours == "zygote" else None, libraries=contexts)
