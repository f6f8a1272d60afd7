"""How the family's shared memory reaches children that begin with a new interpreter.

A fork has its parent's. A new interpreter gets the descriptor in what it is started with, before it imports the main
module, which may make locks; a server process, which imports the main module before it is asked for a child, in its
greeting.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from multiprocessing import context, popen_spawn_posix, reduction, resource_tracker, spawn
from typing import Any

from . import _forkyard, _interrupt

__all__: tuple[str, ...] = ()

# What is done after the family is known: the main module may make locks, and ask for a context.
_LATE = ("start_method", "init_main_from_name", "init_main_from_path")


class Same:
    """Stands for the family in what a child is sent that has the family's shared memory from the beginning."""

    def detach(self) -> int:
        """Return the descriptor that this process has."""
        return _forkyard.arena()


def handle(popen: Any) -> Any:
    """Return what stands for the family in what this child is sent: the same for all that it is sent."""
    if not hasattr(popen, "_forkyard_family"):
        popen._forkyard_family = reduction.DupFd(_forkyard.arena())
    return popen._forkyard_family


# The descriptors that this process was given for its family, once: what has their numbers later is something else.
_joined: set[int] = set()


def join(family: Any) -> None:
    """Take part in the family that this process was started by."""
    fd = family.detach()
    if fd not in _joined:
        _joined.add(fd)
        _forkyard.attach(fd)


def keep(shared: object) -> None:
    """Keep an object until the child that it is being sent to has ended: it may look for it late."""
    popen = context.get_spawning_popen()
    if popen is not None:
        popen.__dict__.setdefault("_forkyard_kept", []).append(shared)


def ended(popen: Any) -> None:
    """Take note of a child's end: what it held is given to others."""
    popen.__dict__.pop("_forkyard_kept", None)
    _forkyard.reap()


class _Start:
    """The second of the two things that a new interpreter reads: the first one has its path in it."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __reduce__(self) -> Any:
        return _begin, self._parts


def _begin(
    family: Any, late: dict[str, Any], method: str | None, process: bytes, fresh: tuple[int, bool] | None
) -> Any:
    from .context import _default_context, _real_default
    from .popen_fork import Life

    if fresh is not None:
        parents, interrupts = fresh
        os.set_inheritable(parents, False)
        Life.given(parents)
        _interrupt.begin(interrupts)
    join(family)
    spawn.prepare({key: late.pop(key) for key in ("start_method",) if key in late})
    _default_context._adopt(method, _real_default._actual_context)
    spawn.prepare(late)
    return reduction.pickle.loads(process)  # type: ignore[attr-defined]


def preparation(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how a new interpreter is prepared: before it knows its family, and then."""
    data = spawn.get_preparation_data(name)
    if not os.path.exists(data.get("init_main_from_path", ".")):
        del data["init_main_from_path"]
    late = {key: data.pop(key) for key in _LATE if key in data}
    return data, late


def parcel(popen: Any, process_obj: Any) -> bytes:
    """Return what a new interpreter reads: how it is prepared, and the process object."""
    from .context import _default_context
    from .popen_fork import Life

    early, late = preparation(process_obj._name)
    data, process = io.BytesIO(), io.BytesIO()
    context.set_spawning_popen(popen)
    try:
        reduction.dump(process_obj, process)
        popen._forkyard_of_main = b"__main__" in process.getvalue()
        reduction.dump(early, data)
        method = _default_context.get_start_method(allow_none=True)
        fresh = None
        if isinstance(popen, popen_spawn_posix.Popen):
            # A new interpreter begins with interrupts held back, and finds out here whether it gets them.
            fresh = Life.pidfd(), signal.SIGINT not in _interrupt.mask()
        reduction.dump(_Start(handle(popen), late, method, process.getvalue(), fresh), data)
    finally:
        context.set_spawning_popen(None)
    return data.getvalue()


def can_import_main() -> bool:
    """Tell whether a child can have the main module by importing it."""
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return name != "__main__" and not name.endswith(".__main__")
    return os.path.exists(getattr(main, "__file__", None) or "")


def is_frozen() -> bool:
    """Tell whether the program was made into an executable of its own."""
    return bool(getattr(sys, "frozen", False))


def has_directory() -> bool:
    """Tell whether there is still the working directory."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def tracker() -> int | None:
    """Return the descriptor of the standard library's resource tracker, if the program uses it: nothing here does."""
    fd: int | None = resource_tracker._resource_tracker._fd  # type: ignore[attr-defined]
    return fd
