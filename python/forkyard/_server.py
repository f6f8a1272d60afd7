"""Inside a server process: a zygote, or a fork server. It has one thread, imports the main module once, and is copied.

It is made by `_zygote` or `forkserver`, which have the other end of the socket, and ends when its owner does. What a
request has in it is theirs to say; each is one packet, with the descriptors for the child.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import pickle
import select
import signal
import socket
import struct
import sys
import time
from multiprocessing import process, resource_tracker, spawn, util
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _forkyard, _given, _interrupt, popen_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__: tuple[str, ...] = ()

# The longest request that travels in its packet; longer ones have a file.
INLINE = 60_000
MOST_FDS = 250
# The owner lets go, and lives on. Without it, it has ended or is about to.
END = b"end"
# A request for a spare child; its descriptor is the socket on which that one is told what to be.
SPARE = b"spare"
# Zero or an errno; the pid.
ANSWER = struct.Struct("=iI")

# The descriptors that this process, a child, was given at its start.
given: list[int] = []


class Given:
    """A descriptor that a child is given, by its place among them."""

    def __init__(self, place: int) -> None:
        self.place = place

    def detach(self) -> int:
        """Return its number, in the child."""
        return given[self.place]


class Greeting(NamedTuple):
    """The first packet. Its descriptors are the family's shared memory, and what the kind of server needs."""

    owner: int
    zygote: bool
    early: dict[str, Any]
    late: dict[str, Any]
    preload: list[str]
    mark: str
    names: str


class Request(NamedTuple):
    """What a zygote is asked for. Its descriptors: standard streams, tracker's, child's, and the data's file."""

    data: bytes | None
    streams: list[int]
    tracker: bool
    environ: dict[str, str] | None
    mask: list[int]


def send(sock: socket.socket, packet: bytes, fds: list[int]) -> None:
    """Send a packet with descriptors."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    sock.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive a packet with descriptors; an empty one if the other end is closed."""
    room = socket.CMSG_SPACE(256 * 4)
    try:
        packet, ancillary, flags, _ = sock.recvmsg(2 * INLINE, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # It was closed with something unread in it.
        return b"", []
    fds: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds += struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
    if flags & socket.MSG_CTRUNC:
        # They found no room, and the packet is of no use without them.
        for fd in fds:
            os.close(fd)
        return packet, []
    return packet, fds


def file_of(data: bytes) -> int:
    """Return a file in memory with this in it."""
    fd = os.memfd_create("forkyard-start", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return fd


def contents(fd: int) -> bytes:
    """Return what such a file has in it, and close it."""
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read()


def main(fd: int) -> None:
    """Serve until the owner ends."""
    with socket.socket(fileno=fd) as sock:
        packet, fds = receive(sock)
        if not packet:
            return
        if len(packet) == 1:
            packet = contents(fds.pop())
        greeting = Greeting(*pickle.loads(packet))
        owner = os.pidfd_open(greeting.owner)
        if os.getppid() != greeting.owner:
            return
        _forkyard.attach(fds.pop(0))
        _import(greeting)
        gc.collect()
        gc.freeze()
        gc.disable()
        popen_fork.Life.mark = greeting.mark
        serve = _zygote if greeting.zygote else _forkserver
        # The owner may let go at any time.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            serve(sock, owner, fds)
    if _ends(owner) and _forkyard.was_killed(greeting.owner, owner):
        _given.remove_noted(greeting.names)
        _sweep(greeting.mark.encode())
    # A copy of what the program did at import, not the program: its exit hooks are not for this process.
    os._exit(0)


def _ends(pidfd: int) -> bool:
    ready = select.poll()
    ready.register(pidfd, select.POLLIN)
    return bool(ready.poll(1000))


# When the programs are looked for, in seconds after the last time: one that was about to be executed is found later.
_LOOKS = (0, 0.05, 0.15, 0.4)


def _sweep(mark: bytes) -> None:
    """Kill the programs that the daemons of an owner that was killed have executed: they have its mark.

    The daemons themselves are ended by the kernel. A program that was given an environment without it is not found.
    """
    for seconds in _LOOKS:
        time.sleep(seconds)
        for name in os.listdir("/proc"):
            if name.isdigit():
                _sweep_one(int(name), mark)


def _sweep_one(pid: int, mark: bytes) -> None:
    # What is not there any more, or somebody else's, is no matter.
    with contextlib.suppress(OSError):
        # First this one, so that the number cannot be another's by then.
        pidfd = os.pidfd_open(pid)
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if mark in environ.read():
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


# What nearly every child needs.
_WANTED = ("forkyard.synchronize", "forkyard.queues", "forkyard.connection", "forkyard.popen_zygote")


def _import(greeting: Greeting) -> None:
    """Import what children need. What fails here fails again, and is told, in a child that needs it."""
    current = process.current_process()
    current._inheriting = True  # type: ignore[attr-defined]
    for module in _WANTED:
        __import__(module)
    spawn.prepare(greeting.early)
    with contextlib.suppress(Exception, SystemExit):
        spawn.prepare(greeting.late)
    for module in greeting.preload:
        with contextlib.suppress(Exception, SystemExit):
            __import__(module)
    del current._inheriting  # type: ignore[attr-defined]
    util._close_stdin()  # type: ignore[attr-defined]
    util._flush_std_streams()  # type: ignore[attr-defined]


def _requests(
    sock: socket.socket, owner: int, ready: select.poll, others: Callable[[int], object] | None = None
) -> Iterator[tuple[bytes, list[int]]]:
    """Return the requests, until the owner ends or lets go. What else is ready is told to `others`."""
    ready.register(sock, select.POLLIN)
    ready.register(owner, select.POLLIN)
    while True:
        for fd, _ in ready.poll():
            if fd == owner:
                return
            if fd == sock.fileno():
                packet, fds = receive(sock)
                if not packet:
                    return
                if packet == END:
                    os._exit(0)
                yield packet, fds
            elif others is not None:
                others(fd)


def _zygote(sock: socket.socket, owner: int, fds: list[int]) -> None:
    """Answer each request with a child of the owner's. At least one descriptor comes with it, or there was no room."""
    from . import _rehearsal

    lifeline, place = fds
    cradle = _forkyard.Cradle(place)
    sock.send(ANSWER.pack(0, os.getpid()))
    pages = b""
    for packet, fds in _requests(sock, owner, select.poll()):
        if packet == SPARE and not pages:
            # Children are wanted again and again.
            pages = _rehearsal.find()
        try:
            if not fds:
                raise OSError(errno.EMFILE, "no room for the descriptors of a request")
            made = cradle.clone()
        except OSError as error:
            sock.send(ANSWER.pack(error.errno, 0))
        else:
            if made is None:
                del cradle
                sock.close()
                if packet == SPARE:
                    _forkyard.populate(pages, fds[-1])
                popen_fork.end(lambda: _live(packet, fds, lifeline, owner))  # noqa: B023
            pid, pidfd = made
            send(sock, ANSWER.pack(0, pid), [pidfd])
            os.close(pidfd)
        for fd in fds:
            os.close(fd)


def _live(packet: bytes, fds: list[int], lifeline: int, owner: int) -> Any:
    """Be a child: at once, or a spare one, which waits for what it shall be, and ends with the owner until then."""
    if packet == SPARE:
        with socket.socket(fileno=fds.pop()) as sock:
            ready = select.poll()
            for fd in (sock.fileno(), owner):
                ready.register(fd, select.POLLIN)
            if any(fd == owner for fd, _ in ready.poll()):
                os._exit(0)
            packet, fds = receive(sock)
            if not packet:
                os._exit(0)
            if packet[0]:
                # It came while this process was nobody.
                _interrupt.forget()
            packet = packet[1:]
    popen_fork.Life.given(owner)
    return _become(packet, fds, lifeline)


def _become(packet: bytes, fds: list[int], lifeline: int) -> Any:
    """Be the child that was asked for."""
    request = Request(*pickle.loads(packet))
    os.close(fds.pop(0))
    for stream in (1, 2):
        if stream in request.streams:
            fd = fds.pop(0)
            os.dup2(fd, stream)
            os.close(fd)
        else:
            os.closerange(stream, stream + 1)
    resource_tracker._resource_tracker._fd = fds.pop(0) if request.tracker else None  # type: ignore[attr-defined]
    data = contents(fds.pop()) if request.data is None else request.data
    given[:] = fds
    # A lifeline of its own, which can be told whom to signal.
    sentinel = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(lifeline)
    if request.environ is not None:
        os.environ.clear()
        os.environ.update(request.environ)
    gc.enable()
    signal.pthread_sigmask(signal.SIG_SETMASK, request.mask)
    return run(data, sentinel)


def run(data: bytes, sentinel: int) -> Any:
    """Be the process that was written down, with the parent's life to watch."""
    current = process.current_process()
    current._inheriting = True  # type: ignore[attr-defined]
    try:
        parts = io.BytesIO(data)
        spawn.prepare(pickle.load(parts))
        process_obj = pickle.load(parts)
    except Exception:
        sys.excepthook(*sys.exc_info())
        util._flush_std_streams()  # type: ignore[attr-defined]
        return 1
    finally:
        del current._inheriting  # type: ignore[attr-defined]
    return process_obj._bootstrap(sentinel)


def _forkserver(sock: socket.socket, owner: int, fds: list[int]) -> None:
    from . import forkserver

    sock.send(ANSWER.pack(0, os.getpid()))
    children: dict[int, tuple[int, int]] = {}
    ready = select.poll()

    def ended(pidfd: int) -> None:
        pid, status = children.pop(pidfd)
        ready.unregister(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _report(status, code)
        os.close(status)
        os.close(pidfd)

    for packet, fds in _requests(sock, owner, ready, ended):
        if not fds:
            continue
        child_r, child_w, *fds = fds
        pid = os.fork()
        if pid == 0:
            sock.close()
            for fd in (owner, child_w, *(fd for pair in children.items() for fd in (pair[0], pair[1][1]))):
                os.close(fd)
            popen_fork.end(lambda: _serve(forkserver, child_r, packet, fds))  # noqa: B023
        _report(child_w, pid)
        pidfd = os.pidfd_open(pid)
        children[pidfd] = pid, child_w
        ready.register(pidfd, select.POLLIN)
        for fd in (child_r, *fds):
            os.close(fd)


def _report(fd: int, number: int) -> None:
    from multiprocessing import forkserver

    # Whoever asked may have gone.
    with contextlib.suppress(BrokenPipeError):
        forkserver.write_signed(fd, number)


def _serve(forkserver: Any, child_r: int, packet: bytes, fds: list[int]) -> Any:
    """Be a child of the fork server."""
    gc.enable()
    signal.pthread_sigmask(signal.SIG_SETMASK, list(packet[1:]))
    client = fds.pop(0)
    popen_fork.Life.given(fds.pop(0))
    tracker = fds.pop(0) if packet[0] else None
    resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined]
    given[:] = fds
    forkserver._forkserver._inherit(client, fds)
    sentinel = os.dup(child_r)
    ready = select.poll()
    ready.register(child_r, select.POLLIN)
    if not ready.poll()[0][1] & select.POLLIN:
        # Whoever asked has ended, or has been interrupted.
        return 1
    try:
        return spawn._main(child_r, sentinel)
    except Exception:
        sys.excepthook(*sys.exc_info())
        util._flush_std_streams()  # type: ignore[attr-defined]
        return 1
