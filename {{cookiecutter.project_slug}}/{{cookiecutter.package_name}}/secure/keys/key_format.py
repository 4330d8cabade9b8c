"""The text of a generated key: the moment from which it may sign, random bits, and a checksum.

    fsk_20261122T193000Z_<64 lowercase hex digits>_<8 hex digits, the CRC-32 of everything before>

The prefix and the checksum make a leaked key easy to find without false alarms, and a damaged paste easy to
refuse. Letters, digits and `_` only: no shell, compose file or YAML changes it.
"""

import os
import re
import zlib
from datetime import UTC, datetime

KEY_PATTERN = re.compile(r"fsk_([0-9]{8}T[0-9]{6}Z)_[0-9a-f]{64}_[0-9a-f]{8}")
"""The shape of a generated key, to search a text for one; the checksum decides."""

FRAGMENT = r"(?ai)^fsk_\d{4}|Z_[0-9a-f]{16}|[0-9a-f]{16}_[0-9a-f]{8}$"
"""What is in a generated key that was damaged, and in no random text."""


def generate_text(activation: int) -> str:
    """Return a new key of 256 bits from the operating system's CSPRNG (NIST SP 800-133, section 4).

    `activation` is in seconds since the epoch: the moment from which the key may sign.
    """
    stamp = datetime.fromtimestamp(activation, UTC).strftime("%Y%m%dT%H%M%SZ")
    body = f"fsk_{stamp}_{os.urandom(32).hex()}_"
    return body + _checksum(body)


def activation_of(text: str) -> int | None:
    """Return the moment from which a generated key may sign, in epoch seconds; None where `text` is no such key.

    Raises ValueError where the moment does not exist.
    """
    match = KEY_PATTERN.fullmatch(text)
    if not match or _checksum(text[:-8]) != text[-8:]:
        return None
    return int(datetime.fromisoformat(match[1]).timestamp())


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
