"""Starting a child as a copy of a server process."""

from __future__ import annotations

import os
from multiprocessing import forkserver, popen_forkserver
from typing import Any

from . import _family, popen_fork

__all__ = ["Popen"]


class Popen(popen_fork.Popen, popen_forkserver.Popen):
    """A child that the fork server makes."""

    def _launch(self, process_obj: Any) -> None:
        data = _family.parcel(self, process_obj)
        with _family.announced():
            self.sentinel, to_child = forkserver.connect_to_new_process(self._fds)
        self._hold(self.sentinel, os.dup(to_child))
        with open(to_child, "wb") as pipe:
            pipe.write(data)
        self.pid = forkserver.read_signed(self.sentinel)
