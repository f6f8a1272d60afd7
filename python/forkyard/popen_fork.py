"""Starting a child as a copy of this process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from multiprocessing import popen_fork, util
from typing import Any

from . import _family, _forkyard

__all__ = ["Popen"]

# This process's ends of the pipes by which its children see that it lives. A fork must not keep them open.
_lifelines: set[int] = set()


class Popen(popen_fork.Popen):
    """A child that is a copy of this process."""

    _fds: list[int]

    def _launch(self, process_obj: Any) -> None:
        with contextlib.suppress(OSError):
            # Made now, the shared memory is the child's as well.
            _forkyard.arena()
        super()._launch(process_obj)  # type: ignore[misc]
        fds = self.finalizer._args  # type: ignore[union-attr]
        self.finalizer.cancel()  # type: ignore[union-attr]
        self._hold(*fds)

    def _hold(self, *fds: int) -> None:
        """Close these with this object. The last one is what the child watches."""
        _lifelines.add(fds[-1])
        self.finalizer = util.Finalize(self, _close, fds)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, if the child has ended."""
        if self.returncode is None and super().poll(flag) is not None:
            _family.ended(self)
        return self.returncode


def _close(*fds: int) -> None:
    _lifelines.discard(fds[-1])
    util.close_fds(*fds)  # type: ignore[attr-defined]


def _let_go() -> None:
    for fd in _lifelines:
        with contextlib.suppress(OSError):
            os.close(fd)
    _lifelines.clear()


os.register_at_fork(after_in_child=_let_go)


def begin(process_obj: Any, parent_sentinel: int | None) -> None:
    """In a child: say who it is, and let the kernel end it with its parent if it is a daemon.

    The parent's end of the pipe is closed when the parent ends, however that happens; the kernel then sends the signal.
    """
    _forkyard.introduce(process_obj.name, process_obj.daemon)
    if not process_obj.daemon or parent_sentinel is None:
        return
    fcntl.fcntl(parent_sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(parent_sentinel, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(parent_sentinel, fcntl.F_GETFL)
    fcntl.fcntl(parent_sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
    ready = select.poll()
    ready.register(parent_sentinel, 0)
    if ready.poll(0):
        # It had ended before.
        os.kill(os.getpid(), signal.SIGKILL)
