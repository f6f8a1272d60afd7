"""The fork server: a process that is kept to be copied, whose copies may be shared by all processes that it makes.

It has no address: requests go through one socket, which its children inherit.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
from multiprocessing.forkserver import MAXFDS_TO_SEND as MAXFDS_TO_SEND
from multiprocessing.forkserver import SIGNED_STRUCT as SIGNED_STRUCT
from multiprocessing.forkserver import read_signed as read_signed
from multiprocessing.forkserver import set_forkserver_preload as set_forkserver_preload
from multiprocessing.forkserver import write_signed as write_signed

from . import _family, _interrupt, _launch, _server, popen_fork

__all__ = ["connect_to_new_process", "ensure_running", "get_inherited_fds", "set_forkserver_preload"]


class ForkServer:
    """This process's fork server, or the one that it was made by."""

    def __init__(self) -> None:
        """Know of none."""
        self._lock = threading.Lock()
        self._server: _launch.Server | None = None
        self._client: socket.socket | None = None
        self._inherited_fds: list[int] | None = None

    @property
    def _forkserver_pid(self) -> int | None:
        return self._server.pid if self._server is not None else None

    def _inherit(self, client: int, fds: list[int]) -> None:
        self.__init__()  # type: ignore[misc]
        self._client = socket.socket(fileno=client)
        self._inherited_fds = fds

    def _release(self) -> None:
        """Leave the server alone until this process ends: it tells how children end that are joined meanwhile."""
        with self._lock:
            if self._client is not None:
                self._client.detach()
            self._server = self._client = None

    def _drop(self, patience: float = 0) -> None:
        if self._server is not None:
            self._server.end(patience)
        elif self._client is not None:
            self._client.close()
        self._server = self._client = None

    def set_forkserver_preload(self, modules_names: list[str]) -> None:
        """Set the modules that the server imports before it forks."""
        set_forkserver_preload(modules_names)

    def get_inherited_fds(self) -> list[int] | None:
        """Return the descriptors that this process was given by its parent; None if it is no child of the server."""
        return self._inherited_fds

    def ensure_running(self) -> None:
        """Make a server, if none is known that lives."""
        _interrupt.undisturbed(self._run)

    def _run(self) -> None:
        with self._lock:
            self._ensure_running()

    def _ensure_running(self) -> socket.socket:
        if self._server is not None and not self._server.lives():
            self._drop()
        if self._client is None:
            self._server = _launch.Server(None)
            self._client = self._server.socket
            atexit.register(self._release)
        return self._client

    def connect_to_new_process(self, fds: list[int]) -> tuple[int, int]:
        """Ask for a child.

        Return a descriptor to read its pid from, and in the end its exit code; and one to write to what it shall be.
        """
        if len(fds) + 4 >= MAXFDS_TO_SEND or len(fds) + 8 > _server.MOST_FDS:
            raise ValueError("too many fds")
        mask = _interrupt.mask()
        parent_r, child_w = os.pipe()
        child_r, parent_w = os.pipe()
        try:
            with self._lock:
                self._ask(bytes([_family.tracker() is not None, *mask]), [child_r, child_w], fds)
        except BaseException:
            os.close(parent_r)
            os.close(parent_w)
            raise
        finally:
            os.close(child_r)
            os.close(child_w)
        return parent_r, parent_w

    def _ask(self, packet: bytes, pipes: list[int], fds: list[int]) -> None:
        tracker = _family.tracker()
        for last in (False, True):
            client = self._ensure_running()
            try:
                known = [client.fileno(), popen_fork.Life.pidfd(), *(() if tracker is None else (tracker,))]
                return _server.send(client, packet, [*pipes, *known, *fds])
            except (BrokenPipeError, ConnectionResetError):
                # It has ended: one that this process had been given by its parent, maybe.
                self._drop()
                if last:
                    raise
        return None

    def _forget(self) -> None:
        """In a fork, which may ask the same server, and has not made it."""
        client, inherited = self._client, self._inherited_fds
        self.__init__()  # type: ignore[misc]
        self._client, self._inherited_fds = client, inherited


_forkserver = ForkServer()
ensure_running = _forkserver.ensure_running
get_inherited_fds = _forkserver.get_inherited_fds
connect_to_new_process = _forkserver.connect_to_new_process
os.register_at_fork(after_in_child=_forkserver._forget)
