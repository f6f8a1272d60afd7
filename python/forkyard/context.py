"""Contexts: one for each start method, and the default one.

They are subclasses of the standard library's, whose modules keep the chosen start method, the process that is being
spawned and the current process. So whatever accepts a ``multiprocessing`` context accepts these: executors, joblib,
PyTorch. What the factories make is Forkyard's own.
"""

from __future__ import annotations

import sys
from multiprocessing import context as _context
from multiprocessing import process as _process
from multiprocessing.context import AuthenticationError as AuthenticationError
from multiprocessing.context import BaseContext as BaseContext
from multiprocessing.context import BufferTooShort as BufferTooShort
from multiprocessing.context import ProcessError as ProcessError
from multiprocessing.context import TimeoutError as TimeoutError
from multiprocessing.context import assert_spawning as assert_spawning
from multiprocessing.context import get_spawning_popen as get_spawning_popen
from multiprocessing.context import set_spawning_popen as set_spawning_popen
from typing import TYPE_CHECKING, Any

from . import reduction as reduction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.process import BaseProcess

    from . import connection, managers, pool, queues, synchronize

__all__: tuple[str, ...] = ()


class _Factories:
    """What makes each object Forkyard's own."""

    if TYPE_CHECKING:

        def get_context(self, method: str | None = None) -> Any: ...

    def Manager(self) -> managers.SyncManager:
        """Return a manager with a running server process, whose methods make shared objects."""
        from .managers import SyncManager
        from .pool import Pool

        manager = SyncManager(ctx=self.get_context())
        # Workers of its pools end with the server process, as workers of this package's pools do.
        registry = vars(SyncManager)["_registry"]
        vars(manager)["_registry"] = registry | {"Pool": (Pool, *registry["Pool"][1:])}
        manager.start()
        return manager

    def Pipe(self, duplex: bool = True) -> tuple[connection.Connection, connection.Connection]:
        """Return two connection objects connected by a pipe."""
        from .connection import Pipe

        return Pipe(duplex)

    def Lock(self, *, on_owner_death: str = "warn", on_deadlock: str = "raise") -> synchronize.Lock:
        """Return a lock that is not recursive.

        If its owner dies the next one gets it, with an ``OwnerDiedWarning``; or an ``OwnerDiedError`` instead, if
        ``on_owner_death`` is ``"raise"``. If its owner waits for the caller the caller gets a ``DeadlockError``; if
        ``on_deadlock`` is ``"wait"`` it waits on: for a lock that is used to signal, and that somebody else releases.
        """
        from .synchronize import Lock

        return Lock(ctx=self.get_context(), on_owner_death=on_owner_death, on_deadlock=on_deadlock)

    def RLock(self, *, on_owner_death: str = "warn", on_deadlock: str = "raise") -> synchronize.RLock:
        """Return a recursive lock. The death of its owner, and a deadlock, are told as for a ``Lock``."""
        from .synchronize import RLock

        return RLock(ctx=self.get_context(), on_owner_death=on_owner_death, on_deadlock=on_deadlock)

    def Condition(self, lock: Any = None) -> synchronize.Condition:
        """Return a condition."""
        from .synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> synchronize.Semaphore:
        """Return a semaphore."""
        from .synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> Any:
        """Return a semaphore that is not released more often than it was acquired.

        The permits that a process has when it ends come back.
        """
        from .synchronize import bounded

        return bounded(value, self.get_context(), sys._getframe(1).f_globals.get("__name__", ""))

    def Event(self) -> synchronize.Event:
        """Return an event."""
        from .synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
    ) -> synchronize.Barrier:
        """Return a barrier."""
        from .synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Queue(self, maxsize: int = 0) -> queues.Queue[Any]:
        """Return a queue."""
        from .queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> queues.JoinableQueue[Any]:
        """Return a queue whose items are reported as done."""
        from .queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> Any:
        """Return a queue without a bound and without time-outs."""
        from .queues import simple

        return simple(self.get_context(), sys._getframe(1).f_globals.get("__name__", ""))

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> pool.Pool:
        """Return a pool of worker processes."""
        from .pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, context=self.get_context())

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """Return a shared ctypes object."""
        from .sharedctypes import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """Return a shared ctypes array."""
        from .sharedctypes import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """Return a shared ctypes object with a lock."""
        from .sharedctypes import Value

        return Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """Return a shared ctypes array with a lock."""
        from .sharedctypes import Array

        return Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context())

    def set_forkserver_preload(self, module_names: list[str]) -> None:
        """Set the modules that the zygote and the fork server import before they are copied: a hint."""
        from .forkserver import set_forkserver_preload

        set_forkserver_preload(module_names)


class _Child:
    """How a child is started, and what it does before its target runs."""

    def start(self) -> None:
        """Start the child."""
        from . import _interrupt

        _interrupt.undisturbed(super().start)  # type: ignore[misc]

    def join(self, timeout: float | None = None) -> None:
        """Wait until the child has ended, or for that many seconds."""
        super().join(timeout)  # type: ignore[misc]
        if self._popen is not None and self._popen.returncode is not None:  # type: ignore[attr-defined]
            # Now: an interrupt is lost that comes while things are collected.
            vars(_process)["_dangling"].discard(self)

    def _bootstrap(self, parent_sentinel: int | None = None) -> Any:
        from . import _interrupt
        from .popen_fork import begin

        guard = _interrupt.Guard(self)
        begin(self, parent_sentinel)
        method = self._start_method  # type: ignore[attr-defined]
        if method is not None:
            # The standard library does the same next.
            _default_context._adopt(method, _real_contexts[method])
        code = super()._bootstrap(parent_sentinel)  # type: ignore[misc]
        guard.tell()
        return code


class Process(_Child, _context.Process):
    """A process, started by the method that was chosen."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        return _default_context.get_context().Process._Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        _default_context.get_context().Process._after_fork()


class ForkProcess(_Child, _context.ForkProcess):
    """A process that begins as a copy of this one."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        from .popen_fork import Popen

        return Popen(process_obj)


class SpawnProcess(_Child, _context.SpawnProcess):
    """A process that begins with a new interpreter."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        from .popen_spawn_posix import Popen

        return Popen(process_obj)


class ForkServerProcess(_Child, _context.ForkServerProcess):
    """A process that begins as a copy of a server process."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        from .popen_forkserver import Popen

        return Popen(process_obj)


class ZygoteProcess(_Child, _process.BaseProcess):
    """A process that begins as a copy of one that is kept for that."""

    _start_method = "zygote"

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        from .popen_zygote import popen

        return popen(process_obj)


class _Concrete(_Factories):
    """A context of one start method."""

    def get_context(self, method: str | None = None) -> Any:
        """Return the context of that start method; this one if none is named."""
        return self if method is None else _context_of(method)


class ForkContext(_Concrete, _context.ForkContext):
    """Starts processes as copies of this one."""

    Process = ForkProcess


class SpawnContext(_Concrete, _context.SpawnContext):
    """Starts processes with a new interpreter."""

    Process = SpawnProcess


class ForkServerContext(_Concrete, _context.ForkServerContext):
    """Starts processes as copies of a server process."""

    Process = ForkServerProcess


class ZygoteContext(_Concrete, _context.BaseContext):
    """Starts processes as copies of one that is kept for that, and has imported the main module."""

    _name = "zygote"
    Process = ZygoteProcess


class DefaultContext(_Factories, _context.DefaultContext):
    """Starts processes by the method that was chosen, here or for the standard library; by the zygote if none was.

    A choice that is made here is one for the standard library as well. That the zygote is the default here is not.
    """

    Process = Process

    def __init__(self) -> None:
        """Choose nothing."""
        self._actual: Any = None
        # What the standard library had at the last look.
        self._seen: Any = None

    def _look(self) -> Any:
        """Return the chosen context, which may have been chosen for the standard library."""
        theirs = _real_default._actual_context
        if theirs is not self._seen:
            # Its first use of its own default looks like a choice of it, and is none.
            if self._seen is not None or theirs is not _real_default._default_context:
                self._actual = None if theirs is None else _concrete_contexts.get(theirs._name)
            self._seen = theirs
        return self._actual

    def _adopt(self, method: str | None, theirs: Any) -> None:
        """In a child: have what the parent has chosen, or what the child was started by."""
        self._actual = None if method is None else _concrete_contexts[method]
        self._seen = theirs

    def get_context(self, method: str | None = None) -> Any:
        """Return the context of that start method; of the chosen one if none is named."""
        if method is not None:
            return _context_of(method)
        if self._look() is None:
            self._actual = _concrete_contexts["zygote"]
        return self._actual

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Choose the start method: once, unless ``force`` is true."""
        if self._look() is not None and not force:
            raise RuntimeError("context has already been set")
        if method is None and not force:
            raise ValueError(f"cannot find context for {method!r}")
        self._actual = None if method is None else _context_of(method)
        _real_default.set_start_method(method, force=True)
        self._seen = _real_default._actual_context

    def get_start_method(self, allow_none: bool = False) -> Any:
        """Return the name of the chosen start method."""
        if allow_none and self._look() is None:
            return None
        return self.get_context()._name

    def get_all_start_methods(self) -> list[str]:
        """Return the names of the start methods, the default one first."""
        return list(_concrete_contexts)


def _context_of(method: str) -> Any:
    try:
        context = _concrete_contexts[method]
    except KeyError:
        raise ValueError(f"cannot find context for {method!r}") from None
    context._check_available()
    return context


_real_default: Any = _context._default_context
_concrete_contexts: dict[str, Any] = {
    "zygote": ZygoteContext(),
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}
# A child of the zygote tells the standard library, too, what it was started by.
_real_contexts: dict[str, Any] = vars(_context)["_concrete_contexts"]
_real_contexts["zygote"] = _concrete_contexts["zygote"]
_default_context = DefaultContext()
