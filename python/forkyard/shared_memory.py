"""Memory that processes share by a name.

Without a name of the caller's it lies in the family's own memory: it is there until somebody unlinks it or the family
has ended, however that happens, and ``/dev/shm`` is not used. A name of the caller's is one of the system's, as with
the standard library. Who attaches to memory and ends does not unlink it, and no process keeps track.
"""

from __future__ import annotations

import _posixshmem  # type: ignore[import-not-found]
import atexit
import contextlib
import errno
import mmap
import os
import sys
import types
from multiprocessing import shared_memory
from typing import Any

from . import _forkyard, _given, heap

__all__ = ["ShareableList", "SharedMemory"]

_real: Any = shared_memory
_SHM_NAME_PREFIX, _USE_POSIX = _real._SHM_NAME_PREFIX, _real._USE_POSIX
_make_filename = _real._make_filename

atexit.register(_given.remove_all)


class SharedMemory(shared_memory.SharedMemory):
    """Memory that processes share by a name.

    ``track`` is accepted and changes nothing.
    """

    _memory: _forkyard.Memory | None = None
    _name: str
    _flags: int
    _mode: int

    def __init__(self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool = True) -> None:
        """Make memory of so many bytes, or attach to memory of that name."""
        if not size >= 0:
            raise ValueError("'size' must be a positive integer")
        if create:
            self._flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
            if size == 0:
                raise ValueError("'size' must be a positive number different from zero")
        if name is None and not self._flags & os.O_EXCL:
            raise ValueError("'name' can only be None if create=True")
        self._track = track
        if name is None:
            self._make(size)
        else:
            self._name = "/" + name
            if self._flags & os.O_CREAT:
                self._create(size)
            else:
                self._attach()
        self._buf = memoryview(self._memory if self._mmap is None else self._mmap)
        self._size = len(self._buf)

    def _make(self, size: int) -> None:
        while self._memory is None:
            self._name = _make_filename()
            with contextlib.suppress(FileExistsError):
                self._keep(size)

    def _keep(self, size: int) -> None:
        heap.check_available(size)
        self._memory = _forkyard.Memory.create(self._name, size, _place())

    def _attach(self) -> None:
        try:
            self._open(0)
        except OSError as error:
            # There may be no directory for the names.
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOSYS, errno.ENOTDIR):
                raise
            try:
                self._memory = _forkyard.Memory.attach(self._name)
            except FileNotFoundError:
                raise self._error(FileNotFoundError, errno.ENOENT) from None

    def _create(self, size: int) -> None:
        if self._name.startswith(_SHM_NAME_PREFIX):
            # Such names are given here.
            with contextlib.suppress(FileNotFoundError):
                _forkyard.Memory.attach(self._name)
                raise self._error(FileExistsError, errno.EEXIST)
        try:
            self._open(size)
        except FileExistsError:
            raise self._error(FileExistsError, errno.EEXIST) from None
        except OSError as error:
            # The directory for the names is not there, or is too small.
            if error.errno not in (errno.ENOENT, errno.ENOSPC, errno.EACCES, errno.ENOSYS, errno.ENOTDIR):
                raise
            self._keep(size)

    def _open(self, size: int) -> None:
        fd = _posixshmem.shm_open(self._name, self._flags, mode=self._mode)
        try:
            status = os.fstat(fd)
            if size and self._flags & os.O_CREAT and status.st_size < size:
                # Real memory: there is no SIGBUS for whoever uses it.
                os.posix_fallocate(fd, 0, size)
                status = os.fstat(fd)
            self._mmap = mmap.mmap(fd, status.st_size)
        except OSError:
            os.close(fd)
            if self._flags & os.O_EXCL:
                _posixshmem.shm_unlink(self._name)
            raise
        self._fd = fd
        if self._flags & os.O_EXCL:
            _given.names.add(self._name, (status.st_dev, status.st_ino))

    def close(self) -> None:
        """Stop using it: here, not for others."""
        super().close()
        self._memory = None

    def unlink(self) -> None:
        """Remove the name: to be done once. Whoever uses the memory goes on."""
        try:
            if self._memory is not None:
                self._memory.unlink()
            else:
                self._unlink()
        except FileNotFoundError:
            raise self._error(FileNotFoundError, errno.ENOENT) from None

    def _unlink(self) -> None:
        try:
            _posixshmem.shm_unlink(self._name)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOSYS, errno.ENOTDIR):
                raise
            _forkyard.Memory.attach(self._name).unlink()
        _given.names.discard(self._name)

    def _error(self, kind: type[OSError], number: int) -> OSError:
        return kind(number, os.strerror(number), self._name)


def _over(function: types.FunctionType) -> Any:
    """Return a function of the standard library's module that uses the memory of this one."""
    names = vars(shared_memory) | {"SharedMemory": SharedMemory}
    ours = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    ours.__kwdefaults__ = function.__kwdefaults__
    ours.__doc__ = function.__doc__
    return ours


class ShareableList(shared_memory.ShareableList):  # type: ignore[type-arg]
    """A list whose items lie in shared memory. Its length does not change."""

    __init__ = _over(shared_memory.ShareableList.__init__)  # type: ignore[arg-type]


def _place() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
