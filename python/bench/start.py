"""What it costs to start and join a process: Forkyard's start methods against the standard library's, in one run.

python python/bench/start.py [ROUNDS]: medians of the rounds, in which the methods take turns, and ratios to the
standard library's fork.
"""

import multiprocessing
import statistics
import sys
import time

import forkyard

CASES = [
    ("forkyard zygote", forkyard.get_context("zygote"), 40),
    ("standard fork", multiprocessing.get_context("fork"), 40),
    ("forkyard fork", forkyard.get_context("fork"), 40),
    ("standard forkserver", multiprocessing.get_context("forkserver"), 20),
    ("forkyard forkserver", forkyard.get_context("forkserver"), 20),
    ("standard spawn", multiprocessing.get_context("spawn"), 3),
    ("forkyard spawn", forkyard.get_context("spawn"), 3),
]


def nothing():
    """Do nothing."""


def milliseconds(context, times):
    """Start and join so many processes, one after the other: the mean time of one."""
    begin = time.perf_counter()
    for _ in range(times):
        process = context.Process(target=nothing)
        process.start()
        process.join()
        assert process.exitcode == 0
    return (time.perf_counter() - begin) / times * 1000


def main(rounds):
    """Print the table."""
    for _, context, _ in CASES:
        milliseconds(context, 2)
    taken = {name: [] for name, _, _ in CASES}
    for _ in range(rounds):
        for name, context, times in CASES:
            taken[name].append(milliseconds(context, times))
    fork = statistics.median(taken["standard fork"])
    print(f"Python {sys.version.split()[0]}, start and join of a function that does nothing, {rounds} rounds")
    for name, times in taken.items():
        median = statistics.median(times)
        spread = f"({min(times):.2f} to {max(times):.2f})"
        print(f"{name:20} {median:8.2f} ms   {median / fork:6.2f} x standard fork   {spread}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
