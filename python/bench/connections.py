"""A pipe, there and back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from common import Case, plain


def echo(end: Any) -> None:
    while (message := end.recv()) is not None:
        end.send(message)


def round_trip(message: Any, library: Any, seconds: float) -> float:
    mine, its = library.get_context("fork").Pipe()
    process = plain.Process(target=echo, args=(its,))
    process.start()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        mine.send(message)
        mine.recv()
        count += 1
    found = count / (time.perf_counter() - start)
    mine.send(None)
    process.join()
    return found


def cases() -> Iterator[Case]:
    """Return what is measured."""
    yield Case("Pipe there and back, int", partial(round_trip, 7), unit="us")
    yield Case("Pipe there and back, 1 MiB", partial(round_trip, b"x" * (1 << 20)), unit="us")
