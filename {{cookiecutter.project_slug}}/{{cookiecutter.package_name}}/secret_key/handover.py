"""The last good ring, in memory that the processes of one server share.

A server's first process calls `share` before it forks. From then on every good ring that any of its
processes reads stands there; one that finds the ring bad, or starts when it already is, takes it from
there. It is in no file and in no variable, and it is gone with the server. Where nobody calls `share`,
nothing is shared.
"""

import json
import mmap
import struct
import sys
import zlib
from types import ModuleType

from .key import Key
from .keyring import Keyring

_PLACE = "last good ring"
"""Where the memory is found in `sys.modules`: also by a copy of this module that was loaded later, or
under another name."""
_SLOT = 4 << 20
"""Bytes for a ring: more than any file that is read as one. A page that is not written costs nothing."""
_HEADER = struct.Struct("<QQI")
"""Before a ring: its number, its length in bytes, and the checksum of number and ring."""


def share(ring: Keyring) -> None:
    """Share `ring`, and every good ring after it, with the processes that are forked from now on."""
    if _memory() is None:
        place = ModuleType(_PLACE)
        place.memory = mmap.mmap(-1, 2 * _SLOT)  # type: ignore[attr-defined]
        sys.modules[_PLACE] = place
    keep(ring)


def keep(ring: Keyring) -> None:
    """Make `ring` the last good one.

    The older of two slots is written, so that a process killed meanwhile leaves the other one whole;
    two that write at once tear their record, which the later one sees.
    """
    memory = _memory()
    if memory is None:
        return
    content = json.dumps([(key.text, key.signs_from) for key in ring.keys]).encode()
    number, kept = max(_record(memory, 0), _record(memory, 1))
    if content == kept:
        return
    number += 1
    slot = number % 2
    record = _HEADER.pack(number, len(content), _checksum(number, content)) + content
    while True:
        memory[slot * _SLOT : slot * _SLOT + len(record)] = record
        if _record(memory, slot)[1]:
            return


def last_good(retention: int) -> Keyring | None:
    """The last good ring, with `retention` in seconds; None where none is shared.

    It is not judged again: what is refused today, and was not when it began to serve, serves on.
    """
    memory = _memory()
    content = max(_record(memory, 0), _record(memory, 1))[1] if memory else b""
    keys = (Key(text, signs_from) for text, signs_from in json.loads(content or "[]"))
    return Keyring(tuple(keys), retention) if content else None


def _memory() -> mmap.mmap | None:
    return getattr(sys.modules.get(_PLACE), "memory", None)


def _record(memory: mmap.mmap, slot: int) -> tuple[int, bytes]:
    """The number and the content of a slot; the number 0 and nothing where it is not whole."""
    start = slot * _SLOT
    number, length, checksum = _HEADER.unpack_from(memory, start)
    content = memory[start + _HEADER.size : start + min(_HEADER.size + length, _SLOT)]
    return (number, content) if _checksum(number, content) == checksum else (0, b"")


def _checksum(number: int, content: bytes) -> int:
    return zlib.crc32(content, number)
