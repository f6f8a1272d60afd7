"""The zygote: a process that is kept to be copied, whose copies are this process's own children.

It is made at the first start, in a new interpreter, which imports the main module; so it has one thread, whatever this
process has. If it is killed, the next start makes another. It ends with this process, however that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import socket
import threading
from typing import Any

from . import _family, _forkyard, _interrupt, _launch, _server, popen_fork

__all__: tuple[str, ...] = ()

# How long an answer may take: generous, for it stands for a zygote that was stopped; its death is seen at once.
_PATIENCE = 30.0
_ATTEMPTS = 3


# A child: its pid and handle.
Made = tuple[int, "_forkyard.Child | popen_fork._Gone"]


class Refused(Exception):  # noqa: N818
    """No child can be had in this way."""


class _Zygote:
    """This process's zygote, and the spare child that it has made ahead.

    A clone is what takes time. So from the second start on there is a spare, which is told what to be.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.server: _launch.Server | None = None
        self.cradle: Any = None
        self.surroundings: Any = None
        self.environ: Any = None
        self.starts = 0
        # The request that has not been answered.
        self.asked: bytes | None = None
        # The socket of the spare that was asked for last; the zygote's answer may not have come yet.
        self.spare: socket.socket | None = None
        # That one, if the answer has come.
        self.made: Made | None = None
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

    def start(self, packet: bytes, fds: list[int], wanted: list[str]) -> Made:
        """Ask for a child: its pid and handle."""
        for _ in range(_ATTEMPTS):
            server = self.ready(wanted)
            made = self.make(server, packet, fds)
            if made is not None:
                self.starts += 1
                if self.starts > 1 and self.server is not None:
                    self.order_spare(server)
                return made
        raise Refused

    def make(self, server: _launch.Server, packet: bytes, fds: list[int]) -> Made | None:
        """Ask this zygote; None if it was lost, and made no child."""
        # Each zygote has a cradle of its own, and this one may be younger than the request.
        fds = [self.cradle.fileno(), *fds]
        try:
            made = self.use_spare(server, packet, fds)
            if made is None:
                self.ask(server, packet, fds)
                made = self.answer(server)
            return made
        except (EOFError, TimeoutError):
            return self.drop()
        except Refused:
            raise
        except BaseException:
            # Nobody will know of a child that is born now.
            made = self.drop()
            if made is not None:
                with contextlib.suppress(ProcessLookupError):
                    made[1].send_signal(signal.SIGKILL)
            raise

    def ask(self, server: _launch.Server, packet: bytes, fds: list[int]) -> None:
        """Send a request."""
        self.cradle.clear()
        self.asked = packet
        server.send(packet, fds)

    def answer(self, server: _launch.Server) -> Made:
        """Wait for the answer to what was asked. `Refused`: the zygote can make no child."""
        answer, received = server.receive(_PATIENCE)
        self.asked = None
        errno, pid = _server.ANSWER.unpack(answer)
        if errno:
            raise Refused
        # Without room for the descriptor it is opened by number: the child is this process's own, and not reaped.
        return pid, _forkyard.Child(received[0]) if received else popen_fork.child_of(pid)

    def order_spare(self, server: _launch.Server) -> None:
        """Have a child made ahead. The answer is waited for when it is needed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.suppress(EOFError):
            self.spare = ours
            self.ask(server, _server.SPARE, [theirs.fileno()])

    def use_spare(self, server: _launch.Server, packet: bytes, fds: list[int]) -> Made | None:
        """Tell the spare child, if there is one that lives, what to be."""
        if self.spare is None:
            return None
        spare, self.spare = self.spare, None
        made, self.made = self.made, None
        with spare, contextlib.suppress(Refused, BrokenPipeError, ConnectionResetError):
            made = made or self.answer(server)
            if made[1].poll() is None:
                interrupted = _interrupt.waits_in(made[0])
                # One that has come for both is raised now: it must not be forgotten there, and raised here later.
                with _interrupt.let_through():
                    pass
                _server.send(spare, bytes([interrupted]) + packet, fds)
                return made
        return None

    def settle(self) -> None:
        """Take the answer for a spare, if it has come: from then on the spare is reaped when it is killed."""
        server = self.server
        if server is not None and self.asked == _server.SPARE and server.answered():
            try:
                self.made = self.answer(server)
            except (EOFError, Refused):
                # There is none. The next start sees whether the zygote lives.
                if self.spare is not None:
                    self.spare.close()
                self.asked = self.spare = None

    def drop(self, patience: float = 0) -> Made | None:
        """End the zygote: the child that it was asked for, and has made, if nobody knows of it yet."""
        if self.spare is not None:
            # It ends.
            self.spare.close()
        asked, self.asked, self.spare, self.made = self.asked, None, None, None
        server, self.server = self.server, None
        if server is None:
            return None
        server.end(patience)
        born = self.cradle.born() if asked is not None else 0
        made = (born, popen_fork.child_of(born)) if born else None
        return None if asked == _server.SPARE else made

    def forget(self) -> None:
        """Let go, in a fork, of what is its parent's."""
        if self.server is not None:
            self.server.socket.close()
        if self.spare is not None:
            self.spare.close()
        self.__init__()  # type: ignore[misc]


_zygote = _Zygote()
os.register_at_fork(after_in_child=lambda: _zygote.forget())


def start(data: bytes, fds: list[int], wanted: list[str]) -> Made:
    """Start a child, which needs these modules. `Refused`: there is none to be had here."""
    if len(fds) + 8 > _server.MOST_FDS:
        raise ValueError("too many fds")
    with _zygote.lock:
        _zygote.ready(wanted)
        environ = None
        if os.environ._data != _zygote.environ:  # type: ignore[attr-defined]
            environ = dict(os.environ)
        mask = [int(number) for number in _interrupt.mask()]
        streams = [fd for fd in (1, 2) if _is_open(fd)]
        tracker = _family.tracker()
        sent = [*streams, *(() if tracker is None else (tracker,)), *fds]
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


def settle() -> None:
    """Look after the spare, if nobody does."""
    if _zygote.asked is not None:
        # An interrupt right after the lock was acquired would leave it so.
        _interrupt.undisturbed(_settle)


def _settle() -> None:
    if _zygote.lock.acquire(blocking=False):
        try:
            _zygote.settle()
        finally:
            _zygote.lock.release()


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
