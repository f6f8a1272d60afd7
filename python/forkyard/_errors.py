"""What is raised and warned of beyond the standard library's exceptions."""

from __future__ import annotations

import threading
import warnings

from .context import ProcessError

__all__ = ["DeadlockError", "OwnerDiedError", "OwnerDiedWarning"]


class OwnerDiedWarning(RuntimeWarning):
    """A lock was acquired whose last owner died while it had it: what it protects may be half changed.

    Or objects of a ``JoinableQueue`` were got by a process that ended before it reported them as done.
    """


class OwnerDiedError(ProcessError):
    """The same, of a lock made with ``on_owner_death="raise"``. The lock is free; the next one is told nothing."""


class DeadlockError(ProcessError):
    """The lock was not acquired: its owner waits, directly or by way of others, for the caller."""


def owner_died(text: str, raises: bool) -> None:
    """Tell whoever acquired a lock that its last owner died."""
    if raises:
        raise OwnerDiedError(text)
    warnings.warn(text, OwnerDiedWarning, stacklevel=2)


def deadlock(text: str) -> DeadlockError:
    """Return the exception for a deadlock."""
    return DeadlockError(text)


def broken_barrier() -> threading.BrokenBarrierError:
    """Return the exception for a broken barrier."""
    return threading.BrokenBarrierError()
