"""Keys made elsewhere: what a random generator prints is accepted, and nothing else."""

import base64
import hashlib
import os
import random
import secrets
import string
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure.keys import foreign
from secure.keys.files import leaked_hashes
from secure.keys.foreign import MAX_SAVING, refusal, saved_bits
from secure.keys.key import InvalidKeyError, validate_key

KEYS = int(os.environ.get("FOREIGN_KEYS", "70"))
"""How many keys of each generator are tried: FOREIGN_KEYS=100000 is the full run, about half an hour."""

RANDOM = random.SystemRandom()
ALNUM = string.ascii_letters + string.digits
DJANGO = string.ascii_lowercase + string.digits + "!@#$%^&*(-_=+)"
LEAKED = leaked_hashes()


def octets(least: int, most: int) -> bytes:
    return secrets.token_bytes(RANDOM.randint(least, most))


def characters(alphabet: str, least: int, most: int) -> str:
    return "".join(RANDOM.choices(alphabet, k=RANDOM.randint(least, most)))


GENERATORS: dict[str, Callable[[], str]] = {
    "hex of 16 to 64 bytes": lambda: octets(16, 64).hex(),
    "hex of 16 bytes": lambda: secrets.token_hex(16),
    "upper-case hex of 16 to 64 bytes": lambda: octets(16, 64).hex().upper(),
    "base64 of 24 to 64 bytes": lambda: base64.b64encode(octets(24, 64)).decode(),
    "base64 without padding": lambda: base64.b64encode(octets(24, 64)).decode().rstrip("="),
    "base64url of 24 to 64 bytes": lambda: base64.urlsafe_b64encode(octets(24, 64)).decode(),
    "base64url without padding": lambda: base64.urlsafe_b64encode(octets(24, 64)).decode().rstrip("="),
    "secrets.token_urlsafe(32)": lambda: secrets.token_urlsafe(32),
    "base32 of 20 to 64 bytes": lambda: base64.b32encode(octets(20, 64)).decode(),
    "Django's 50 characters": lambda: characters(DJANGO, 50, 50),
    "Rails' 128 hex digits": lambda: secrets.token_hex(64),
    "pwgen -s 40": lambda: characters(ALNUM, 40, 40),
    "two joined UUIDs": lambda: RANDOM.choice(["", "-", "_", "."]).join(str(uuid.uuid4()) for _ in "12"),
    "two joined UUIDs without dashes": lambda: uuid.uuid4().hex + uuid.uuid4().hex,
    "32 letters and digits": lambda: characters(ALNUM, 32, 32),
    "32 to 64 letters and digits": lambda: characters(ALNUM, 32, 64),
    "32 to 64 lower-case letters and digits": lambda: characters(string.ascii_lowercase + string.digits, 32, 64),
    "32 characters of terraform's random_password": lambda: characters(ALNUM + "!@#$%&*()-_=+[]{}<>:?", 32, 32),
}


def sections() -> Iterator[tuple[str, str]]:
    """The kind of each text of `not_keys.txt`, and the text."""
    kind = ""
    for line in (Path(__file__).parent / "not_keys.txt").read_text().splitlines():
        if line.startswith("# "):
            kind = line[2:]
        elif line:
            yield kind, line.replace("\u00b7", "")


NOT_KEYS = [*sections()]


def accepted(texts: list[str]) -> list[str]:
    """The texts that are accepted as keys."""
    found = []
    for text in texts:
        try:
            found.append(validate_key(text, LEAKED).text)
        except InvalidKeyError:
            continue
    return found


@pytest.mark.parametrize("generate", GENERATORS.values(), ids=GENERATORS)
def test_random_key(generate: Callable[[], str]) -> None:
    keys = [generate() for _ in range(3)]

    assert accepted(keys) == keys


@pytest.mark.slow
@pytest.mark.parametrize("generate", GENERATORS.values(), ids=GENERATORS)
def test_no_false_refusal(generate: Callable[[], str]) -> None:
    keys = [generate() for _ in range(KEYS)]

    assert [(key, refusal(key)) for key in keys if len(accepted([key])) != 1] == []


@pytest.mark.parametrize(
    ("start", "alphabet", "length"),
    [
        ("EAA", string.digits + "ABCDEF", 64),
        ("EAA", string.digits + "ABCDEF", 128),
        ("EAA", string.ascii_uppercase + "234567", 104),
        ("MII", string.ascii_uppercase + "234567", 104),
        ("AG", string.ascii_uppercase + "234567", 104),
        ("SK", string.ascii_uppercase + "234567", 56),
        ("A3", string.ascii_uppercase + string.digits, 64),
        ("{ojR}", ALNUM, 32),
        ("{P}", ALNUM, 32),
    ],
)
def test_start_of_a_token(start: str, alphabet: str, length: int) -> None:
    """One random key in some thousands begins so; a token has letters that this key cannot have."""
    keys = [start + characters(alphabet, length - len(start), length - len(start)) for _ in range(20)]

    assert accepted(keys) == keys


@pytest.mark.parametrize("name", ["cipher", "aes", "enc", "ENC", "SSHA", "Cipher", "SHA512", "aes-256-gcm", "vault.v1"])
def test_name_in_braces(name: str) -> None:
    """It says how the rest is encrypted or hashed, as with Spring Cloud Config and LDAP."""
    keys = [f"{{{name}}}{secrets.token_urlsafe(32)}" for _ in range(5)]

    assert accepted(keys) == []


@pytest.mark.parametrize("kind", dict(NOT_KEYS))
def test_no_false_acceptance(kind: str) -> None:
    texts = [text for of, text in NOT_KEYS if of == kind]

    assert min(map(len, texts)) >= 32, "a shorter text proves nothing"
    assert accepted(texts) == []


def test_list_is_long() -> None:
    texts = [text for _, text in NOT_KEYS]

    assert len(texts) == len(set(texts)) > 650
    assert len(dict(NOT_KEYS)) > 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in dict(NOT_KEYS) if kind.startswith(("instr", "key", "seq"))])
def test_variants(kind: str) -> None:
    """Words, walks and sequences stay recognizable in another case and with a tail."""
    texts = [text for of, text in NOT_KEYS if of == kind and not text.startswith("django-")]
    variants = [variant for text in texts for variant in (text.upper(), text.lower(), f"{text}2026", f"{text}!1")]

    assert accepted(variants) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("op://Production/flask/SECRET_KEY", "is a reference that was not resolved"),
        ("$(python -c 'import secrets; print(secrets.token_hex())')", "is text that was not expanded"),
        ("${FLASK_APPLICATION_SECRET_KEY}", "is text that was not expanded"),
        ('{"errors":["1 error occurred: permission denied"]}', "is a message or a document"),
        ("<html><title>502 Bad Gateway</title></html>", "is a message or a document"),
    ],
)
def test_hint_is_the_key_itself(text: str, reason: str) -> None:
    assert refusal(text) == (reason, "put the key itself there")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-----BEGIN PRIVATE KEY-----MC4CAQAw", "belongs to another system"),
        ("be8e0ad8-d545-4017-a55a-b02f014d4158", "is a UUID: a name, not a secret"),
        ("31415926535897932384626433832795", "has only digits"),
        (hashlib.sha256(b"").hexdigest(), "is the hash of an empty text"),
        (hashlib.sha256(b"\n").hexdigest(), "is the hash of an empty text"),
        (str(uuid.uuid1()) * 2, "does not look random: it has words, repetitions or other patterns"),
        ("please-generate-a-random-secret-key", "does not look random: it has words, repetitions or other patterns"),
        ("ZmxhbmcKc2VjcmV0LWtleS1mb3ItZGV2", "does not look random: it is text in another encoding"),
    ],
)
def test_reason(text: str, reason: str) -> None:
    assert refusal(text) == (reason, None)


@given(
    st.sampled_from([*foreign._ALPHABETS, foreign._BYTES]),
    st.sampled_from(foreign._PREDICTORS),
    st.data(),
)
def test_predictor_is_a_distribution(alphabet: str, predictor: foreign.Predictor, data: st.DataObject) -> None:
    """The odds of the next characters are 1 or less on average, so the bound on false refusals holds."""
    letters = st.sampled_from(alphabet) | st.sampled_from([c for c in "aesr10qwE-" if c in alphabet] or ["2"])
    before = "".join(data.draw(st.lists(letters, max_size=40)))
    odds = [[*predictor(before + character, alphabet)] for character in alphabet]

    assert {len(each) for each in odds} == {len(before) + 1}
    assert sum(each[-1] for each in odds) / len(alphabet) <= 1 + 1e-9
    assert sum(foreign._TRUST) == pytest.approx(1)


def test_bound() -> None:
    """Of 2**t random texts about one or none lets the guesser save t bits."""
    saved = [saved_bits(secrets.token_hex(16), foreign._HEX) for _ in range(512)]

    assert sum(bits >= 7 for bits in saved) <= 16
    assert max(saved) < MAX_SAVING


def test_cut_hex_is_accepted() -> None:
    """As documented: nothing tells a cut key from a shorter one."""
    assert refusal(secrets.token_hex(32)[:47]) is None


@pytest.mark.parametrize(
    ("text", "alphabet", "bits"),
    [
        ("Correct-Horse-Battery-Staple-1234", foreign._BYTES[33:127], 111.055063),
        ("qwertyuiop1qaz2wsx3edcP@ssw0rd!", foreign._BYTES[33:127], 102.675408),
        ("aaaaaaaaBBBBBBBB1111111122222222", foreign._ALNUM, 103.716713),
        ("s3cr3t_k3y_f0r_my_4pp_2024_xYz", foreign._ALNUM + "-_", 39.402593),
        ("deadbeefcafe00112233445566778899", foreign._HEX, 62.25904),
        ("GeheimnisvolleSchluesselwoerter42", foreign._ALNUM, 57.142381),
        ("THE_KEY_OF_THE_APP_IS_NOT_HERE__", foreign._ALNUM + "-_", 72.90347),
        ("zyxwvutsrqponmlkjihgfedcba987654", string.digits + string.ascii_lowercase, 135.343063),
        ("x\x01y\x02z\x00password\xff\xfe", foreign._BYTES, 41.142805),
        ("kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL", foreign._ALNUM + "-_", 0.0),
    ],
)
def test_saved_bits(text: str, alphabet: str, bits: float) -> None:
    """Change the rule on purpose only: it could refuse a key that an app uses."""
    assert saved_bits(text, alphabet) == pytest.approx(bits, abs=1e-6)


SENTENCE = "is it so?>>no?>>yes?>>it is a secret"


@pytest.mark.parametrize(
    ("encode", "before"),
    [
        (base64.b64encode, ""),
        (base64.urlsafe_b64encode, ""),
        (base64.b32encode, ""),
        (base64.b16encode, ""),
        (lambda octets: base64.b16encode(octets).lower(), ""),
        (lambda octets: b"xx" + base64.b64encode(octets), "q"),
    ],
)
def test_decoded(encode: Callable[[bytes], bytes], before: str) -> None:
    """Each encoding is read, from wherever the text begins."""
    text = encode(SENTENCE.encode()).decode().rstrip("=")
    assert [*foreign._decoded(text)] == [before + SENTENCE]
