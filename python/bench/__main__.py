"""What is measured of forkyard, against multiprocessing in the same run.

    python python/bench [--quick] [--only TEXT] [--rounds 5] [--seconds 0.5] [--json FILE]

Each line: the median of rounds in which the libraries take turns, how many times as fast forkyard is, and what it is to
be at least; a missed budget is printed, and fails nothing. Arrays are measured where NumPy is installed, and
faster-fifo where that is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import chain

import connections
import locks
import pools
import queues
import start
from common import run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the time for each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--only", default="", help="what has this in its name")
    parser.add_argument("--json", help="where all rounds are written")
    options = parser.parse_args()
    print(f"CPython {sys.version.split()[0]}, {os.cpu_count()} CPUs, {options.rounds} rounds")
    wanted = {"NumPy": queues.MESSAGES.get("8 MB array"), "faster-fifo": queues.LIBRARIES.get("faster-fifo")}
    for name, found in wanted.items():
        if found is None:
            print(f"{name} is not installed: skipped")
    every = chain(start.cases(), queues.cases(), connections.cases(), locks.cases(), pools.cases())
    seconds = options.seconds / 5 if options.quick else options.seconds
    figures = run((case for case in every if options.only in case.name), options.rounds, seconds)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
