"""Pools of worker processes: the standard library's, with queues that survive the death of those who use them.

Tasks lie in one queue, from which the workers take them in their order, as with the standard library. A task is a
pickle in a pickle. To unpickle the outer one is part of taking it from the queue, and writes its number into a word
that the pool shares with that worker. So there is no moment at which a task is in nobody's hands. At a worker's death:

- It had none, or its last result is in the queue: nothing but a new worker is seen.
- It was about to take one, and its word says nothing of it: the queue gives that to another worker.
- Its word has the number of a task whose result has not come: that task, or chunk of tasks, fails with a
  ``WorkerDiedError``, as soon as the kernel tells of the death and all is read that was put before. It is not run
  again. (Killed after it wrote the word and before the queue let go of the task: that fails, and what the queue gives
  back is run for the first time, for nobody.)

A worker of which nobody knows whether it lives, because its fork server was killed, puts back what it takes from then
on, and ends.

An argument or a result that cannot be unpickled where it arrives fails its task, too. A pool over a context that is not
this package's own, and ``ThreadPool``, are the standard library's.
"""

from __future__ import annotations

import collections
import copyreg
import ctypes
import itertools
import pickle
import struct
import threading
from multiprocessing import pool as _pool
from multiprocessing.pool import ThreadPool as ThreadPool
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from . import context as _context
from . import popen_fork
from ._errors import WorkerDiedError
from .queues import SimpleQueue
from .sharedctypes import RawArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Pool", "ThreadPool"]


def __getattr__(name: str) -> Any:
    # What is not this module's own.
    return getattr(_pool, name)


# How many tasks are written down before somebody is free to do them, and of what size: with that many no more are read
# from an iterable.
_AHEAD, _AHEAD_BYTES = 64, 2**20
# From this size on, what is pickled is not copied again.
_LARGE = 2**16


class _Sealer:
    """What makes pickles that are unpickled on request, so that it is known whose failure it is if that fails."""

    def __init__(self) -> None:
        self._parts, self._buffers = list[Any](), list[Any]()
        # A pickler needs no more of a file.
        self.write = self._parts.append
        self._pickler = pickle.Pickler(self, 5, buffer_callback=self._keep)
        self._pickler.dispatch_table = _reducers

    def _keep(self, buffer: Any) -> bool:
        if buffer.raw().nbytes < _LARGE:
            return True
        self._buffers.append(buffer)
        return False

    def seal(self, obj: Any) -> Any:
        """Return the pickle, and the large buffers that belong to it."""
        self._pickler.dump(obj)
        self._pickler.clear_memo()
        parts, buffers = self._parts, self._buffers
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if buffers:
            buffers = buffers[:]
            self._buffers.clear()
        return data, buffers


# As the standard library's pickler has them, now and later.
_reducers = collections.ChainMap(ForkingPickler._extra_reducers, copyreg.dispatch_table)  # type: ignore[attr-defined]
_sealers: list[_Sealer] = []


def _seal(obj: Any) -> Any:
    try:
        sealer = _sealers.pop()
    except IndexError:
        sealer = _Sealer()
    sealed = sealer.seal(obj)
    # Not after an error: it may keep half of an object.
    _sealers.append(sealer)
    return sealed


# What this process shares with the pool whose worker it is: the number of the task that it took last, and whether it
# is to take none any more.
_word: Any = None


class _Task:
    """A task in the queue."""

    __slots__ = ("parts",)

    def __init__(self, number: int, data: Any, buffers: Any) -> None:
        large = len(data) >= _LARGE
        self.parts = (number, pickle.PickleBuffer(data) if large else data, *map(pickle.PickleBuffer, buffers))


def _take(number: int, data: Any, *buffers: Any) -> Any:
    _word[0] = number
    return number, data, buffers


# Found sooner than a method of it.
ForkingPickler.register(_Task, lambda task: (_take, task.parts))


class _Inbox:
    """Where a worker gets its tasks."""

    def __init__(self, tasks: SimpleQueue[Any], word: Any) -> None:
        self._tasks, self._word = tasks, word

    def get(self) -> Any:
        global _word
        _word = self._word
        task = self._tasks.get()
        if _word[1]:
            _word[0] = 0
            self._tasks.put(task and _Task(*task))
            return None
        if task is None:
            return None
        number, data, buffers = task
        try:
            return number, None, *pickle.loads(data, buffers=buffers)
        except Exception as error:
            return number, None, _pool._helper_reraises_exception, (error,), {}  # type: ignore[attr-defined]


# What is behind the pickle in a result: the number of the task, how much text there is in between, and whether it
# went well.
_END = struct.Struct("<QI?")


class _Outbox:
    """Where a worker puts its results."""

    def __init__(self, results: SimpleQueue[Any]) -> None:
        self._results = results

    def put(self, result: Any) -> None:
        number, _, (well, value) = result
        data, buffers = _seal(value)
        text = f"<{type(value).__qualname__}>"
        shown = str(text if well else getattr(value, "tb", text)).encode(errors="replace")
        end = shown + _END.pack(number, len(shown), well)
        if buffers or len(data) >= _LARGE:
            self._results.put((end, pickle.PickleBuffer(data), buffers))
        else:
            self._results.put(data + end)


class _Worker:
    """A worker, as the pool sees it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.word = RawArray(ctypes.c_uint64, 2)
        self.process: Any = None


class _Desk:
    """What tasks there are, and what became of them. It stands in the place of the pool's queue of tasks.

    One thread puts tasks, another one gets results, and a third one hires.
    """

    def __init__(self, ctx: Any) -> None:
        self.results: SimpleQueue[Any] = SimpleQueue(ctx=ctx)
        self._tasks: SimpleQueue[Any] = SimpleQueue(ctx=ctx)
        self._workers: dict[int, _Worker] = {}
        # The words of those who may live on unseen.
        self._doubtful: list[Any] = []
        self._numbers, self._hired = itertools.count(1), itertools.count(1)
        # The tasks whose results have not come: job, place and size of each.
        self._open: dict[int, tuple[int, int, int]] = {}
        # Bytes of tasks that were put, and of those that are over: each is written by one thread.
        self._put, self._done = 0, 0
        # Somebody waits until there is room for another task.
        self._full = False
        self._changed = threading.Condition()
        self._over = False

    def hire(self, ctx: Any, keywords: Any) -> Any:
        """Return the process for a new worker."""
        _, _, *others = keywords["args"]
        worker = _Worker(next(self._hired))
        keywords["args"] = (_Inbox(self._tasks, worker.word), _Outbox(self.results), *others)
        worker.process = ctx.Process(**keywords)
        self._workers[worker.number] = worker
        self._tell()
        return worker.process

    def ended(self, process: Any) -> None:
        """Take note of a worker that has ended. What it has put is looked at before."""
        number = next(worker.number for worker in list(self._workers.values()) if worker.process is process)
        self.results.put((number,))

    def _has_room(self, ahead: int) -> bool:
        # Each worker may have one, of any size, and one more may wait.
        more = len(self._open) - len(self._workers)
        return more <= 0 or (more < ahead and self._put - self._done <= _AHEAD_BYTES)

    def _tell(self) -> None:
        """Wake who waits for room: when there is some for several."""
        if self._has_room(_AHEAD // 2):
            with self._changed:
                self._changed.notify()

    def put(self, task: Any) -> None:
        """Put a task, or wait until there is room. None: there is one worker less to be given any."""
        if task is None:
            # Whoever is to take no more puts that back, too, and ends.
            for _ in range(1 + len(self._doubtful)):
                self._tasks.put(None)
            return
        job, place, *call = task
        data, buffers = _seal(call)
        size = len(data)
        for buffer in buffers:
            size += buffer.raw().nbytes
        if not self._has_room(_AHEAD):
            with self._changed:
                # First: whoever makes room from here on tells.
                self._full = True
                while not self._over and not self._has_room(_AHEAD // 2):
                    self._changed.wait()
                self._full = False
        if self._over:
            return
        number = next(self._numbers)
        self._put += size
        self._open[number] = job, place, size
        try:
            self._tasks.put(_Task(number, data, buffers))
        except BaseException:
            # There is no memory for it.
            self._put -= size
            del self._open[number]
            raise

    def get(self) -> Any:
        """Return the next result. None: there are no more."""
        while True:
            message = self.results.get()
            if type(message) is bytes:
                result = self._came(message, message, ())
            elif message is None:
                return None
            else:
                result = self._lost(*message) if len(message) == 1 else self._came(*message)
            if result is not None:
                return result

    def _close(self, number: int) -> Any:
        task = self._open.pop(number, None)
        if task is not None:
            self._done += task[2]
            if self._full:
                self._tell()
        return task

    def _came(self, end: bytes, data: Any, buffers: Any) -> Any:
        number, shown, well = _END.unpack_from(end, len(end) - _END.size)
        task = self._close(number)
        if task is None:
            # It has failed before.
            return None
        try:
            # What is behind a pickle is not looked at.
            return *task[:2], (well, pickle.loads(data, buffers=buffers))
        except Exception as error:
            failure = _pool.MaybeEncodingError(error, None)  # type: ignore[attr-defined]
            failure.value = end[-_END.size - shown : -_END.size].decode()
            return *task[:2], (False, failure)

    def _lost(self, number: int) -> Any:
        worker = self._workers.pop(number)
        if worker.process.exitcode == popen_fork.UNKNOWN:
            # Either it sees this, or its word is seen here: a lock is taken in between. The memory stays its own.
            worker.word[1] = 1
            with self._changed:
                self._doubtful.append(worker.word)
        task = self._close(worker.word[0])
        if task is None:
            return None
        return *task[:2], (False, WorkerDiedError(worker.process.pid, worker.process.exitcode))

    def end(self) -> None:
        """Take no more tasks."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


class _Workers(list):  # type: ignore[type-arg]
    """The pool's list of workers: who is taken out has ended."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

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
