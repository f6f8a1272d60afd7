"""Starting a child as a copy of a process that is kept for that."""

from __future__ import annotations

import os
import threading
from typing import Any

from . import _family, _server, _zygote, popen_fork

__all__ = ["Popen"]


class Popen(popen_fork.Popen):
    """A child that the zygote makes."""

    _forkyard_of_main: bool
    method = "zygote"
    DupFd = _server.Given

    def __init__(self, process_obj: Any) -> None:
        self._fds = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Give the child a descriptor."""
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process_obj: Any) -> None:
        if _must_be_a_copy():
            raise _zygote.Refused
        self._forkyard_family = _family.Same()
        data = _family.parcel(self, process_obj)
        if self._forkyard_of_main and _is_better_a_copy():
            raise _zygote.Refused
        things = (type(process_obj), process_obj._target)
        wanted = {str(getattr(thing, "__module__", None)) for thing in things}
        self.pid, child = _zygote.start(data, self._fds, sorted(wanted - {"None", "__main__"}))
        self._adopt(child=child)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, if the child has ended."""
        if self.returncode is None and super().poll(flag) is not None:
            _zygote.settle()
        return self.returncode


def _must_be_a_copy() -> bool:
    """Tell whether there can be no new interpreter for this process.

    The executable of a frozen program is none, but that program once more. A working directory that was removed has no
    path that could be told.
    """
    return _family.is_frozen() or (threading.active_count() == 1 and not _family.has_directory())


def _is_better_a_copy() -> bool:
    """Tell whether a copy of this process can do what a new interpreter cannot.

    A program that was typed in, or comes by -c or a pipe, has functions that nobody could import.
    """
    return _must_be_a_copy() or (threading.active_count() == 1 and not _family.can_import_main())


def popen(process_obj: Any) -> Any:
    """Start a child by the zygote; where that cannot be, by another way."""
    try:
        return Popen(process_obj)
    except _zygote.Refused:
        pass
    if _is_better_a_copy():
        return popen_fork.Popen(process_obj)
    from .popen_forkserver import Popen as OfForkServer

    return OfForkServer(process_obj)
