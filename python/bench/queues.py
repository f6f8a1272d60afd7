"""Queues: so many producers and consumers of one kind of message."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from queue import Empty, Full
from typing import Any

from common import Case, plain

import forkyard

MIB = 1 << 20
MESSAGES: dict[str, Callable[[], Any]] = {
    "int": lambda: 7,
    "1 KiB bytes": lambda: b"x" * 1024,
    "1 MiB bytes": lambda: b"x" * MIB,
}
BUDGETS = {"1P1C int": 10.0, "1P1C 1 MiB bytes": 5.0}

with contextlib.suppress(ImportError):
    import numpy

    MESSAGES["8 MB array"] = lambda: numpy.zeros(1_000_000)


class FasterFifo:
    """faster-fifo's queue, as a context has it."""

    __name__ = "faster_fifo"

    def get_context(self, _: str) -> FasterFifo:
        return self

    def Queue(self) -> Any:
        return faster_fifo.Queue(max_size_bytes=64 * MIB)


LIBRARIES: dict[str, Any] = {"forkyard": forkyard, "stdlib": multiprocessing}

with contextlib.suppress(ImportError):
    import faster_fifo

    LIBRARIES["faster-fifo"] = FasterFifo()


@contextlib.contextmanager
def failing() -> Iterator[None]:
    """End this process quietly where a queue loses its patience: faster-fifo does after ten seconds."""
    try:
        yield
    except (Empty, Full):
        sys.exit(1)


def put(queue: Any, message: Any, count: int, gate: Any) -> None:
    gate.wait()
    with failing():
        for _ in range(count):
            queue.put(message)


def get(queue: Any, count: int, gate: Any, times: Any) -> None:
    gate.wait()
    with failing():
        start = time.perf_counter()
        for _ in range(count):
            queue.get()
        times.send((start, time.perf_counter()))


def exchange(library: Any, kind: str, message: Any, producers: int, consumers: int, count: int) -> float:
    """Return messages per second: as many for each producer, and shared by the consumers."""
    queue = getattr(library.get_context("fork"), kind)()
    gate = plain.Event()
    pipes = [plain.Pipe(False) for _ in range(consumers)]
    share = count * producers // consumers
    processes = [plain.Process(target=get, args=(queue, share, gate, sender)) for _, sender in pipes]
    processes += [plain.Process(target=put, args=(queue, message, count, gate)) for _ in range(producers)]
    for process in processes:
        process.start()
    gate.set()
    try:
        spans = [receive(receiver, processes) for receiver, _ in pipes]
    except ChildProcessError:
        for process in processes:
            process.kill()
        return 0.0
    finally:
        for process in processes:
            process.join()
    starts, ends = zip(*spans, strict=True)
    return share * consumers / (max(ends) - min(starts))


def receive(receiver: Any, processes: list[Any]) -> Any:
    """Return what a consumer tells, as long as none of the others failed: it would wait for ever."""
    while receiver not in wait([receiver, *(process.sentinel for process in processes if process.exitcode is None)]):
        if any(process.exitcode for process in processes):
            raise ChildProcessError
    return receiver.recv()


# How fast it was: so that a round takes as long for all.
_known: dict[tuple[Any, ...], float] = {}


def rate(library: Any, kind: str, name: str, producers: int, consumers: int, seconds: float) -> float:
    """Return messages per second, of all consumers, in about so long."""
    message, key = MESSAGES[name](), (library.__name__, kind, name, producers, consumers)
    least = 12 if "M" in name else 1000
    if _known.get(key) == 0:
        return 0.0
    if key not in _known:
        _known[key] = exchange(library, kind, message, producers, consumers, least)
    # What is put and not got yet takes memory.
    most = (2 << 30) // 8_000_000 if "M" in name else 2_000_000
    count = min(int(seconds * _known[key] / producers), most // producers) // consumers * consumers
    found = _known[key] = exchange(library, kind, message, producers, consumers, max(count, least))
    return found


def echo(there: Any, back: Any) -> None:
    while (message := there.get()) is not None:
        back.put(message)


def round_trip(library: Any, seconds: float) -> float:
    ctx = library.get_context("fork")
    there, back = ctx.Queue(), ctx.Queue()
    process = plain.Process(target=echo, args=(there, back))
    process.start()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        there.put(count)
        back.get()
        count += 1
    found = count / (time.perf_counter() - start)
    there.put(None)
    process.join()
    return found


def cases() -> Iterator[Case]:
    """Return what is measured."""

    def queue(kind: str, producers: int, consumers: int, name: str) -> Case:
        who = f"{producers}P{consumers}C {name}"
        return Case(
            f"{kind} {who}",
            lambda library, seconds: rate(library, kind, name, producers, consumers, seconds),
            budget=BUDGETS.get(who) if kind == "Queue" else None,
            libraries=LIBRARIES if kind == "Queue" else dict(list(LIBRARIES.items())[:2]),
        )

    for producers, consumers in ((1, 1), (2, 1), (4, 4)):
        for name in MESSAGES:
            yield queue("Queue", producers, consumers, name)
    yield queue("SimpleQueue", 1, 1, "int")
    yield Case("Queue there and back", round_trip, libraries=LIBRARIES)
