"""How the benchmarks measure: libraries take turns within a round, and what is told is the median of the rounds."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import forkyard

# Waiting for each other before a measurement is done with these, whoever is measured.
plain = multiprocessing.get_context("fork")

Measure = Callable[[Any, float], float]


@dataclass
class Case:
    """Something that is done: ``measure(library, seconds)`` returns how often a second."""

    name: str
    measure: Measure
    # The figure that is printed: how often a second, or how long one takes.
    unit: str = "/s"
    # So many times as fast as the first of the others.
    budget: float | None = None
    # By the name of the column: ``measure`` gets these.
    libraries: dict[str, Any] = field(default_factory=lambda: {"forkyard": forkyard, "stdlib": multiprocessing})


def told(rate: float, unit: str) -> str:
    """Return a figure in this unit."""
    if rate == 0:
        return "failed"
    if unit == "/s":
        return f"{rate:,.0f}/s"
    return f"{ {'ns': 1e9, 'us': 1e6, 'ms': 1e3}[unit] / rate:,.4g} {unit}"


def run(cases: Iterator[Case], rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Measure all, print a line each, and return all rates."""
    figures: dict[str, dict[str, list[float]]] = {}
    print(f"{'':30}{'forkyard':>14}{'stdlib':>14}{'ratio':>8}{'budget':>8}")
    missed = 0
    for case in cases:
        rates: dict[str, list[float]] = {name: [] for name in case.libraries}
        for _ in range(rounds):
            for name, library in case.libraries.items():
                rates[name].append(case.measure(library, seconds))
        figures[case.name] = rates
        medians = {name: statistics.median(found) for name, found in rates.items()}
        ours, theirs, *others = medians.values()
        ratio = ours / theirs
        line = f"{case.name:30}{told(ours, case.unit):>14}{told(theirs, case.unit):>14}{ratio:8.2f}"
        if case.budget is not None:
            line += f"{case.budget:8.4g}"
            if ratio < case.budget:
                line += " missed"
                missed += 1
        for name, other in zip(list(medians)[2:], others, strict=True):
            line += f"   {name} {told(other, case.unit)}"
            if other:
                line += f", ratio {ours / other:.2f}"
        print(line, flush=True)
    print(f"ratio: how many times as fast as the standard library. Budgets missed: {missed}")
    return figures
