"""A key: minted here or made elsewhere, and judged before it is used."""

import re
import secrets
import string
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from package import Key, KeyRefused, is_leaked, judge, leaked_hash, leaked_hashes, mint

LEAKED = leaked_hashes()
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC))

GOOD_FOREIGN = "kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"
"""34 characters that nothing is wrong with."""

FLASK_DOCS_KEY = "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf"
"""The sample that Flask's documentation shows, copied into many an app."""

REFUSED = [
    ("", "is missing or empty"),
    (" \t ", "is missing or empty"),
    ("a", "is too short: 1 of at least 32 characters"),
    (GOOD_FOREIGN[:31], "is too short: 31 of at least 32 characters"),
    (f" {GOOD_FOREIGN}", "begins or ends with white space"),
    (f"{GOOD_FOREIGN}\u00a0", "begins or ends with white space"),
    (f'"{GOOD_FOREIGN}"', "stands in quotes"),
    (f"'{GOOD_FOREIGN}'", "stands in quotes"),
    (f"{GOOD_FOREIGN}\n", "has a control character or is not UTF-8 text"),
    (f"{GOOD_FOREIGN}\0", "has a control character or is not UTF-8 text"),
    (f"{GOOD_FOREIGN}\udcff", "has a control character or is not UTF-8 text"),
    ("a" * 64, "is predictable: its characters repeat or follow one another"),
    ("abcabcabcabcabcabcabcabcabcabcabcabc", "is predictable: its characters repeat or follow one another"),
    (GOOD_FOREIGN * 2, "is predictable: its characters repeat or follow one another"),
    ("abcdefghijklmnopqrstuvwxyz0123456789", "is predictable: its characters repeat or follow one another"),
    ("changeme-changeme-4f9a2c7e1b8d3f60", "reads like a placeholder"),
    ("CHANGE_ME_before_you_deploy_this_1", "reads like a placeholder"),
    ("your-secret-key-goes-right-here-42", "reads like a placeholder"),
    ("django-insecure-x7q2m9k4w8z1v5b3n6c0", "reads like a placeholder"),
    (FLASK_DOCS_KEY, "is public: it stands in a word list that attackers use"),
    ("fsk_20260230T000000Z_" + "0" * 64 + "_00000000", "is damaged: its checksum does not match"),
    ("fsk_", "is damaged: its checksum does not match"),
]


def refused(text: str) -> bool:
    try:
        judge(text, LEAKED)
    except KeyRefused:
        return True
    return False


@given(MOMENTS)
def test_a_minted_key_reads_back_with_its_time(moment: datetime) -> None:
    key = mint(int(moment.timestamp()))

    assert judge(key.text, LEAKED) == key
    assert key.signs_from == int(moment.timestamp())


def test_a_minted_key_has_a_prefix_a_time_256_random_bits_and_a_checksum() -> None:
    text = mint(int(datetime(2026, 11, 22, 19, 30, tzinfo=UTC).timestamp())).text

    assert re.fullmatch("fsk_20261122T193000Z_[0-9a-f]{64}_[0-9a-f]{8}", text)
    assert text[-8:] == f"{zlib.crc32(text[:-8].encode()):08x}"


@pytest.mark.usefixtures("far_from_utc")
def test_a_minted_key_tells_its_time_in_utc_wherever_the_machine_is() -> None:
    assert mint(1_800_000_000).text.startswith("fsk_20270115T080000Z_")


def test_no_two_minted_keys_share_their_random_bits() -> None:
    assert len({mint(0).text.split("_")[2] for _ in range(1000)}) == 1000


def test_a_minted_key_with_one_character_changed_is_refused() -> None:
    text = mint(1_800_000_000).text
    changed = {text[:i] + c + text[i + 1 :] for i in range(len(text)) for c in string.printable} - {text}

    assert len(changed) > 9000
    assert [other for other in changed if not refused(other)] == []


@given(st.integers(0, 93), st.characters())
def test_a_minted_key_with_any_character_put_into_it_is_refused(at: int, character: str) -> None:
    text = mint(1_800_000_000).text

    assert refused(text[:at] + character + text[at:])


def test_a_piece_of_a_minted_key_is_refused() -> None:
    text = mint(1_800_000_000).text
    cut = [text[:i] for i in range(len(text))] + [text[i:] for i in range(1, len(text))]

    assert [piece for piece in cut if not refused(piece)] == []


def test_a_minted_key_with_a_character_dropped_doubled_or_swapped_is_refused() -> None:
    text = mint(1_800_000_000).text
    dropped = [text[:i] + text[i + 1 :] for i in range(len(text))]
    doubled = [text[:i] + text[i] + text[i:] for i in range(len(text))]
    swapped = [text[:i] + text[i + 1] + text[i] + text[i + 2 :] for i in range(len(text) - 1)]
    other_case = [text.upper(), text.title(), text.swapcase()]
    damaged = {text * 2, *dropped, *doubled, *swapped, *other_case} - {text}

    assert [other for other in damaged if not refused(other)] == []


def test_a_minted_key_names_a_moment_that_exists() -> None:
    body = "fsk_20260230T000000Z_" + "0f" * 32 + "_"

    with pytest.raises(KeyRefused, match=r"^is damaged: it names a moment that does not exist$"):
        judge(f"{body}{zlib.crc32(body.encode()):08x}", LEAKED)


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_a_key_that_can_be_guessed_or_was_not_meant_is_refused(text: str, reason: str) -> None:
    with pytest.raises(KeyRefused) as caught:
        judge(text, LEAKED)

    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    "make",
    [
        lambda: secrets.token_hex(32),
        lambda: secrets.token_hex(16),
        lambda: secrets.token_urlsafe(32),
        lambda: secrets.token_bytes(32).hex("-"),
        lambda: GOOD_FOREIGN,
        lambda: "schlüssel-größe-" + secrets.token_urlsafe(24),
    ],
)
def test_a_random_key_made_elsewhere_is_accepted_and_has_no_time(make: Callable[[], str]) -> None:
    for text in [make() for _ in range(200)]:
        assert judge(text, LEAKED) == Key(text, None)


@pytest.mark.parametrize(
    ("text", "remedy"), [(f'"{GOOD_FOREIGN}"', "take them away"), (f" {GOOD_FOREIGN}", "take that away")]
)
def test_what_stands_around_a_key_is_told_with_its_remedy(text: str, remedy: str) -> None:
    with pytest.raises(KeyRefused) as caught:
        judge(text, LEAKED)

    assert caught.value.remedy == remedy


def test_letters_are_no_quotes() -> None:
    assert judge(f"X{GOOD_FOREIGN}X", LEAKED)


FIVE, SIX = ("".join(set_of[i * i % 37 % len(set_of)] for i in range(36)) for set_of in ("adgjm", "adgjmp"))
RUN_OF_31, RUN_OF_32 = ("".join(map(chr, range(ord("0"), ord("0") + length))) for length in (31, 32))


@pytest.mark.parametrize(
    ("good", "predictable"),
    [(SIX, FIVE), (RUN_OF_31 + "acegikmoq", RUN_OF_32 + "acegikmo")],
    ids=["six characters, and five", "three quarters that follow one another, and more"],
)
def test_a_key_made_elsewhere_is_predictable_from_a_limit_on(good: str, predictable: str) -> None:
    assert judge(good, LEAKED) == Key(good)
    with pytest.raises(KeyRefused, match="is predictable: its characters"):
        judge(predictable, LEAKED)


@given(st.text(max_size=80))
def test_any_text_is_a_key_as_it_stands_or_is_refused(text: str) -> None:
    with suppress(KeyRefused):
        assert judge(text, LEAKED).text == text


@given(st.sets(st.text()), st.sets(st.text()))
def test_a_key_is_leaked_where_its_hash_is_listed(listed: set[str], others: set[str]) -> None:
    leaked = b"".join(sorted(map(leaked_hash, listed)))

    assert all(is_leaked(text, leaked) for text in listed)
    assert not any(is_leaked(text, leaked) for text in others - listed)


def test_the_list_of_leaked_keys_is_sorted_and_long() -> None:
    hashes = [LEAKED[at : at + 6] for at in range(0, len(LEAKED), 6)]

    assert len(hashes) > 10_000
    assert hashes == sorted(set(hashes))
    assert len(hashes[-1]) == 6


def test_a_key_shows_as_its_fingerprint_alone() -> None:
    key = mint(1_800_000_000)

    assert repr(key) == str(key) == f"{key}" == f"<Key {key.fingerprint}>"
    assert re.fullmatch("[0-9a-f]{8}", key.fingerprint)
    assert key.fingerprint not in key.text
    assert len({mint(0).fingerprint for _ in range(100)}) == 100


@pytest.mark.parametrize("text", [text for text, _ in REFUSED if len(text) > 5])
def test_a_refusal_never_holds_the_text_it_refuses(text: str) -> None:
    with pytest.raises(KeyRefused) as caught:
        judge(text, LEAKED)

    assert text.strip() not in f"{caught.value} {caught.value!r} {caught.value.remedy}"
