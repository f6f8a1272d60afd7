"""Queues, locks and values of forkyard against multiprocessing's: medians of rounds that alternate, in one run.

    python python/bench/queues.py [--rounds 5] [--only TEXT] [--seconds 0.5] [--json FILE]

Each figure is operations (messages, pairs of calls) per second; more is better. The budgets are ratios; a missed one is
printed, and fails nothing. Arrays are measured where NumPy is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import forkyard

MIB = 1 << 20
MESSAGES: dict[str, Callable[[], Any]] = {
    "int": lambda: 7,
    "tuple": lambda: (1, "text", 2.5),
    "1 KiB bytes": lambda: b"x" * 1024,
    "1 MiB bytes": lambda: b"x" * MIB,
}
BUDGETS = {"Queue 1P1C int": 10, "Queue 1P1C 1 MiB bytes": 5}

with contextlib.suppress(ImportError):
    import numpy

    MESSAGES["8 MB array"] = lambda: numpy.zeros(1_000_000)


def put(queue: Any, message: Any, count: int, gate: Any) -> None:
    gate.wait()
    for _ in range(count):
        queue.put(message)


def get(queue: Any, count: int, gate: Any, times: Any) -> None:
    gate.wait()
    start = time.perf_counter()
    for _ in range(count):
        queue.get()
    times.send((start, time.perf_counter()))


def exchange(module: Any, kind: str, message: Any, producers: int, consumers: int, count: int) -> float:
    """Return messages per second: as many for each producer, and shared by the consumers."""
    ctx = module.get_context("fork")
    queue = getattr(ctx, kind)()
    plain = multiprocessing.get_context("fork")
    gate = plain.Event()
    pipes = [plain.Pipe(False) for _ in range(consumers)]
    share = count * producers // consumers
    processes = [plain.Process(target=get, args=(queue, share, gate, sender)) for _, sender in pipes]
    processes += [plain.Process(target=put, args=(queue, message, count, gate)) for _ in range(producers)]
    for process in processes:
        process.start()
    gate.set()
    starts, ends = zip(*(receiver.recv() for receiver, _ in pipes), strict=True)
    for process in processes:
        process.join()
    return share * consumers / (max(ends) - min(starts))


# How fast it was: so that a round takes as long for all.
_known: dict[tuple[Any, ...], float] = {}


def measure_queue(module: Any, kind: str, name: str, producers: int, consumers: int, seconds: float) -> float:
    """Return messages per second, of all consumers, in about so long."""
    message, key = MESSAGES[name](), (module.__name__, kind, name, producers, consumers)
    least = 12 if "M" in name else 1000
    if key not in _known:
        _known[key] = exchange(module, kind, message, producers, consumers, least)
    count = max(int(seconds * _known[key] / producers) // consumers * consumers, least)
    rate = _known[key] = exchange(module, kind, message, producers, consumers, count)
    return rate


def measure_lock(module: Any, seconds: float) -> float:
    lock, count, start = module.Lock(), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(1000):
            lock.acquire()
            lock.release()
        count += 1000
    return count / (time.perf_counter() - start)


def measure_value(module: Any, seconds: float) -> float:
    value, count, start = module.Value("i", 0), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(1000):
            with value.get_lock():
                value.value += 1
        count += 1000
    return count / (time.perf_counter() - start)


def contend(lock: Any, seconds: float, counts: Any) -> None:
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        with lock:
            count += 1
    counts.send(count / (time.perf_counter() - start))


def measure_contended(module: Any, seconds: float) -> float:
    plain = multiprocessing.get_context("fork")
    lock = module.get_context("fork").Lock()
    pipes = [plain.Pipe(False) for _ in range(2)]
    processes = [plain.Process(target=contend, args=(lock, seconds, sender)) for _, sender in pipes]
    for process in processes:
        process.start()
    total = sum(receiver.recv() for receiver, _ in pipes)
    for process in processes:
        process.join()
    return total


def echo(there: Any, back: Any) -> None:
    while (message := there.get()) is not None:
        back.put(message)


def measure_round_trip(module: Any, seconds: float) -> float:
    ctx = module.get_context("fork")
    there, back = ctx.Queue(), ctx.Queue()
    process = ctx.Process(target=echo, args=(there, back))
    process.start()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        there.put(count)
        back.get()
        count += 1
    rate = count / (time.perf_counter() - start)
    there.put(None)
    process.join()
    return rate


def cases() -> dict[str, Callable[[Any, float], float]]:
    """Return what is measured, by its name."""
    found: dict[str, Callable[[Any, float], float]] = {}

    def queue(kind: str, producers: int, consumers: int, name: str) -> None:
        found[f"{kind} {producers}P{consumers}C {name}"] = lambda module, seconds: measure_queue(
            module, kind, name, producers, consumers, seconds
        )

    for name in MESSAGES:
        queue("Queue", 1, 1, name)
    for producers, consumers in ((2, 1), (4, 4)):
        for name in ("int", "1 KiB bytes"):
            queue("Queue", producers, consumers, name)
    queue("SimpleQueue", 1, 1, "int")
    found["Queue round trip"] = measure_round_trip
    found["Lock alone"] = measure_lock
    found["Lock, two processes"] = measure_contended
    found["Value += 1"] = measure_value
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--only", default="")
    parser.add_argument("--json")
    options = parser.parse_args()
    figures: dict[str, dict[str, list[float]]] = {}
    print(f"{'':32}{'forkyard':>12}{'stdlib':>12}{'ratio':>8}{'budget':>8}")
    for name, measure in cases().items():
        if options.only not in name:
            continue
        rates: dict[str, list[float]] = {"forkyard": [], "multiprocessing": []}
        for _ in range(options.rounds):
            for module in (forkyard, multiprocessing):
                rates[module.__name__].append(measure(module, options.seconds))
        figures[name] = rates
        ours, theirs = (statistics.median(rates[key]) for key in ("forkyard", "multiprocessing"))
        ratio, budget = ours / theirs, BUDGETS.get(name)
        verdict = "" if budget is None else f"{budget:>7}{'' if ratio >= budget else ' missed'}"
        print(f"{name:32}{ours:12,.0f}{theirs:12,.0f}{ratio:8.1f}{verdict}", flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
