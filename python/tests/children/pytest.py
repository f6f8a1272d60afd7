"""In the place of pytest where a child imports a module with tests.

A child calls a function of that module; what stands in front of the tests is nothing to it. pytest itself would be most
of what a new interpreter takes to begin.
"""

from __future__ import annotations


class _Nothing:
    """A mark, a fixture, a parameter: called with a function, it leaves that as it is."""

    def __getattr__(self, name: str) -> _Nothing:
        return self

    def __call__(self, *args: object, **kwargs: object) -> object:
        return args[0] if len(args) == 1 and callable(args[0]) else self


def __getattr__(name: str) -> _Nothing:
    return _Nothing()
