"""An interrupt, which a terminal sends to every process of a program (Ctrl-C): the parent's traceback is the only one.

When it comes, and what it does:

- In the parent, in the middle of a start: it is held back until the child is known, for nobody would wait for a child
  that is not, or end it. One that comes before there is a child is let through, so that none is made that has not got
  it; and so are waits for a server process: what has been begun there is undone.
- In a child that has not begun with its target: it ends the child, by the signal, silently.
- In the target of a child: a ``KeyboardInterrupt``, as ever. If nobody handles it, the exit handlers run, and then the
  child ends by the signal, as an interpreter does, and silently: ``exitcode`` is ``-SIGINT``.
- In a child that is ending: it goes on with that. A second one ends it at once.
- In a server process: nothing. A program that handles an interrupt starts others later.
- In a spare child that waits: it stays pending. Whoever has a use for the spare looks first whether one is, and then
  the spare forgets it; one that comes afterwards is for the child.

A handler that the program has set, and a signal that it ignores or blocks, are left as they are. Killed here: nothing
is held but the signal mask of a thread, which ends with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from multiprocessing import util
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__: tuple[str, ...] = ()

_INTERRUPT = {signal.SIGINT}


class _Held(threading.local):
    # Whether this thread's mask has the signal in it because of what is done here.
    back = False


_held = _Held()


def mask() -> set[Any]:
    """Return this thread's signal mask, as the program has set it: a child's."""
    now = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return now - _INTERRUPT if _held.back else now


def held(do: Callable[[], object]) -> None:
    """Do something with interrupts held back.

    In a thread that is not the main one they are from then on: handlers run in the main thread only, and a thread that
    changes its mask may take a signal that was to wake the main thread.
    """
    if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        do()
        return
    try:
        _held.back = True
        # The call raises one that has come just before, and the signal is blocked then.
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
        do()
    finally:
        if threading.current_thread() is threading.main_thread():
            _held.back = False
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)


@contextlib.contextmanager
def let_through() -> Iterator[None]:
    """Let them through meanwhile, if they are held back."""
    if not _held.back or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)


def waits_in(pid: int) -> bool:
    """Tell whether one is pending in a process."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as status:
            pending = status.read(4096).partition(b"\nShdPnd:\t")[2]
            return bool(int(pending[:16], 16) >> (signal.SIGINT - 1) & 1)
    except (OSError, ValueError):
        # It has ended, or is nobody's to look at.
        return False


def forget() -> None:
    """In a process in which it is blocked: drop one that is pending."""
    signal.signal(signal.SIGINT, signal.signal(signal.SIGINT, signal.SIG_IGN))


class Guard:
    """What stands around the target of a child."""

    def __init__(self, process_obj: Any) -> None:
        """Hold interrupts back until it runs."""
        self._process_obj = process_obj
        self._mask = mask()
        self._interrupted = False
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
        _held.back = False
        if sys.excepthook is _without_interrupts:
            sys.excepthook = sys.__excepthook__
        process_obj.run = self._run

    def _run(self) -> None:
        # What the program sees is its own.
        del self._process_obj.run
        held = self._mask
        try:
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
                self._process_obj.run()
            finally:
                # One that came before is raised here at the latest.
                held = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
        except KeyboardInterrupt:
            self._interrupted = True
            if util._logger is not None:  # type: ignore[attr-defined]
                util._logger.info("interrupted", exc_info=True)  # type: ignore[attr-defined]
            raise SystemExit(128 + signal.SIGINT) from None
        finally:
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, signal.SIG_DFL if self._interrupted else _note)
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def tell(self) -> None:
        """Raise the interrupt again that ended the target, now that all is done: for `end`, or for the interpreter."""
        if self._interrupted:
            sys.excepthook = _silent
            raise KeyboardInterrupt


def _note(_signal: int, _frame: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end() -> NoReturn:
    """End this process by an interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
    os.kill(os.getpid(), signal.SIGINT)
    os._exit(128 + signal.SIGINT)


def _silent(_type: object, _value: object, _traceback: object) -> None: ...


def _without_interrupts(kind: type[BaseException], value: BaseException, traceback: Any) -> None:
    if kind is not KeyboardInterrupt:
        sys.__excepthook__(kind, value, traceback)


def begin(wanted: bool) -> None:
    """In a new interpreter, which has begun with interrupts held back: let them through, if the program does."""
    if wanted:
        sys.excepthook = _without_interrupts
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
