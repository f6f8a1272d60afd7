"""Pools of worker processes: the standard library's, with a channel of its own for each worker.

So it is known who has which task, and no lock is shared by processes that may be killed. At a worker's death:

- It was waiting for a task, or had not begun with the one that was on its way: nothing but a new worker is seen.
- It had begun with a task, up to the moment when the result is in the queue: that task, or chunk of tasks, fails with a
  ``WorkerDiedError``, as soon as the kernel tells of the death. It is not run again. The others go on.

An argument or a result that cannot be unpickled where it arrives fails its task, too. A pool over a context that is not
this package's own, and ``ThreadPool``, are the standard library's.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import io
import pickle
import threading
from multiprocessing import pool as _pool
from multiprocessing.pool import ThreadPool as ThreadPool
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from . import context as _context
from . import popen_fork
from ._errors import WorkerDiedError
from .queues import Empty, SimpleQueue
from .sharedctypes import RawValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Pool", "ThreadPool"]


def __getattr__(name: str) -> Any:
    # What is not this module's own.
    return getattr(_pool, name)


# How many tasks are written down before somebody is free to do them, and of what size: with that many no more are read
# from an iterable.
_AHEAD, _AHEAD_BYTES = 64, 2**20
_LARGE = 2**16


def _seal(obj: Any) -> Any:
    """Return an object pickled, to be unpickled on request: so it is known whose failure it is if that fails."""
    file, buffers = io.BytesIO(), list[Any]()
    ForkingPickler(file, 5, True, buffers.append).dump(obj)
    data = file.getbuffer()
    # What is large is not copied again.
    return (bytes(data) if len(data) < _LARGE else pickle.PickleBuffer(data)), buffers


def _open(sealed: Any) -> Any:
    data, buffers = sealed
    return pickle.loads(data, buffers=buffers)


def _size(sealed: Any) -> int:
    return sum(memoryview(buffer).nbytes for buffer in (sealed[0], *sealed[1]))


class _Inbox:
    """Where a worker gets its tasks."""

    def __init__(self, tasks: SimpleQueue[Any], begun: Any, outbox: _Outbox) -> None:
        self._tasks, self._begun, self._outbox = tasks, begun, outbox

    def get(self) -> Any:
        while True:
            message = self._tasks.get()
            if message is None:
                return None
            self._begun.value += 1
            job, place, sealed = message
            try:
                return job, place, *_open(sealed)
            except Exception as error:
                self._outbox.put((job, place, (False, error)))


class _Outbox:
    """Where a worker puts its results."""

    def __init__(self, results: SimpleQueue[Any], number: int) -> None:
        self._results, self._number = results, number

    def put(self, result: Any) -> None:
        job, place, (well, value) = result
        shown = getattr(value, "tb", f"<{type(value).__qualname__}>")
        self._results.put((self._number, job, place, well, shown, _seal(value)))


class _Worker:
    """A worker, as the pool sees it."""

    def __init__(self, number: int, tasks: SimpleQueue[Any], begun: Any, lasts: int | None) -> None:
        self.number, self.tasks, self.begun, self.lasts = number, tasks, begun, lasts
        self.process: Any = None
        # How many tasks it was given, and the last of them, if its result has not come.
        self.given = 0
        self.task: Any = None


class _Desk:
    """Who has which task. It stands in the place of the pool's queue of tasks."""

    def __init__(self, ctx: Any) -> None:
        self.results: SimpleQueue[Any] = SimpleQueue(ctx=ctx)
        self._ctx = ctx
        self._changed = threading.Condition()
        self._workers: dict[int, _Worker] = {}
        self._idle: collections.deque[_Worker] = collections.deque()
        # Tasks that nobody has yet, and their size.
        self._waiting: collections.deque[Any] = collections.deque()
        self._size = 0
        self._hired = 0
        self._over = False

    def hire(self, ctx: Any, keywords: Any) -> Any:
        """Return the process for a new worker."""
        _, _, initializer, initargs, lasts, wraps = keywords["args"]
        with self._changed:
            self._hired += 1
            worker = _Worker(self._hired, SimpleQueue(ctx=self._ctx), RawValue(ctypes.c_uint64), lasts)
        outbox = _Outbox(self.results, worker.number)
        inbox = _Inbox(worker.tasks, worker.begun, outbox)
        keywords["args"] = (inbox, outbox, initializer, initargs, lasts, wraps)
        worker.process = ctx.Process(**keywords)
        self._workers[worker.number] = worker
        return worker.process

    def _of(self, process: Any) -> _Worker:
        return next(worker for worker in list(self._workers.values()) if worker.process is process)

    def began(self, process: Any) -> None:
        """Take note of a worker that has been started."""
        with self._changed:
            self._next(self._of(process))

    def ended(self, process: Any) -> None:
        """Take note of a worker that has ended. What it has put is looked at before."""
        self.results.put((self._of(process).number,))

    def _next(self, worker: _Worker) -> None:
        if worker.lasts is not None and worker.given >= worker.lasts:
            return
        if not self._waiting:
            self._idle.append(worker)
            return
        task = self._waiting.popleft()
        self._size -= _size(task[2])
        self._give(worker, task)
        if len(self._waiting) == _AHEAD // 2 or not self._waiting:
            self._changed.notify()

    def _give(self, worker: _Worker, task: Any) -> None:
        try:
            worker.tasks.put(task)
        except Exception as error:
            # There is no memory for it: as if the worker had told so.
            _Outbox(self.results, worker.number).put((*task[:2], (False, error)))
        else:
            worker.given += 1
            worker.task = task

    def put(self, task: Any) -> None:
        """Give a task to somebody who has none, or keep it until there is one. None: there are no more."""
        if task is None:
            self._dismiss()
            return
        job, place, *call = task
        sealed = _seal(call)
        with self._changed:
            while not self._over and (len(self._waiting) >= _AHEAD or self._size > _AHEAD_BYTES):
                self._changed.wait()
            if self._over:
                return
            if self._idle:
                self._give(self._idle.popleft(), (job, place, sealed))
            else:
                self._waiting.append((job, place, sealed))
                self._size += _size(sealed)

    def _dismiss(self) -> None:
        with self._changed:
            while self._idle:
                self._idle.popleft().tasks.put(None)

    def get(self) -> Any:
        """Return the next result. None: there are no more."""
        while True:
            message = self.results.get()
            if message is None:
                return None
            with self._changed:
                result = self._lost(*message) if len(message) == 1 else self._came(*message)
            if result is not None:
                return result

    def _came(self, number: int, job: int, place: int, well: bool, shown: str, sealed: Any) -> Any:
        worker = self._workers.get(number)
        if worker is None:
            # Nobody knew that it lived, and its task has failed.
            return None
        worker.task = None
        self._next(worker)
        try:
            return job, place, (well, _open(sealed))
        except Exception as error:
            failure = _pool.MaybeEncodingError(error, None)  # type: ignore[attr-defined]
            failure.value = shown
            return job, place, (False, failure)

    def _lost(self, number: int) -> Any:
        worker = self._workers.pop(number)
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        task = worker.task
        if task is None:
            return None
        if worker.begun.value == worker.given or not self._gives_back(worker):
            return *task[:2], (False, WorkerDiedError(worker.process.pid, worker.process.exitcode))
        if self._idle:
            self._give(self._idle.popleft(), task)
        else:
            self._waiting.appendleft(task)
            self._size += _size(task[2])
        return None

    def _gives_back(self, worker: _Worker) -> bool:
        """Tell whether a worker that had not begun with its task will not do so later."""
        try:
            worker.tasks._get_now()  # type: ignore[attr-defined]
        except Empty:
            # If its fork server was killed nobody knows whether it lives.
            return bool(worker.process.exitcode != popen_fork.UNKNOWN)
        finally:
            worker.tasks.put(None)
        return True

    def end(self) -> None:
        """Give nobody anything any more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


class _Workers(list):  # type: ignore[type-arg]
    """The pool's list of workers: who is in it has been started, and who is taken out has ended."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

    def append(self, process: Any) -> None:
        super().append(process)
        self._desk.began(process)

    def __delitem__(self, place: Any) -> None:
        process = self[place]
        super().__delitem__(place)
        self._desk.ended(process)


class Pool(_pool.Pool):
    """A pool of worker processes. A task whose worker dies fails with a ``WorkerDiedError``."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        """Start the workers: as many as there are processors if no number is given."""
        context = context or _context._default_context.get_context()
        super().__init__(processes, initializer, initargs, maxtasksperchild, context)

    def _setup_queues(self) -> None:
        ctx = self._ctx  # type: ignore[attr-defined]
        if not isinstance(ctx, _context._Factories):
            super()._setup_queues()  # type: ignore[misc]
            return
        self._inqueue = desk = _Desk(ctx)
        self._pool = _Workers(desk)
        self._outqueue = desk.results
        self._quick_put, self._quick_get = desk.put, desk.get

    def _get_sentinels(self) -> list[Any]:
        if not isinstance(self._inqueue, _Desk):
            return super()._get_sentinels()
        return [self._change_notifier._reader]  # type: ignore[attr-defined]

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        """Return the process for a new worker."""
        desk = kwds["args"][0]
        return desk.hire(ctx, kwds) if isinstance(desk, _Desk) else ctx.Process(*args, **kwds)

    def _map_async(
        self, func: Any, iterable: Any, mapper: Any, chunksize: int | None = None, *callbacks: Any, **others: Any
    ) -> Any:
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        if chunksize is None:
            # By how many workers there are to be: for a moment there may be none.
            chunksize = -(-len(iterable) // (4 * self._processes))  # type: ignore[attr-defined]
        return super()._map_async(func, iterable, mapper, chunksize, *callbacks, **others)  # type: ignore[misc]

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        if isinstance(inqueue, _Desk):
            inqueue.end()
        else:
            _pool.Pool._help_stuff_finish(inqueue, task_handler, size)  # type: ignore[attr-defined]
