"""Starting a child with a new interpreter."""

from __future__ import annotations

import os
from multiprocessing import popen_spawn_posix, resource_tracker, spawn, util
from typing import Any

from . import _family, popen_fork

__all__ = ["Popen"]


class Popen(popen_fork.Popen, popen_spawn_posix.Popen):
    """A child with a new interpreter."""

    def _launch(self, process_obj: Any) -> None:
        tracker: Any = resource_tracker.getfd()
        data = _family.parcel(self, process_obj)
        from_child, childs_life = os.pipe()
        to_child, parents_life = os.pipe()
        try:
            command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=to_child)
            fds = sorted({*self._fds, tracker, to_child, childs_life})
            self.pid = util.spawnv_passfds(spawn.get_executable(), command, fds)  # type: ignore[arg-type]
        except BaseException:
            util.close_fds(from_child, parents_life)  # type: ignore[attr-defined]
            raise
        finally:
            util.close_fds(to_child, childs_life)  # type: ignore[attr-defined]
        self.sentinel = from_child
        self._hold(from_child, parents_life)
        with open(parents_life, "wb", closefd=False) as pipe:
            pipe.write(data)
