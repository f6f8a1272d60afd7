"""Starting a child as a copy of a server process."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from multiprocessing import popen_forkserver, util
from typing import Any

from . import _family, _interrupt, _server, forkserver, popen_fork

__all__ = ["Popen"]

# How often a server may be killed before it has made a child.
_ATTEMPTS = 3


class Popen(popen_fork.Popen, popen_forkserver.Popen):
    """A child that the fork server makes, and reports the end of."""

    DupFd = _server.Given  # type: ignore[assignment]

    def _launch(self, process_obj: Any) -> None:
        self._reading = threading.Lock()
        self._forkyard_family = _family.Same()
        data = _family.parcel(self, process_obj)
        for _ in range(_ATTEMPTS):
            self.sentinel, lifeline = forkserver.connect_to_new_process(self._fds)
            popen_fork._lifelines.add(lifeline)
            self.finalizer = util.Finalize(self, popen_fork._close, (self.sentinel, lifeline))
            try:
                with _interrupt.let_through():
                    self.pid = forkserver.read_signed(self.sentinel)
                self._lifeline = lifeline
                break
            except EOFError:
                # The server was killed before it made a child, or told of it: without its data that one ends.
                self.finalizer()
            except BaseException:
                self.finalizer()
                raise
        else:
            raise EOFError("the fork server ended before it had made a child")
        try:
            # A child that is killed meanwhile is joined as any other.
            pipe = open(lifeline, "wb", closefd=False)  # noqa: SIM115
            with contextlib.suppress(BrokenPipeError), pipe, _interrupt.let_through():
                pipe.write(data)
        except BaseException:
            self.kill()
            raise

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, if the child has ended."""
        if self.returncode is None:
            ready = select.poll()
            ready.register(self.sentinel, select.POLLIN)
            if ready.poll(0 if flag == os.WNOHANG else None):
                _interrupt.undisturbed(self._read)
        return self.returncode

    def _read(self) -> None:
        # Other threads look, too, whenever they start a child; it is told once.
        with self._reading:
            if self.returncode is None and popen_forkserver.Popen.poll(self) is not None:
                _family.ended(self)
                # An interrupt is lost that comes in a finalizer. So what is left is closed by an object that has none.
                self.finalizer.cancel()
                popen_fork._close(self._lifeline)
                self._owner = select.epoll.fromfd(self.sentinel)

    def close(self) -> None:
        """Let go of the child, which has ended."""
        self._owner.close()

    def _send_signal(self, sig: int) -> None:
        popen_forkserver.Popen._send_signal(self, sig)  # type: ignore[attr-defined]
