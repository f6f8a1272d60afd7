"""Starting a child as a copy of this process; and what all start methods have in common."""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import select
import signal
from multiprocessing import popen_fork, util
from typing import Any, NoReturn

from . import _family, _forkyard, _interrupt

__all__ = ["Popen"]

# The exit code of a child of which nobody knows how it ended.
UNKNOWN = 255

# This process's ends of the pipes by which its children see that it lives. A fork must not keep them open.
_lifelines: set[int] = set()


class Life:
    """What this process has of its parent's life, and gives of its own: a pidfd says how a process has ended."""

    # This process's own: a child has it from the beginning, so that it knows even if its parent has ended by then.
    own: int | None = None
    parents: int | None = None
    # What the server that this process is a copy of looks for, if its owner is killed, in the environment of programs.
    mark: str | None = None

    @classmethod
    def pidfd(cls) -> int:
        """Return this process's own."""
        if cls.own is None:
            cls.own = os.pidfd_open(os.getpid())
        return cls.own

    @classmethod
    def forked(cls) -> None:
        """Let go, in a fork, of what was of its grandparent; what was its parent's own is of its parent."""
        cls.take()
        cls.own, cls.parents = None, cls.own

    @classmethod
    def given(cls, pidfd: int) -> None:
        """Take over what the parent has given."""
        cls.take()
        cls.parents = pidfd

    @classmethod
    def take(cls, keep: bool = False) -> int | None:
        """Return what is known of the parent, for the last time."""
        parents, cls.parents = cls.parents, None
        if parents is not None and not keep:
            os.close(parents)
        return parents


class _Gone:
    """A child that had ended before it was looked at, in a program that ignores SIGCHLD: nobody knows how."""

    def __init__(self) -> None:
        # Readable, as all that has ended.
        self.file = os.fdopen(os.memfd_create("forkyard-gone", os.MFD_CLOEXEC), "rb", buffering=0)

    def fileno(self) -> int:
        return self.file.fileno()

    def poll(self) -> int:
        return UNKNOWN

    def send_signal(self, signal: int) -> None:
        raise ProcessLookupError(errno.ESRCH, "the process has ended")


def child_of(pid: int) -> _forkyard.Child | _Gone:
    """Return the handle of a child that has just been started."""
    try:
        return _forkyard.Child(os.pidfd_open(pid))
    except ProcessLookupError:
        return _Gone()
    except OSError:
        # There is no room for it, and nobody will know of it.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


class Popen(popen_fork.Popen):
    """A child that is a copy of this process."""

    _child: _forkyard.Child | _Gone
    _fds: list[int]
    finalizer: Any

    def _launch(self, process_obj: Any) -> None:
        with contextlib.suppress(OSError):
            # Made now, the shared memory is the child's as well.
            _forkyard.arena()
        parents_life, lifeline = os.pipe()
        _lifelines.add(lifeline)
        try:
            Life.pidfd()
            # Now, so that there is as little as can be between a look for interrupts and the fork.
            _forkyard.before_fork()
            with _interrupt.let_through():
                pass
            self.pid = os.fork()
        except BaseException:
            _forkyard.after_fork_in_parent()
            os.close(parents_life)
            _close(lifeline)
            raise
        if self.pid == 0:
            end(lambda: process_obj._bootstrap(parent_sentinel=parents_life))
        os.close(parents_life)
        self._adopt(lifeline)

    def _adopt(self, *lifeline: int, child: _forkyard.Child | _Gone | None = None) -> None:
        """Watch the child that has just been started. It watches the other end of the lifeline."""
        _lifelines.update(lifeline)
        self.finalizer = util.Finalize(self, _close, lifeline)
        self._child = child or child_of(self.pid)
        self.sentinel = self._child.fileno()

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, if the child has ended."""
        if self.returncode is None:
            code = self._child.poll()
            if code is None and not flag:
                ended = select.poll()
                ended.register(self.sentinel, select.POLLIN)
                ended.poll()
                code = self._child.poll()
            if code is not None:
                self.returncode = code
                _family.ended(self)
                # Now: an interrupt is lost that comes while things are collected.
                self.finalizer()
        return self.returncode

    def _send_signal(self, sig: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(sig)

    def close(self) -> None:
        """Let go of the child, which has ended."""
        if self.finalizer is not None:
            self.finalizer()
        self.__dict__.pop("_child", None)


def _close(*fds: int) -> None:
    _lifelines.difference_update(fds)
    util.close_fds(*fds)  # type: ignore[attr-defined]


def _let_go() -> None:
    _forkyard.after_fork_in_child()
    for fd in _lifelines:
        with contextlib.suppress(OSError):
            os.close(fd)
    _lifelines.clear()
    Life.forked()


os.register_at_fork(
    before=_forkyard.before_fork, after_in_parent=_forkyard.after_fork_in_parent, after_in_child=_let_go
)


def end(run: Any) -> NoReturn:
    """Run this process, a copy of another one, to its end, which is here."""
    code = 1
    try:
        code = run_to_the_end(run)
    except KeyboardInterrupt:
        _interrupt.end()
    finally:
        os._exit(code)


def run_to_the_end(run: Any) -> Any:
    """Do all that but the last step: the exit code."""
    atexit._clear()
    atexit.register(util._exit_function)  # type: ignore[attr-defined]
    try:
        return run()
    finally:
        atexit._run_exitfuncs()


def begin(process_obj: Any, parent_sentinel: int | None) -> None:
    """In a child: say who it is, and have the kernel end it with its parent if it is a daemon, or serves it alone.

    Otherwise it ends if its parent is killed. The parent's end of the pipe is closed when the parent ends, however that
    happens; the kernel then sends the signal.
    """
    _forkyard.introduce(process_obj.name, bool(process_obj.daemon))
    if parent_sentinel is None:
        return
    if not (process_obj.daemon or _serves(process_obj)):
        # It may outlive a parent that ends by itself, or by SIGTERM.
        _forkyard.end_with_killed(process_obj._parent_pid, parent_sentinel, Life.take(keep=True))
        return
    Life.take()
    if Life.mark is not None:
        os.environ["FORKYARD_MARK"] = Life.mark
    fcntl.fcntl(parent_sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(parent_sentinel, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(parent_sentinel, fcntl.F_GETFL)
    fcntl.fcntl(parent_sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
    ready = select.poll()
    ready.register(parent_sentinel, 0)
    if ready.poll(0):
        # It had ended before.
        os.kill(os.getpid(), signal.SIGKILL)


# Functions of processes that are no daemons, and are of no use without the process that started them: the server of a
# manager, and the workers of an executor.
_SERVICES = {("multiprocessing.managers", "_run_server"), ("concurrent.futures.process", "_process_worker")}


def _serves(process_obj: Any) -> bool:
    target = getattr(process_obj, "_target", None)
    target = getattr(target, "__func__", target)
    return (getattr(target, "__module__", None), getattr(target, "__name__", None)) in _SERVICES
