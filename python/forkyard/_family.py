"""How the family's shared memory reaches children that begin with a new interpreter.

A fork has its parent's. A new interpreter gets the descriptor in what it is started with, before it imports the main
module, which may make locks. The fork server, which imports the main module before it is asked for a child, finds it in
one environment variable, which it takes away.
"""

from __future__ import annotations

import contextlib
import io
import os
from multiprocessing import context, reduction, spawn
from typing import TYPE_CHECKING, Any

from . import _forkyard

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__: tuple[str, ...] = ()

_VARIABLE = "FORKYARD_ARENA"
_MAIN = ("init_main_from_name", "init_main_from_path")


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

    def __init__(self, family: Any, main: dict[str, Any], process: bytes) -> None:
        self._parts = (family, main, process)

    def __reduce__(self) -> Any:
        return _begin, self._parts


def _begin(family: Any, main: dict[str, Any], process: bytes) -> Any:
    join(family)
    spawn.prepare(main)
    return reduction.pickle.loads(process)  # type: ignore[attr-defined]


def parcel(popen: Any, process_obj: Any) -> memoryview:
    """Return what a new interpreter reads: how it is prepared, and the process object."""
    preparation = spawn.get_preparation_data(process_obj._name)
    main = {key: preparation.pop(key) for key in _MAIN if key in preparation}
    data, process = io.BytesIO(), io.BytesIO()
    context.set_spawning_popen(popen)
    try:
        reduction.dump(process_obj, process)
        reduction.dump(preparation, data)
        reduction.dump(_Start(handle(popen), main, process.getvalue()), data)
    finally:
        context.set_spawning_popen(None)
    return data.getbuffer()


@contextlib.contextmanager
def announced() -> Iterator[None]:
    """Let a fork server that is started meanwhile find the family."""
    os.environ[_VARIABLE] = f"/proc/{os.getpid()}/fd/{_forkyard.arena()}"
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)


def find() -> None:
    """In a fork server: take part in the family. Where that fails, whoever needs it is told."""
    path = os.environ.pop(_VARIABLE, None)
    if path is not None:
        with contextlib.suppress(OSError, RuntimeError):
            _forkyard.attach(os.open(path, os.O_RDWR | os.O_CLOEXEC))
