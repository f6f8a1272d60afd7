"""Starting a child with a new interpreter."""

from __future__ import annotations

import contextlib
import os
from multiprocessing import popen_spawn_posix, spawn, util
from typing import Any

from . import _family, _interrupt, popen_fork

__all__ = ["Popen"]


class Popen(popen_fork.Popen, popen_spawn_posix.Popen):
    """A child with a new interpreter."""

    def _launch(self, process_obj: Any) -> None:
        data = _family.parcel(self, process_obj)
        tracker = _family.tracker()
        life = popen_fork.Life.pidfd()
        to_child, lifeline = os.pipe()
        try:
            command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=to_child)
            fds = {*self._fds, to_child, life, *(() if tracker is None else (tracker,))}
            with _interrupt.let_through():
                pass
            self.pid = util.spawnv_passfds(spawn.get_executable(), command, sorted(fds))  # type: ignore[arg-type]
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(to_child)
        self._adopt(lifeline)
        try:
            # A child that is killed meanwhile is joined as any other.
            pipe = open(lifeline, "wb", closefd=False)  # noqa: SIM115
            with contextlib.suppress(BrokenPipeError), pipe, _interrupt.let_through():
                pipe.write(data)
        except BaseException:
            self.kill()
            raise
