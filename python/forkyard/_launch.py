"""How a process starts a server of its own: see `_server` for what that does."""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import select
import signal
import socket
import sys
from multiprocessing import forkserver, process, spawn, util

from . import _family, _forkyard, _given, _interrupt, _server

__all__: tuple[str, ...] = ()

_CODE = "import sys; sys.path[:] = {path!r}; from forkyard import _server; _server.main({fd})"


class Server:
    """A server process of this one, and the socket to ask it. Killed, it is reaped as any child."""

    def __init__(self, wanted: list[str] | None, *fds: int) -> None:
        """Start a zygote with these modules, or a fork server, and wait until it is ready.

        One that the main module ends is made again without it.
        """
        if _family.is_frozen():
            # It would run the program once more, which would start another one.
            raise RuntimeError("a frozen program has no interpreter for a server process: choose 'fork' or 'spawn'")
        try:
            self._start(wanted, True, fds)
        except EOFError:
            self._start(wanted and [], False, fds)

    def _start(self, wanted: list[str] | None, with_main: bool, fds: tuple[int, ...]) -> None:
        early, late = _family.preparation(process.current_process().name)
        # A child is told these by whoever starts it.
        early = {key: value for key, value in early.items() if key in ("sys_path", "sys_argv", "dir", "orig_dir")}
        if not with_main:
            late.clear()
        late.pop("start_method", None)
        preload: list[str] = forkserver._forkserver._preload_modules  # type: ignore[attr-defined]
        zygote = wanted is not None
        if not zygote and "__main__" not in preload:
            late.clear()
        preload = [name for name in (*preload, *(wanted or ())) if name != "__main__"]
        greeting = pickle.dumps(
            tuple(
                _server.Greeting(os.getpid(), zygote, early, late, preload, secrets.token_hex(16), _given.names.place)
            )
        )
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._execute(theirs.fileno(), early["sys_path"])
            sent = [_forkyard.arena(), *fds]
            if len(greeting) > _server.INLINE:
                file = _server.file_of(greeting)
                try:
                    self.send(b"f", [*sent, file])
                finally:
                    os.close(file)
            else:
                self.send(greeting, sent)
            self.receive()
        except BaseException:
            self.end()
            raise

    def _execute(self, fd: int, path: list[object]) -> None:
        code = _CODE.format(path=[entry for entry in path if isinstance(entry, str)], fd=fd)
        executable = spawn.get_executable()
        flags = util._args_from_interpreter_flags()  # type: ignore[attr-defined]
        # Interrupts are held back in it, as here: one from the terminal is not for it. A child gets the caller's mask.
        self.pid: int = util.spawnv_passfds(executable, [executable, *flags, "-c", code], [fd])  # type: ignore[arg-type]
        self.child = _forkyard.Child(os.pidfd_open(self.pid))
        self._ready = select.poll()
        for watched in (self.socket, self.child):
            self._ready.register(watched, select.POLLIN)

    def send(self, packet: bytes, fds: list[int]) -> None:
        """Send a packet. `EOFError`: it has ended."""
        try:
            _server.send(self.socket, packet, fds)
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError("the server process has ended") from None

    def receive(self, seconds: float | None = None) -> tuple[bytes, list[int]]:
        """Wait for a packet. `EOFError`: it has ended. `TimeoutError`: it may be stopped."""
        with _interrupt.let_through():
            ready = self._ready.poll(None if seconds is None else seconds * 1000)
        if not ready:
            raise TimeoutError(f"the server process has not answered for {seconds} s")
        if any(fd == self.socket.fileno() for fd, _ in ready):
            # One that was killed before it had read everything resets the connection.
            with contextlib.suppress(ConnectionResetError):
                packet, fds = _server.receive(self.socket)
                if packet:
                    return packet, fds
        raise EOFError("the server process has ended")

    def answered(self) -> bool:
        """Tell whether there is a packet, or it has ended."""
        return bool(self._ready.poll(0))

    def lives(self) -> bool:
        """Tell whether it lives."""
        return self.child.poll() is None

    def end(self, patience: float = 0) -> None:
        """End it, and wait until it has ended: first by letting go of it, if there is time for that."""
        with contextlib.suppress(OSError):
            self.socket.send(_server.END, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            # Children of a fork server have it, too.
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        if not hasattr(self, "child"):
            return
        ended = select.poll()
        ended.register(self.child, select.POLLIN)
        if not ended.poll(patience * 1000):
            self.kill()
            ended.poll()
        self.child.poll()

    def kill(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(signal.SIGKILL)


def executable_and_rights() -> tuple[object, ...]:
    """Return what a server process has from its owner, and its children cannot change back."""
    return spawn.get_executable(), os.getresuid(), os.getresgid(), sys.flags
