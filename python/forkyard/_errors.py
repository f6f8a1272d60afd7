"""What is raised and warned of beyond the standard library's exceptions."""

from __future__ import annotations

import signal
import threading
import warnings

from .context import ProcessError

__all__ = ["DeadlockError", "OwnerDiedError", "OwnerDiedWarning", "WorkerDiedError"]


class OwnerDiedWarning(RuntimeWarning):
    """A lock was acquired whose last owner died while it had it: what it protects may be half changed.

    Or objects of a ``JoinableQueue`` were got by a process that ended before it reported them as done.
    """


class OwnerDiedError(ProcessError):
    """The same, of a lock made with ``on_owner_death="raise"``. The lock is free; the next one is told nothing."""


class DeadlockError(ProcessError):
    """The lock was not acquired: its owner waits, directly or by way of others, for the caller."""


class WorkerDiedError(ProcessError):
    """A pool's worker ended while it had the task, which may be half done: see ``pid`` and ``exitcode``."""

    def __init__(self, pid: int, exitcode: int) -> None:
        """Say which worker that was, and how it ended: ``exitcode`` is the negative number of a signal."""
        super().__init__(pid, exitcode)
        self.pid, self.exitcode = pid, exitcode

    def __str__(self) -> str:
        """Say what happened."""
        how = f"ended with exit code {self.exitcode}"
        if self.exitcode < 0:
            try:
                how = f"was killed by {signal.Signals(-self.exitcode).name}"
            except ValueError:
                how = f"was killed by signal {-self.exitcode}"
        return f"the pool's worker {self.pid} {how} while it had this task"


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
