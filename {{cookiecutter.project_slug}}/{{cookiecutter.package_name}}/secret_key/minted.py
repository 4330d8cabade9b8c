"""The text of a key that is minted here: the moment from which it may sign, and a checksum.

    fsk_20261122T193000Z_<64 lowercase hex digits>_<8 hex digits, the CRC-32 of all before it>

The prefix and the checksum make a leaked key findable with no false alarm, and a damaged paste
refusable. Letters, digits and `_` only: no shell, compose file or YAML changes it.
"""

import os
import re
import zlib
from datetime import UTC, datetime

MINTED = re.compile(r"fsk_([0-9]{8}T[0-9]{6}Z)_[0-9a-f]{64}_[0-9a-f]{8}")
"""The shape of a minted key, for those who search a text for one; the checksum decides."""

PIECE = re.compile(r"^fsk_|Z_[0-9a-f]{16}|[0-9a-f]{16}_[0-9a-f]{8}$", re.IGNORECASE)
"""What is in a text that was a minted key before it was damaged."""


def new_text(signs_from: int) -> str:
    """A new key of 256 bits from the operating system's CSPRNG (NIST SP 800-133, section 4).

    `signs_from` is in seconds since the epoch: the moment from which the key may sign.
    """
    stamp = datetime.fromtimestamp(signs_from, UTC).strftime("%Y%m%dT%H%M%SZ")
    body = f"fsk_{stamp}_{os.urandom(32).hex()}_"
    return body + _checksum(body)


def start_of(text: str) -> int | None:
    """The moment from which a minted key may sign, in epoch seconds; None where `text` is not such a key.

    Raises ValueError where it is one, whose moment does not exist.
    """
    match = MINTED.fullmatch(text)
    if not match or _checksum(text[:-8]) != text[-8:]:
        return None
    return int(datetime.fromisoformat(match[1]).timestamp())


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
