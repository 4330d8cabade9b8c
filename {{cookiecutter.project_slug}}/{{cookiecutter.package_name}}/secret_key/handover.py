"""What was good last, in memory that the processes of one server share: the ring, the variables of `.env`.

A server's first process calls `share` before it forks. From then on every good ring, and every good `.env`,
that any of its processes reads stands there; one that finds them bad, or starts when they already are,
takes them from there. They are in no file and in no variable, and gone with the server. Where nobody calls
`share`, nothing is shared.
"""

import json
import mmap
import struct
import sys
import zlib
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

from .key import Key
from .keyring import Keyring

PLACE = "last good"
"""Where the memory is found in `sys.modules`: also by a copy of this module that was loaded later, or
under another name."""
_SLOT = 16 << 20
"""Bytes for a record: more than any file that is read as one, and its names, where JSON makes six of each.

A page that is not written costs nothing.
"""
_RING, _VARIABLES = (0, 1), (2, 3)
"""The two slots of each."""
_HEADER = struct.Struct("<QQI")
"""Before a content: its number, its length in bytes, and the checksum of number and content."""


def share() -> None:
    """Share what is kept from now on with the processes that are forked from now on."""
    if not is_shared():
        place = ModuleType(PLACE)
        place.memory = mmap.mmap(-1, 4 * _SLOT)  # type: ignore[attr-defined]
        sys.modules[PLACE] = place


def is_shared() -> bool:
    """Whether this process is one of a server's whose first process has called `share`."""
    return _memory() is not None


def keep(ring: Keyring) -> None:
    """Make `ring` the last good one."""
    _write(_RING, [(key.text, key.signs_from) for key in ring.keys])


def last_good(retention: int) -> Keyring | None:
    """The last good ring, with `retention` in seconds; None where none is shared.

    It is not judged again: what is refused today, and was not when it began to serve, serves on.
    """
    kept = _read(_RING)
    return Keyring(tuple(Key(text, signs_from) for text, signs_from in kept), retention) if kept else None


def keep_variables(variables: Mapping[str, str], copied: Collection[str]) -> None:
    """Make `variables` the last good ones that `.env` said; the process has those of `copied` from it."""
    _write(_VARIABLES, [dict(variables), sorted(copied)])


def last_variables() -> tuple[dict[str, str], list[str]] | None:
    """What the last good `.env` said, and the names of what was copied; None where none is shared."""
    kept = _read(_VARIABLES)
    return (kept[0], kept[1]) if kept else None


def _write(slots: tuple[int, int], value: object) -> None:
    """Write a record into the older of two slots: a process killed meanwhile leaves the other one whole.

    Two that write at once tear their record, which the later one sees.
    """
    memory = _memory()
    if memory is None:
        return
    content = json.dumps(value).encode()
    number, kept = _newest(memory, slots)
    if content == kept:
        return
    number += 1
    slot = slots[number % 2]
    record = _HEADER.pack(number, len(content), _checksum(number, content)) + content
    while True:
        memory[slot * _SLOT : slot * _SLOT + len(record)] = record
        if _record(memory, slot)[1]:
            return


def _read(slots: tuple[int, int]) -> Any:
    """The value of the newest record; None where there is none."""
    memory = _memory()
    content = _newest(memory, slots)[1] if memory else b""
    return json.loads(content) if content else None


def _memory() -> mmap.mmap | None:
    return getattr(sys.modules.get(PLACE), "memory", None)


def _newest(memory: mmap.mmap, slots: tuple[int, int]) -> tuple[int, bytes]:
    return max(_record(memory, slot) for slot in slots)


def _record(memory: mmap.mmap, slot: int) -> tuple[int, bytes]:
    """The number and the content of a slot; the number 0 and nothing where it is not whole."""
    start = slot * _SLOT
    number, length, checksum = _HEADER.unpack_from(memory, start)
    content = memory[start + _HEADER.size : start + min(_HEADER.size + length, _SLOT)]
    return (number, content) if _checksum(number, content) == checksum else (0, b"")


def _checksum(number: int, content: bytes) -> int:
    return zlib.crc32(content, number)
