"""Locks and the other means to wait for one another, on words in shared memory that survive the death of their users.

Each class derives from the standard library's as well, whose representation and interface it has.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import sys
import threading
from multiprocessing import context, synchronize
from multiprocessing.synchronize import SemLock as SemLock
from typing import TYPE_CHECKING, Any

from . import _family, _forkyard
from ._errors import OwnerDiedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

RECURSIVE_MUTEX, SEMAPHORE = 0, 1
SEM_VALUE_MAX: int = 2**31 - 1

_FORK_ONLY = (
    "A SemLock created in a fork context is being shared with a process in a spawn context. This is not supported. "
    "Please use the same context to create multiprocessing objects and Process."
)


class _Shared:
    """An object in the family's shared memory: it travels to children while they are started."""

    _is_fork_ctx: bool
    _state: Any

    def _start(self, ctx: Any) -> None:
        if ctx is None:
            from .context import _default_context

            ctx = _default_context.get_context()
        self._is_fork_ctx = ctx.get_start_method() == "fork"

    def __reduce__(self) -> Any:
        context.assert_spawning(self)
        if self._is_fork_ctx:
            raise RuntimeError(_FORK_ONLY)
        popen = context.get_spawning_popen()
        _family.keep(self)
        return _attach, (type(self), _family.handle(popen), self._state())


def _attach(kind: Any, family: Any, state: tuple[Any, ...]) -> Any:
    _family.join(family)
    shared = kind.__new__(kind)
    shared._attach(*state)
    shared._is_fork_ctx = False
    return shared


class _SemLock(_Shared):
    """What the standard library's classes look for in a lock or semaphore."""

    name = None

    @property
    def _semlock(self) -> Any:
        return self


class _Nothing:
    """In the place of the semaphores that the standard library's condition counts its waiters with."""

    def get_value(self) -> int:
        return 0

    _get_value = get_value

    @property
    def _semlock(self) -> _Nothing:
        return self


@_forkyard.quick_lock
class Lock(_SemLock, _forkyard.Lock, synchronize.Lock):
    """A lock that is not recursive. Any process or thread may release it."""

    # Nothing lies in its dictionary: so its methods are found fast.
    __slots__ = ("_is_fork_ctx",)

    def __init__(self, *, ctx: Any, on_owner_death: str = "warn", on_deadlock: str = "raise") -> None:
        """Make a lock that is free."""
        self._make(_place(), *_told(on_owner_death, on_deadlock))
        self._start(ctx)


@_forkyard.quick_lock
class RLock(_SemLock, _forkyard.RLock, synchronize.RLock):
    """A recursive lock. The thread that has it releases it, as often as it acquired it."""

    __slots__ = ("_is_fork_ctx",)

    def __init__(self, *, ctx: Any, on_owner_death: str = "warn", on_deadlock: str = "raise") -> None:
        """Make a lock that is free."""
        self._make(_place(), *_told(on_owner_death, on_deadlock))
        self._start(ctx)


@_forkyard.quick_lock
class Semaphore(_SemLock, _forkyard.Semaphore, synchronize.Semaphore):
    """A number of permits. They belong to nobody, and no death changes their number."""

    __slots__ = ("_is_fork_ctx",)

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        """Make a semaphore with so many permits."""
        self._make(_checked(value), SEM_VALUE_MAX)
        self._start(ctx)

    def _get_value(self) -> int:
        return self.get_value()

    def _is_zero(self) -> bool:
        return self.get_value() == 0


@_forkyard.quick_lock
class BoundedSemaphore(_SemLock, _forkyard.BoundedSemaphore, synchronize.BoundedSemaphore):
    """A number of permits that processes hold. Those of a process that ends come back."""

    __slots__ = ("_is_fork_ctx",)

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        """Make a semaphore with so many permits."""
        self._make(_checked(value))
        self._start(ctx)

    def _get_value(self) -> int:
        return self.get_value()

    def _is_zero(self) -> bool:
        return self.get_value() == 0


class _PlainBoundedSemaphore(Semaphore, synchronize.BoundedSemaphore):
    """A bounded semaphore whose permits are acquired by one process and released by another."""

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        self._make(_checked(value), value)
        self._start(ctx)


def bounded(value: int, ctx: Any, caller: str) -> BoundedSemaphore | _PlainBoundedSemaphore:
    """Return a bounded semaphore for a caller in that module.

    The standard library's queues count free places with one: producers acquire, and consumers release. So the permits
    of a producer that ends must not come back.
    """
    if caller == "multiprocessing.queues" or _checked(value) > BoundedSemaphore.MAX_PERMITS:
        return _PlainBoundedSemaphore(value, ctx=ctx)
    return BoundedSemaphore(value, ctx=ctx)


def is_plain(lock: object) -> bool:
    """Tell whether this is a lock of ours, of a class that does nothing of its own."""
    return type(lock) in (Lock, RLock)


@_forkyard.quick_condition
class Condition(_Shared, _forkyard.Condition, synchronize.Condition):
    """A condition. A waiter that is killed owes nothing, and nobody waits for it."""

    _sleeping_count = _woken_count = _wait_semaphore = _Nothing()

    def __init__(self, lock: Any = None, *, ctx: Any) -> None:
        """Make a condition with this lock, or with a new recursive one."""
        self._lock = lock or ctx.RLock()
        self._make()
        self._start(ctx)
        self._make_methods()

    def __reduce__(self) -> Any:
        attach, parts = super().__reduce__()
        return attach, parts, self._lock

    def __setstate__(self, lock: Any) -> None:
        self._lock = lock
        self._make_methods()

    def _make_methods(self) -> None:
        self.acquire = self._lock.acquire  # type: ignore[method-assign]
        self.release = self._lock.release  # type: ignore[method-assign]
        if is_plain(self._lock):
            self._with(self._lock)

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock until somebody notifies or the time is up; false if it is."""
        if not self._lock._semlock._is_mine():
            raise AssertionError("must acquire() condition before using wait()")
        return self._wait(self._lock, timeout)

    # What the native methods call where there is more to do.
    _enter, _exit = synchronize.Condition.__enter__, synchronize.Condition.__exit__
    _notify_everybody = synchronize.Condition.notify_all

    def _notify_some(self, n: int = 1) -> None:
        if not self._lock._semlock._is_mine():
            raise AssertionError("lock is not owned")
        self._notify(max(0, min(n, 2**32 - 1)))


class Event(_Shared, _forkyard.Event, synchronize.Event):
    """Something that is set or not, and that processes wait for."""

    def __init__(self, *, ctx: Any) -> None:
        """Make an event that is not set."""
        self._make()
        self._start(ctx)


class Barrier(_Shared, _forkyard.Barrier, synchronize.Barrier):
    """A barrier. A party that dies while it waits breaks it for the others."""

    _turn: Lock | None = None
    _last: Barrier | None = None

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: Any,
    ) -> None:
        """Make a barrier for so many parties, one of which runs the action when all have arrived."""
        # None below 0, as 0 is none.
        self._make(max(0, parties))
        self._start(ctx)
        # Who comes while somebody resets it waits until that is over.
        self._reset = Lock(ctx=ctx, on_owner_death="raise")
        self._action = action
        self._timeout = timeout
        if action is not None:
            self._turn = Lock(ctx=ctx, on_owner_death="raise")
            self._last = Barrier(parties, ctx=ctx)

    def __reduce__(self) -> Any:
        attach, parts = super().__reduce__()
        return attach, parts, (self._reset, self._action, self._timeout, self._turn, self._last)

    def __setstate__(self, state: Any) -> None:
        self._reset, self._action, self._timeout, self._turn, self._last = state

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all parties have arrived; return which of them this one is."""
        if timeout is None:
            timeout = self._timeout
        if self.broken:
            with contextlib.suppress(OwnerDiedError), self._reset:
                pass
        if self._turn is None or self._last is None:
            return self._wait(timeout)
        return self._wait_and_act(timeout, self._turn, self._last)

    def _wait_and_act(self, timeout: float | None, turn: Lock, last: Barrier) -> int:
        # The first to arrive has the lock, and the action to run; the others get the lock when it is done, or its
        # owner dead. So all have seen how it ended before anybody comes for the next round.
        acts = self._try(turn)
        try:
            index = self._wait(timeout)
            if acts:
                self._act()
        finally:
            if acts:
                turn.release()
        if not acts:
            self._see(turn)
        last._wait(None)
        return index

    @staticmethod
    def _try(turn: Lock) -> bool:
        try:
            return turn.acquire(block=False)
        except OwnerDiedError:
            return turn.acquire(block=False)

    def _act(self) -> None:
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            self.abort()
            raise

    def _see(self, turn: Lock) -> None:
        try:
            with turn:
                pass
        except OwnerDiedError:
            self.abort()
        if self.broken:
            raise threading.BrokenBarrierError

    def reset(self) -> None:
        """Make it as new; those who wait are told that it was broken."""
        try:
            self._reset.acquire()
        except OwnerDiedError:
            self._reset.acquire()
        with contextlib.ExitStack() as stack:
            stack.callback(self._reset.release)
            if self._last is not None:
                self._last.reset()
            super().reset()

    def abort(self) -> None:
        """Break it, for all who wait and all who come until it is reset."""
        super().abort()
        if self._last is not None:
            self._last.abort()


def _checked(value: int) -> int:
    """Return a number of permits that there can be; what is none is refused as by the system's semaphores."""
    value = operator.index(value)
    if value < 0:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if value > SEM_VALUE_MAX:
        raise OverflowError(f"a semaphore has at most {SEM_VALUE_MAX} permits, not {value}")
    return value


def _told(on_owner_death: str, on_deadlock: str) -> tuple[bool, bool]:
    """Return whether a death is told by an exception, and whether a deadlock is."""
    if on_owner_death not in ("warn", "raise"):
        raise ValueError(f"on_owner_death must be 'warn' or 'raise', not {on_owner_death!r}")
    if on_deadlock not in ("raise", "wait"):
        raise ValueError(f"on_deadlock must be 'raise' or 'wait', not {on_deadlock!r}")
    return on_owner_death == "raise", on_deadlock == "raise"


def _place() -> str:
    """Where the caller of this package is."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_HERE = os.path.dirname(__file__)
