"""The names that this process gave to the system's shared memory, and did not remove. The program does so at its end.

They are noted in the family's memory as well, where a zygote or fork server finds them whose owner was killed. One that
was killed and had neither leaves its names.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from multiprocessing import process

from . import _forkyard

__all__: tuple[str, ...] = ()

# Which half of the rest is the list, and how long that is: written last, so whoever is killed leaves one of both lists.
_HEAD = struct.Struct("=II")
_HALF = 1 << 15

_DIRECTORY = "/dev/shm"


class _Names:
    """The names, and which file each is of: somebody else may have removed it, and given it to another one."""

    def __init__(self) -> None:
        self.place = f"/forkyard-given-{secrets.token_hex(8)}"
        self.files: dict[str, tuple[int, int]] = {}
        self._memory: _forkyard.Memory | None = None
        self._half = 0

    def forget(self) -> None:
        """Let go, in a fork, of what its parent gave."""
        self.__init__()  # type: ignore[misc]

    def add(self, name: str, file: tuple[int, int]) -> None:
        """Take note of a name."""
        self.files[name] = file
        # What a child makes is there for others when it has ended.
        if process.parent_process() is None:
            # Without room for it, nobody is told.
            with contextlib.suppress(OSError):
                self._note()

    def discard(self, name: str) -> None:
        """Forget a name that was removed. The note may say so later: the file is another one by then."""
        self.files.pop(name, None)

    def _note(self) -> None:
        # Not for those who give no names.
        import json

        text = json.dumps(list(self.files.items())).encode()
        if len(text) > _HALF:
            return
        if self._memory is None:
            self._memory = _forkyard.Memory.create(self.place, _HEAD.size + 2 * _HALF, "shared_memory")
        self._half ^= 1
        with memoryview(self._memory) as view:
            begin = _HEAD.size + self._half * _HALF
            view[begin : begin + len(text)] = text
            _HEAD.pack_into(view, 0, self._half, len(text))


names = _Names()
os.register_at_fork(after_in_child=names.forget)


def remove_all() -> None:
    """When the program ends: remove what it did not."""
    if process.parent_process() is None:
        for name, file in list(names.files.items()):
            _remove(name, file)


def remove_noted(place: str) -> None:
    """Remove what was noted by somebody who was killed."""
    import json

    with contextlib.suppress(OSError, ValueError, TypeError, struct.error):
        with memoryview(_forkyard.Memory.attach(place)) as view:
            half, length = _HEAD.unpack_from(view)
            text = bytes(view[_HEAD.size + half * _HALF :][:length])
        for name, (device, inode) in json.loads(text):
            _remove(str(name), (device, inode))


def _remove(name: str, file: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        path = os.path.join(_DIRECTORY, os.path.basename(name))
        status = os.stat(path)
        if (status.st_dev, status.st_ino) == file:
            os.unlink(path)
