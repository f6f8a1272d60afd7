"""Which pages of memory a child needs: found out once, by a copy of the zygote that does what every child does.

A fork copies a page when somebody first writes to it; each is a fault, and some hundred of them are much of what a
short child costs. A spare has them done while it waits.
"""

from __future__ import annotations

import os
from array import array

from . import _family, _server, popen_fork
from .context import ZygoteProcess

__all__: tuple[str, ...] = ()

_PAGE = 4096
# Bits of a word of /proc/PID/pagemap (proc(5)).
_PRESENT, _FILE, _OWN = 1 << 63, 1 << 61, 1 << 56


class _Popen:
    """Stands for what starts a process, for those who ask while it is written down."""

    def __init__(self) -> None:
        self._forkyard_family = _family.Same()


def nothing() -> None:
    """Do nothing: what is left is what every child does."""


def find() -> bytes:
    """Return the pages, as pairs of numbers: where they begin, and how long they are. Empty if that fails."""
    try:
        data = _family.parcel(_Popen(), ZygoteProcess(target=nothing))
        told, tells = os.pipe()
        with open(told, "rb") as result:
            pid = os.fork()
            if pid == 0:
                try:
                    _rehearse(data, tells)
                finally:
                    os._exit(1)
            os.close(tells)
            ranges = result.read()
            os.waitpid(pid, 0)
            return ranges
    except OSError:
        return b""


def _rehearse(data: bytes, tells: int) -> None:
    sentinel, _ = os.pipe()
    popen_fork.run_to_the_end(lambda: _server.run(data, sentinel))
    with open(tells, "wb") as result:
        result.write(_used())


def _used() -> array[int]:
    """Return what this process, a fork, has written to since it began."""
    found = array("Q")
    with open("/proc/self/maps") as maps, open("/proc/self/pagemap", "rb", buffering=0) as pages:
        for line in maps:
            where, rights, *_ = line.split(None, 5)
            if not rights.startswith("rw") or not rights.endswith("p") or "[v" in line:
                continue
            start, end = (int(number, 16) for number in where.split("-"))
            words = array("Q")
            words.frombytes(os.pread(pages.fileno(), (end - start) // _PAGE * 8, start // _PAGE * 8))
            for number, word in enumerate(words):
                if word & _PRESENT and word & _OWN and not word & _FILE:
                    _append(found, start + number * _PAGE)
    return found


def _append(found: array[int], at: int) -> None:
    if found and found[-2] + found[-1] == at:
        found[-1] += _PAGE
    else:
        found.extend((at, _PAGE))
