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

import os
import signal
import sys
import threading
from multiprocessing import util
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

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


def undisturbed(do: Callable[[], object]) -> None:
    """Do something with interrupts held back, whichever thread takes them.

    A mask is not enough: handlers run in the main thread, also for a signal that another thread has taken.
    """
    if threading.current_thread() is threading.main_thread():
        held(lambda: _Noting(do).run())
    else:
        held(do)


class _Noting:
    """The main thread, in the middle of something: the program's handler is called when that is over."""

    now: ClassVar[_Noting | None] = None

    def __init__(self, do: Callable[[], object]) -> None:
        self._do = do
        self._handler: Any = signal.getsignal(signal.SIGINT)
        self._came: Any = None
        self.missed = False

    def run(self) -> None:
        if _Noting.now is not None or not callable(self._handler):
            self._do()
            return
        try:
            _Noting.now = self
            self.begin()
            self._do()
        finally:
            self.end()
            _Noting.now = None
            self.pass_on()

    def begin(self) -> None:
        signal.signal(signal.SIGINT, self._note)

    def end(self) -> None:
        signal.signal(signal.SIGINT, self._handler)

    def came(self) -> bool:
        return self._came is not None

    def pass_on(self) -> None:
        came, self._came = self._came, None
        if came is not None:
            self._handler(*came)

    def _note(self, *came: Any) -> None:
        self._came = came


def _forks() -> None:
    now = _Noting.now
    if now is not None and _held.back:
        now.missed = now.came() or signal.SIGINT in signal.sigpending()


def _forked() -> None:
    now, _Noting.now = _Noting.now, None
    if now is not None:
        now.end()
        if now.missed:
            # It had come a moment before the fork, and will be raised in the parent when the start is over.
            os.kill(os.getpid(), signal.SIGINT)


os.register_at_fork(before=_forks, after_in_child=_forked)


class let_through:  # noqa: N801
    """Let them through meanwhile, if they are held back.

    No generator: one that an interrupt leaves in its middle is finished when it is collected, and would block them.
    """

    def __enter__(self) -> None:
        """Let through what has come, too."""
        main = threading.current_thread() is threading.main_thread()
        self._noting = _Noting.now if main else None
        self._held = main and _held.back
        if self._noting is not None:
            self._noting.end()
            self._noting.pass_on()
        if self._held:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)

    def __exit__(self, *_: object) -> None:
        """Hold them back again."""
        try:
            if self._held:
                signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
        finally:
            if self._noting is not None:
                self._noting.begin()


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
                # One that came before is raised in one of these two at the latest, whichever thread has taken it.
                held = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
                self._end_by(_note)
        except KeyboardInterrupt:
            self._interrupted = True
            self._end_by(signal.SIG_DFL)
            if util._logger is not None:  # type: ignore[attr-defined]
                util._logger.info("interrupted", exc_info=True)  # type: ignore[attr-defined]
            raise SystemExit(128 + signal.SIGINT) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    @staticmethod
    def _end_by(handler: Any) -> None:
        if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _note):
            signal.signal(signal.SIGINT, handler)

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
