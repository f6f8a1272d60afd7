"""Shared ctypes objects, on memory without a name and with locks that survive their owners."""

from __future__ import annotations

import ctypes
from multiprocessing import context, sharedctypes
from multiprocessing.sharedctypes import SynchronizedBase as SynchronizedBase
from multiprocessing.sharedctypes import reduce_ctype as reduce_ctype
from typing import Any

from . import _forkyard, heap
from .synchronize import is_plain

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

typecode_to_type = sharedctypes.typecode_to_type
rebuild_ctype: Any = sharedctypes.rebuild_ctype


def _new_value(type_: Any) -> Any:
    return rebuild_ctype(type_, heap.BufferWrapper(ctypes.sizeof(type_)), None)


def RawValue(typecode_or_type: Any, *args: Any) -> Any:
    """Return a ctypes object in shared memory."""
    new = _new_value(typecode_to_type.get(typecode_or_type, typecode_or_type))
    ctypes.memset(ctypes.addressof(new), 0, ctypes.sizeof(new))
    new.__init__(*args)
    return new


def RawArray(typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """Return a ctypes array in shared memory."""
    item = typecode_to_type.get(typecode_or_type, typecode_or_type)
    if isinstance(size_or_initializer, int):
        new = _new_value(item * size_or_initializer)
        ctypes.memset(ctypes.addressof(new), 0, ctypes.sizeof(new))
    else:
        new = _new_value(item * len(size_or_initializer))
        new.__init__(*size_or_initializer)
    return new


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
    """Return a ctypes object in shared memory, with a lock."""
    return _locked(RawValue(typecode_or_type, *args), lock, ctx)


def Array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None) -> Any:
    """Return a ctypes array in shared memory, with a lock."""
    return _locked(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def _locked(new: Any, lock: Any, ctx: Any) -> Any:
    if lock is False:
        return new
    ctx = ctx or _default()
    if lock in (True, None):
        lock = ctx.RLock()
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(new, lock, ctx=ctx)


def copy(obj: Any) -> Any:
    """Return a copy of a ctypes object, in shared memory."""
    new = _new_value(type(obj))
    ctypes.pointer(new)[0] = obj
    return new


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """Return an object that is used with a lock."""
    assert not isinstance(obj, SynchronizedBase), "object already synchronized"
    ctx = ctx or _default()
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        kind = SynchronizedString if obj._type_ is ctypes.c_char else SynchronizedArray
        return kind(obj, lock, ctx)
    return sharedctypes.synchronized(obj, lock, ctx=ctx)


class _Quick(_forkyard.Synchronized, SynchronizedBase):  # type: ignore[type-arg]
    """An object whose lock is one of ours: its methods are native, and call these where there is more to do."""

    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None:
        lock = lock or (ctx or _default()).RLock()
        self._fill(obj, lock, is_plain(lock) and type(self) in (Synchronized, SynchronizedArray, SynchronizedString))

    def __reduce__(self) -> Any:
        context.assert_spawning(self)
        return synchronized, (self._obj, self._lock)

    def _acquire(self, *args: Any, **kwargs: Any) -> Any:
        return self._lock.acquire(*args, **kwargs)

    def _release(self) -> None:
        self._lock.release()

    _enter, _exit, _get_lock = SynchronizedBase.__enter__, SynchronizedBase.__exit__, SynchronizedBase.get_lock


# The standard library's property.
_value: Any = sharedctypes.Synchronized.__dict__["value"]


@_forkyard.quick_value
class Synchronized(_Quick, sharedctypes.Synchronized):  # type: ignore[type-arg]
    """A simple ctypes object that is used with a lock."""

    _read_value, _write_value = _value.fget, _value.fset

    def _delete_value(self) -> None:
        _value.__delete__(self)


@_forkyard.quick_value
class SynchronizedArray(_Quick, sharedctypes.SynchronizedArray):  # type: ignore[type-arg]
    """A ctypes array that is used with a lock."""

    _get_len = sharedctypes.SynchronizedArray.__len__
    _read_item = sharedctypes.SynchronizedArray.__getitem__
    _write_item = sharedctypes.SynchronizedArray.__setitem__


@_forkyard.quick_value
class SynchronizedString(SynchronizedArray, sharedctypes.SynchronizedString):
    """A ctypes array of characters that is used with a lock."""


def _default() -> Any:
    from .context import _default_context

    return _default_context.get_context()
