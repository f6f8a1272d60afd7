"""Where shared ctypes objects lie: memory without a name, which needs no directory and no temporary file."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from multiprocessing import heap, reduction, util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BufferWrapper"]

# So much is asked for without a look at what there is.
_LITTLE = 64 << 20


def check_available(size: int) -> None:
    """Raise an error if there is not so much memory: the kernel would look for it by killing."""
    if size <= _LITTLE:
        return
    available = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory/memory.limit_in_bytes"), _free()
    if any(there is not None and size > there for there in available):
        raise OSError(errno.ENOMEM, f"{os.strerror(errno.ENOMEM)}: {size} bytes of shared memory")


def _number(path: str) -> int | None:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _free() -> int | None:
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":") for line in file)
        return sum(int(lines[name].split()[0]) for name in ("MemAvailable", "SwapFree")) * 1024
    except (OSError, ValueError, KeyError):
        return None


class Arena(heap.Arena):
    """A piece of memory that children share, by its descriptor."""

    def __init__(self, size: int, fd: int = -1) -> None:
        """Make one of so many bytes, or map what the descriptor is of."""
        self.size = size
        if fd == -1:
            check_available(size)
            fd = os.memfd_create("forkyard-heap", os.MFD_CLOEXEC)
            util.Finalize(self, os.close, (fd,))
            # Real memory: shortage is an error now, and no SIGBUS later.
            os.posix_fallocate(fd, 0, size)
        self.fd = fd
        self.buffer = mmap.mmap(fd, size)


def _reduce(arena: Arena) -> Any:
    return _rebuild, (arena.size, reduction.DupFd(arena.fd))


def _rebuild(size: int, fd: Any) -> Arena:
    return Arena(size, fd.detach())


reduction.register(Arena, _reduce)


class Heap(heap.Heap):
    """Hands out parts of such pieces. It is one process's own; what it hands out is shared."""

    # As the standard library has them.
    _size: int
    _arenas: list[Arena]
    _roundup: Callable[[int, int], int]
    _DOUBLE_ARENA_SIZE_UNTIL: int

    def _new_arena(self, size: int) -> tuple[Arena, int, int]:
        length = self._roundup(max(self._size, size), mmap.PAGESIZE)
        self._size = min(2 * self._size, max(self._size, self._DOUBLE_ARENA_SIZE_UNTIL))
        util.info("allocating %d bytes of shared memory", length)
        arena = Arena(length)
        self._arenas.append(arena)
        return arena, 0, length


class BufferWrapper(heap.BufferWrapper):
    """A part of shared memory, as long as there is this."""

    _heap = Heap()

    def __init__(self, size: int) -> None:
        """Take so many bytes."""
        if size < 0:
            raise ValueError(f"Size {size:n} out of range")
        if sys.maxsize <= size:
            raise OverflowError(f"Size {size:n} too large")
        block = BufferWrapper._heap.malloc(size)
        self._state = (block, size)
        util.Finalize(self, BufferWrapper._heap.free, args=(block,))
