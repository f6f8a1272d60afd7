"""Queues in shared memory, which survive the death of their users.

When ``put`` has returned the object is in the queue, whatever becomes of its process; there is no thread that feeds a
pipe. Each class derives from the standard library's as well, whose interface it has.
"""

from __future__ import annotations

import contextlib
import os
import types
from multiprocessing import context, queues
from multiprocessing.queues import Empty as Empty
from multiprocessing.queues import Full as Full
from typing import TYPE_CHECKING, Any

from . import _ends, _family, _forkyard
from .synchronize import _FORK_ONLY

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

os.register_at_fork(before=_forkyard.detach)

_UNBOUNDED = 2**31 - 1
_put, _get = _forkyard.Queue.put, _forkyard.Queue.get


class _Queue(_forkyard.Queue):
    """What all kinds of queues have in common."""

    # One that was made for forks is refused to other children, as the standard library's is.
    _is_fork_ctx = False

    def _attach_to(self, family: Any, state: bytes, maxsize: int) -> None:
        _family.join(family)
        self._attach(state, maxsize)

    def _state_for_child(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        if self._is_fork_ctx:
            raise RuntimeError(_FORK_ONLY)
        popen = context.get_spawning_popen()
        _family.keep(self)
        return _family.handle(popen), self._state()

    @property
    def _reader(self) -> _ends.Reader:
        reader = self.__dict__.get("_forkyard_reader")
        if reader is None:
            reader = self.__dict__["_forkyard_reader"] = _ends.Reader(self)
        return reader

    @property
    def _writer(self) -> _ends.Writer:
        writer = self.__dict__.get("_forkyard_writer")
        if writer is None:
            writer = self.__dict__["_forkyard_writer"] = _ends.Writer(self)
        return writer

    async def get_async(self) -> Any:
        """Take out the next object, waiting for one in asyncio if need be."""
        return await self._patiently(self._get_now, False)

    async def put_async(self, obj: Any) -> None:
        """Put an object, waiting in asyncio for room if need be."""
        await self._patiently(lambda: self._put_now(obj), True)

    def _get_now(self) -> Any:
        return _get(self, False)

    def _put_now(self, obj: Any) -> None:
        _put(self, obj, False)

    async def _patiently(self, call: Callable[[], Any], puts: bool) -> Any:
        with contextlib.suppress(Empty, Full):
            return call()
        import asyncio

        loop = asyncio.get_running_loop()
        ready = _forkyard.Ready(self, puts)
        while True:
            # What comes from here on is told; what came before is seen.
            ready.arm()
            with contextlib.suppress(Empty, Full):
                return call()
            told = asyncio.Event()
            loop.add_reader(ready.fileno(), told.set)
            try:
                await told.wait()
            finally:
                loop.remove_reader(ready.fileno())

    def _unpicklable(self, error: Exception, obj: Any) -> None:
        raise error

    def _refusal(self) -> Exception:
        return ValueError(f"Queue {self!r} is closed")


@_forkyard.quick_queue
class Queue(_Queue, queues.Queue):  # type: ignore[type-arg]
    """A queue of any objects that can be pickled, for any number of processes that put and that get."""

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        """Make a queue; with room for ``maxsize`` objects, if that is more than 0."""
        self._maxsize = maxsize if 0 < maxsize < _UNBOUNDED else _UNBOUNDED
        self._make(0 if self._maxsize == _UNBOUNDED else maxsize)
        self._ignore_epipe = False
        self._opid = os.getpid()
        self._is_fork_ctx = ctx.get_start_method() == "fork"

    def __getstate__(self) -> Any:
        return (*self._state_for_child(), self._maxsize, self._ignore_epipe, self._opid)

    def __setstate__(self, state: Any) -> None:
        family, shared, self._maxsize, self._ignore_epipe, self._opid = state
        self._attach_to(family, shared, 0 if self._maxsize == _UNBOUNDED else self._maxsize)

    def _get_now(self) -> Any:
        return self.get(False)

    def _put_now(self, obj: Any) -> None:
        self.put(obj, False)

    def close(self) -> None:
        """Say that this process puts and gets no more. What it has put stays."""
        self._close()
        for name in ("_forkyard_reader", "_forkyard_writer"):
            if name in self.__dict__:
                self.__dict__[name].close()

    def join_thread(self) -> None:
        """Do nothing: there is no thread, and what was put is in the queue."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no thread."""

    def _terminate_broken(self) -> None:
        self._close()

    def _unpicklable(self, error: Exception, obj: Any) -> None:
        if self._on_queue_feeder_error is queues.Queue._on_queue_feeder_error:
            raise error
        self._on_queue_feeder_error(error, obj)

    __class_getitem__ = classmethod(types.GenericAlias)


@_forkyard.quick_queue
class JoinableQueue(Queue, queues.JoinableQueue):  # type: ignore[type-arg]
    """A queue whose objects are reported as done.

    What a process had got and not reported when it ended is waited for by nobody: ``join`` warns of it.
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        """Make a queue; with room for ``maxsize`` objects, if that is more than 0."""
        super().__init__(maxsize, ctx=ctx)
        self._make_joinable()

    def __getstate__(self) -> Any:
        return (*super().__getstate__(), self._joinable_state())

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[:-1])
        self._attach_joinable(state[-1])

    # Native, so that a warning is told of the caller.
    task_done = _forkyard.Queue._task_done
    join = _forkyard.Queue._join


@_forkyard.quick_simple_queue
class SimpleQueue(_Queue, queues.SimpleQueue):  # type: ignore[type-arg]
    """A queue without a bound and without time-outs."""

    def __init__(self, *, ctx: Any) -> None:
        """Make a queue."""
        self._make(0)
        self._is_fork_ctx = ctx.get_start_method() == "fork"

    def __getstate__(self) -> Any:
        return self._state_for_child()

    def __setstate__(self, state: Any) -> None:
        self._attach_to(*state, 0)

    def empty(self) -> bool:
        """Return true if there is nothing in it."""
        self._reader._check()
        return self.qsize() == 0

    def close(self) -> None:
        """Say that this process puts and gets no more."""
        self._reader.close()
        self._writer.close()
        self._close()

    def _refusal(self) -> Exception:
        return OSError("handle is closed")

    __class_getitem__ = classmethod(types.GenericAlias)


def simple(ctx: Any, caller: str) -> Any:
    """Return a simple queue for a caller in that module.

    The standard library's pools and executors look for the pipe in it, whose descriptor they wait for.
    """
    if caller in _PIPES:
        return queues.SimpleQueue(ctx=ctx)
    return SimpleQueue(ctx=ctx)


_PIPES = ("multiprocessing.pool", "concurrent.futures.process")
