"""The zygote: a process that is kept to be copied, whose copies are this process's own children.

It is made at the first start, in a new interpreter, which imports the main module; so it has one thread, whatever this
process has. If it is killed, the next start makes another. It ends with this process, however that ends.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import threading
from typing import Any

from . import _family, _forkyard, _launch, _server, popen_fork

__all__: tuple[str, ...] = ()

# How long an answer may take: generous, for it stands for a zygote that was stopped; its death is seen at once.
_PATIENCE = 30.0
_ATTEMPTS = 3


class Refused(Exception):  # noqa: N818
    """No child can be had in this way."""


class _Zygote:
    """This process's zygote."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.server: _launch.Server | None = None
        self.cradle: Any = None
        self.surroundings: Any = None
        self.environ: Any = None
        # By which children see that this process lives: the same for all of them, whatever zygote they come from.
        self.lifeline: tuple[int, int] | None = None

    def ready(self, wanted: list[str]) -> _launch.Server:
        """Return the zygote, which is made if there is none that is fit: one that has imported these modules."""
        surroundings = _launch.executable_and_rights()
        server = self.server
        if server is not None and server.lives() and surroundings == self.surroundings:
            return server
        self.drop()
        if self.lifeline is None:
            self.lifeline = os.pipe()
            popen_fork._lifelines.update(self.lifeline)
        self.cradle = _forkyard.Cradle()
        self.surroundings, self.environ = surroundings, dict(os.environ._data)  # type: ignore[attr-defined]
        try:
            self.server = _launch.Server(wanted, self.lifeline[0], self.cradle.fileno())
        except EOFError:
            raise Refused from None
        atexit.register(stop)
        return self.server

    def start(self, packet: bytes, fds: list[int], wanted: list[str]) -> tuple[int, int]:
        """Ask for a child: its pid and pidfd."""
        for _ in range(_ATTEMPTS):
            server = self.ready(wanted)
            self.cradle.clear()
            try:
                server.send(packet, fds)
                answer, received = server.receive(_PATIENCE)
            except (EOFError, TimeoutError):
                born = self.drop()
                if born:
                    return born, os.pidfd_open(born)
                continue
            except BaseException:
                # Nobody will know of a child that is born now.
                born = self.drop()
                if born:
                    os.kill(born, signal.SIGKILL)
                    os.waitpid(born, 0)
                raise
            errno, pid = _server.ANSWER.unpack(answer)
            if errno:
                raise Refused
            # Without room for the descriptor it is opened by number: the child is this process's own, and not reaped.
            return pid, received[0] if received else os.pidfd_open(pid)
        raise Refused

    def drop(self, patience: float = 0) -> int:
        """End the zygote: the pid of the child that it made last, if nobody knows of it yet."""
        server, self.server = self.server, None
        if server is None:
            return 0
        server.end(patience)
        return int(self.cradle.born())

    def forget(self) -> None:
        """Let go, in a fork, of what is its parent's."""
        if self.server is not None:
            self.server.socket.close()
        self.__init__()  # type: ignore[misc]


_zygote = _Zygote()
os.register_at_fork(after_in_child=lambda: _zygote.forget())


def start(data: bytes, fds: list[int], wanted: list[str]) -> tuple[int, int]:
    """Start a child, which needs these modules: its pid and pidfd. `Refused`: there is none to be had here."""
    if len(fds) + 8 > _server.MOST_FDS:
        raise ValueError("too many fds")
    with _zygote.lock:
        _zygote.ready(wanted)
        environ = None
        if os.environ._data != _zygote.environ:  # type: ignore[attr-defined]
            environ = dict(os.environ)
        mask = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
        streams = [fd for fd in (1, 2) if _is_open(fd)]
        tracker = _family.tracker()
        sent = [_zygote.cradle.fileno(), *streams, *(() if tracker is None else (tracker,)), *fds]
        inline = None if len(data) > _server.INLINE // 2 else data
        packet = pickle.dumps(tuple(_server.Request(inline, streams, tracker is not None, environ, mask)))
        if inline is not None and len(packet) <= _server.INLINE:
            return _zygote.start(packet, sent, wanted)
        packet = pickle.dumps(tuple(_server.Request(None, streams, tracker is not None, environ, mask)))
        file = _server.file_of(data)
        try:
            return _zygote.start(packet, [*sent, file], wanted)
        finally:
            os.close(file)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def stop() -> None:
    """End the zygote, if there is one. Its children live on; the next start makes another."""
    with _zygote.lock:
        _zygote.drop(1)
