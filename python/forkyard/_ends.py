"""The ends of a queue, for those who look for the connections of a standard library's queue."""

from __future__ import annotations

import contextlib
import math
import os
import weakref
from typing import TYPE_CHECKING, Any

from . import _forkyard

if TYPE_CHECKING:
    from collections.abc import Callable

__all__: tuple[str, ...] = ()


class _End:
    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.closed = False

    def _check(self) -> None:
        if self.closed:
            raise OSError("handle is closed")

    def close(self) -> None:
        """Close it: here, not for others."""
        self.closed = True


class Reader(_End):
    """Where messages are taken out. It can be waited for by select, selectors, asyncio and ``connection.wait``."""

    readable, writable = True, False

    _ready: _forkyard.Ready | None = None
    # The descriptor is readable, and stays so while there are messages.
    _told = False

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait for a message, and leave it where it is."""
        self._check()
        ready: bool = self._queue._poll(math.inf if timeout is None else timeout)
        return ready

    def recv(self) -> Any:
        """Take out a message."""
        self._check()
        try:
            return _forkyard.Queue.get(self._queue)
        finally:
            self._look()

    def close(self) -> None:
        """Close it: here, not for others."""
        super().close()
        self._ready = None

    def fileno(self) -> int:
        """Return a descriptor that is readable while there is a message.

        It is this process's own, and so is what it says: when another process takes the last message, it says so only
        after the next call of this. From the first call on the process has a thread more, which sleeps.
        """
        self._check()
        if self._ready is None:
            self._ready, self._told = _forkyard.Ready(self._queue, False), False
            _watched.add(self)
            # Whoever asks once, and then gets again and again, is told of each message.
            for name in ("get", "get_nowait", "get_many"):
                if hasattr(self._queue, name):
                    self._queue.__dict__[name] = self._and_look(getattr(type(self._queue), name))
        self._look()
        return self._ready.fileno()

    def _look(self) -> None:
        if self._ready is None:
            return
        event = self._ready.fileno()
        # Nothing of a queue that another thread closes.
        with contextlib.suppress(OSError, ValueError):
            if self._told and self._queue._poll(0.0):
                return
            self._told = False
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(event)
            # What comes from here on is told; what came before is seen.
            self._ready.arm()
            if self._queue._poll(0.0):
                self._told = True
                os.eventfd_write(event, 1)

    def _and_look(self, get: Callable[..., Any]) -> Callable[..., Any]:
        reader = weakref.proxy(self)

        def and_look(*args: Any, **kwargs: Any) -> Any:
            try:
                return get(reader._queue, *args, **kwargs)
            finally:
                reader._look()

        return and_look


class Writer(_End):
    """Where messages are put."""

    readable, writable = False, True

    def send(self, obj: Any) -> None:
        """Put a message."""
        self._check()
        _forkyard.Queue.put(self._queue, obj)


# Those that have a descriptor; and, in a fork, what its parent had: its thread is not here to let go of it.
_watched: weakref.WeakSet[Reader] = weakref.WeakSet()
_of_parents: list[_forkyard.Ready | None] = []


def _forget() -> None:
    for reader in list(_watched):
        _of_parents.append(reader._ready)
        reader._ready = None
    _watched.clear()


os.register_at_fork(after_in_child=_forget)
