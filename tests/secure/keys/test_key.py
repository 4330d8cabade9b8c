"""A key: generated here or made elsewhere, and validated before it is used."""

import base64
import json
import re
import secrets
import string
import zlib
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure.keys.files import leaked_hashes
from secure.keys.key import InvalidKeyError, Key, generate_key, is_leaked, leaked_hash, validate_key

LEAKED = leaked_hashes()
MOMENTS = st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31, 23, 59, 59), timezones=st.just(UTC))

FOREIGN = "kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"
"""34 random characters."""

FLASK_DOCS_KEY = "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf"
"""The sample of Flask's documentation, copied into many apps."""

GENERATED = generate_key(1_800_000_000).text
SPOILED = "fsk_20260230T000000Z_" + "0f" * 32 + "_"
NO_DATE = f"{SPOILED}{zlib.crc32(SPOILED.encode()):08x}"

REMOVE = "remove it and keep the rest"
QUOTES = ("is in quotes", "remove the quotes and keep the rest")
AROUND = ("has a name, a quote or a sign around it", "keep the key itself and remove the rest")
COMMENT = ("is a comment", "remove the comment line")
DAMAGED = ("is damaged: its checksum does not match", "copy the whole key again")
INSIDE = ("has white space or a line break inside", "remove it: a key is one word on one line")

HINTED = [
    (f" {FOREIGN}", "begins with white space", REMOVE),
    (f"\t{GENERATED}", "begins with white space", REMOVE),
    (f"{FOREIGN}\u00a0", "ends with white space", REMOVE),
    (f"{FOREIGN}\u200b", "ends with white space", REMOVE),
    (f"{FOREIGN}\n", "ends with a line break", REMOVE),
    (f"{GENERATED}\n", "ends with a line break", REMOVE),
    (f"{GENERATED}\r\n", "ends with a line break", REMOVE),
    (f"{GENERATED}\r", "ends with a line break", REMOVE),
    (f"\n{GENERATED}", "begins with a line break", REMOVE),
    (f"{GENERATED}\u2028", "ends with a line break", REMOVE),
    (f"\ufeff{GENERATED}", "begins with a byte order mark", REMOVE),
    (f"\ufeff{FOREIGN}", "begins with a byte order mark", REMOVE),
    (f"\u00ef\u00bb\u00bf{FOREIGN}", "begins with a byte order mark", REMOVE),
    (f'"{FOREIGN}"', *QUOTES),
    (f"'{GENERATED}'", *QUOTES),
    (f"`{GENERATED}`", *AROUND),
    (f"\u201c{GENERATED}\u201d", *QUOTES),
    ("'k1x!v9@qm7#az0$r2t%w5^b8&c1*e4(h6-j_p=l+d)f3g2s0y'", *QUOTES),
    (f'"{GENERATED}', *AROUND),
    (f"{GENERATED}'", *AROUND),
    (f"{FOREIGN},", *AROUND),
    (f"{GENERATED};", *AROUND),
    (f"{GENERATED}\\n", *AROUND),
    (f"{FOREIGN}'}}", *AROUND),
    (f'{FOREIGN}"\\n}}],', *AROUND),
    (f'{FOREIGN}")', *AROUND),
    (f'{FOREIGN}"/>', *AROUND),
    (f"u'{FOREIGN}'", *AROUND),
    (f"SECRET_KEY={GENERATED}", *AROUND),
    (f"export SECRET_KEY='{GENERATED}'", *AROUND),
    (f"SECRET_KEY: {FOREIGN}", *AROUND),
    ("# the newest key comes first", *COMMENT),
    ("#rotated", *COMMENT),
    ("; the newest key comes first", *COMMENT),
    (f"#{GENERATED}", *COMMENT),
    (f"  # {FOREIGN}", *COMMENT),
    (f"// {FOREIGN}", *COMMENT),
    (GENERATED[:-1], *DAMAGED),
    (GENERATED[:-9], *DAMAGED),
    (GENERATED[4:], *DAMAGED),
    (GENERATED[30:], *DAMAGED),
    (GENERATED.upper(), *DAMAGED),
    (f"{GENERATED[:50]}\n{GENERATED[50:]}", *DAMAGED),
    (f"{GENERATED[:50]} {GENERATED[50:]}", *DAMAGED),
    (NO_DATE, "is damaged: its date does not exist", "copy the whole key again"),
    (f"{FOREIGN[:17]}\n{FOREIGN[17:]}", *INSIDE),
    (f"{FOREIGN} {FOREIGN[::-1]}", *INSIDE),
    ("kIx3v9" * 100, "is too long: 600 of at most 512 characters", "put the key itself there"),
]
"""A text, the reason, and the hint: it keeps the key."""

REFUSED = [
    ("", "is missing or empty"),
    (" \t\ufeff ", "is missing or empty"),
    ("a", "is too short: 1 of at least 32 characters"),
    (FOREIGN[:31], "is too short: 31 of at least 32 characters"),
    (f"{FOREIGN}\0{FOREIGN}", "has characters that no key generator uses"),
    (f"{FOREIGN}\udcff", "has characters that no key generator uses"),
    (f"schlüssel-{FOREIGN}", "has characters that no key generator uses"),
    (FLASK_DOCS_KEY, "is in a public list of leaked keys"),
]
"""A text and the reason: only another key helps."""


def refused(text: str) -> bool:
    try:
        validate_key(text, LEAKED)
    except InvalidKeyError:
        return True
    return False


def accepted(texts: list[str]) -> list[str]:
    """The texts that are accepted as keys, and that are long enough for it: a list that must be empty."""
    return [text for text in texts if not refused(text)]


@given(MOMENTS)
def test_generated(moment: datetime) -> None:
    """A generated key reads back with its activation, up to the last second of the year 9999."""
    key = generate_key(int(moment.timestamp()))

    assert validate_key(key.text, LEAKED) == key
    assert key.activation == int(moment.timestamp())


def test_format() -> None:
    text = generate_key(int(datetime(2026, 11, 22, 19, 30, tzinfo=UTC).timestamp())).text

    assert re.fullmatch("fsk_20261122T193000Z_[0-9a-f]{64}_[0-9a-f]{8}", text)
    assert text[-8:] == f"{zlib.crc32(text[:-8].encode()):08x}"


@pytest.mark.usefixtures("far_from_utc")
def test_date_is_utc() -> None:
    assert generate_key(1_800_000_000).text.startswith("fsk_20270115T080000Z_")


def test_longest_key() -> None:
    text = secrets.token_hex(256)

    assert accepted([text, f"{text}0"]) == [text]


def test_random_bits_differ() -> None:
    assert len({generate_key(0).text.split("_")[2] for _ in range(1000)}) == 1000


def test_one_character_changed() -> None:
    changed = {GENERATED[:i] + c + GENERATED[i + 1 :] for i in range(len(GENERATED)) for c in string.printable}

    assert len(changed - {GENERATED}) > 9000
    assert accepted([*changed - {GENERATED}]) == []


@given(st.integers(0, 93), st.characters())
def test_one_character_inserted(at: int, character: str) -> None:
    assert refused(GENERATED[:at] + character + GENERATED[at:])


def test_cut_at_either_end() -> None:
    """Not in the middle: the 64 digits alone are a random hexadecimal key, and so is any part of 32 and more."""
    assert accepted([GENERATED[:i] for i in range(len(GENERATED))]) == []
    assert accepted([GENERATED[i:] for i in range(1, len(GENERATED))]) == []
    assert not refused(GENERATED[21:85])


def test_dropped_doubled_swapped() -> None:
    places = range(len(GENERATED))
    dropped = [GENERATED[:i] + GENERATED[i + 1 :] for i in places]
    doubled = [GENERATED[:i] + GENERATED[i] + GENERATED[i:] for i in places]
    swapped = [GENERATED[:i] + GENERATED[i : i + 2][::-1] + GENERATED[i + 2 :] for i in places[:-1]]

    assert accepted([*{GENERATED * 2, *dropped, *doubled, *swapped} - {GENERATED}]) == []


def encoded(text: str) -> list[str]:
    raw = text.encode()
    return [
        *(text.upper(), text.title(), text.swapcase(), text[::-1], text[::-1].upper(), text.replace("_", "-")),
        *(raw.hex(), raw.hex().upper(), raw.hex("-"), raw.hex(" "), raw.hex(":")),
        *(base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode(), base64.b32encode(raw).decode()),
        *(base64.b64encode(base64.b64encode(raw)).decode(),),
        *(text.replace("_", "%5F"), "".join(f"%{byte:02X}" for byte in raw), text.replace("_", "\\_")),
        *(json.dumps(text), json.dumps({"SECRET_KEY": text}), json.dumps([text]), repr(raw), repr([text])),
        *("\n".join(re.findall(".{1,64}", text)), " ".join(text), text.replace("_", " "), text.replace("_", "")),
    ]


@pytest.mark.slow
def test_encoded() -> None:
    """A generated key in another encoding is refused, whole and cut at either end."""
    texts = [text for key in (GENERATED, generate_key(0).text) for text in encoded(key)]
    cut = [piece for text in texts for n in (1, 2, 3, 10, 25) for piece in (text[n:], text[:-n])]

    digits_alone = re.compile("[0-9a-f]+")  # as documented: a shorter key looks like this

    assert [text for text in accepted(texts + cut) if not digits_alone.fullmatch(text)] == []


@pytest.mark.parametrize(("text", "reason", "hint"), HINTED)
def test_hint_keeps_the_key(text: str, reason: str, hint: str) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        validate_key(text, LEAKED)

    assert (str(caught.value), caught.value.hint) == (reason, hint)


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        validate_key(text, LEAKED)

    assert (str(caught.value), caught.value.hint) == (reason, None)


@pytest.mark.parametrize("text", [text for text, *_ in [*HINTED, *REFUSED] if len(text) > 31])
def test_message_hides_the_text(text: str) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        validate_key(text, LEAKED)

    assert text.strip() not in f"{caught.value} {caught.value!r} {caught.value.hint}"


def test_foreign() -> None:
    assert validate_key(FOREIGN, LEAKED) == Key(FOREIGN, None)
    assert validate_key(f"X{FOREIGN}X", LEAKED)


@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    """A text is a key exactly as it is, or it is refused."""
    with suppress(InvalidKeyError):
        assert validate_key(text, LEAKED).text == text


@given(st.sets(st.text()), st.sets(st.text()))
def test_is_leaked(listed: set[str], others: set[str]) -> None:
    leaked = b"".join(sorted(map(leaked_hash, listed)))

    assert all(is_leaked(text, leaked) for text in listed)
    assert not any(is_leaked(text, leaked) for text in others - listed)


def test_list_of_leaked_keys() -> None:
    hashes = [LEAKED[at : at + 6] for at in range(0, len(LEAKED), 6)]

    assert len(hashes) > 10_000
    assert hashes == sorted(set(hashes))
    assert len(hashes[-1]) == 6


def test_shown_as_fingerprint() -> None:
    key = generate_key(1_800_000_000)

    assert repr(key) == str(key) == f"{key}" == f"<Key {key.fingerprint}>"
    assert re.fullmatch("[0-9a-f]{8}", key.fingerprint)
    assert key.fingerprint not in key.text
    assert len({generate_key(0).fingerprint for _ in range(100)}) == 100
    assert Key("k" * 32).fingerprint == "c29855f3", "a later version names the same key so"
