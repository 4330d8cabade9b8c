"""No session and no token counts unless a key of the keyring signed it in the way and for the purpose of this app."""

import hashlib
import hmac
import json
import os
import time
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, session
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from secure import sessions, tokens
from secure.keys import watcher
from secure.keys.key import Key, generate_key
from secure.keys.key_format import activation_of
from secure.keys.keyring import Keyring
from secure.keys.sources import EnvironSource, as_variables

KEY = generate_key(int(time.time()) - 1000).text
OLDER = generate_key(int(time.time()) - 2000).text
FOREIGN = "kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"
EXPIRED = generate_key(int(time.time()) - 100 * 86400).text
PURPOSE = "reset"

Forge = Callable[[str], str]


def make_app(*texts: str, store: str = "signed", **config: Any) -> Flask:
    """Return an app that counts, with these keys, newest first."""
    keys = tuple(Key(text, activation_of(text) if text.startswith("fsk_") else None) for text in texts or (KEY,))
    app = Flask("site", static_folder=None)
    app.config.update(config)
    keyring = watcher.KeyringWatcher(EnvironSource(as_variables(keys)), Keyring(keys))
    watcher.init_app(app, keyring)
    sessions.init_app(app, keyring, store)
    app.add_url_rule("/", view_func=lambda: str(session.get("count", 0)))
    return app


def counted(app: Flask, cookie: str, name: str = "session") -> int:
    """Return the count in the session of a cookie."""
    client = app.test_client()
    client.set_cookie(name, cookie)
    response = client.get("/")
    assert response.status_code == 200
    return int(response.text)


def accepted(app: Flask, token: str, purpose: str = PURPOSE) -> bool:
    """Return whether a token verifies."""
    with app.app_context():
        try:
            tokens.verify(token, purpose, 3600)
        except tokens.InvalidTokenError:
            return False
        return True


def payload() -> list[Any]:
    """Return what the cookie of a session that has counted to 1337 contains."""
    return [int(time.time()), {"count": 1337}]


def signed(value: Any, key: bytes | str, salt: str = "session", **how: Any) -> str:
    serializer = URLSafeTimedSerializer(key, salt=salt, serializer=TaggedJSONSerializer(), signer_kwargs=how)
    return str(serializer.dumps(value))


def derived(key: str, purpose: str = "session") -> bytes:
    """Return the derived key, by a second implementation (RFC 5869)."""
    extracted = hmac.digest(b"flask-secure-start v1", key.encode(), "sha256")
    return hmac.digest(extracted, purpose.encode() + b"\1", "sha256")


def as_this_app(key: str) -> str:
    return signed(payload(), derived(key), key_derivation="none", digest_method=hashlib.sha256)


def as_stock_flask(key: str) -> str:
    return signed({"count": 1337}, key, "cookie-session", key_derivation="hmac", digest_method=hashlib.sha1)


def as_stock_flask_with_sha256(key: str) -> str:
    return signed({"count": 1337}, key, "cookie-session", key_derivation="hmac", digest_method=hashlib.sha256)


def with_sha1(key: str) -> str:
    return signed(payload(), derived(key), key_derivation="none", digest_method=hashlib.sha1)


def with_the_key_itself(key: str) -> str:
    return signed(payload(), key, key_derivation="none", digest_method=hashlib.sha256)


def for_another_purpose(key: str) -> str:
    return signed(payload(), derived(key, "wtf-csrf"), key_derivation="none", digest_method=hashlib.sha256)


def as_the_first_version(key: str) -> str:
    old = hmac.digest(key.encode(), b"session", "sha256")
    return signed(payload(), old, key_derivation="none", digest_method=hashlib.sha256)


@pytest.fixture(scope="module")
def app() -> Flask:
    """An app with two older keys."""
    return make_app(KEY, OLDER, FOREIGN)


@pytest.fixture(scope="module")
def app_with_sha1() -> Flask:
    """The same, which reads the cookies of stock Flask too."""
    return make_app(KEY, OLDER, FOREIGN, SESSION_READ_SHA1=True)


@pytest.mark.parametrize("key", [KEY, OLDER, FOREIGN])
def test_each_key(app: Flask, key: str) -> None:
    assert counted(app, as_this_app(key)) == 1337


def test_encrypted_cookie() -> None:
    """By a second implementation: with another label or nonce, an update would log everyone out."""
    aead = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead")
    nonce, text = os.urandom(12), json.dumps([time.time(), payload()]).encode()
    encrypted = nonce + aead.AESGCM(derived(KEY, "encrypted session")).encrypt(nonce, text, None)

    assert counted(make_app(store="encrypted"), unsigned(encrypted)) == 1337


GUESSES = {
    "empty": "",
    "a blank": " ",
    "a line break": "\n",
    "a zero byte": "\0",
    "a comma": ",",
    "None": "None",
    "brackets": "[]",
    "a placeholder": "changeme",
    "Flask's example": "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    "the older keys joined": f"{OLDER},{FOREIGN}",
    "the older keys as a list": str([OLDER, FOREIGN]),
    "all keys joined": KEY + OLDER + FOREIGN,
    "without its last character": KEY[:-1],
    "without its first character": KEY[1:],
    "with a line break": f"{KEY}\n",
    "with a blank": f" {KEY}",
    "in capitals": KEY.upper(),
    "twice": KEY * 2,
    "backwards": KEY[::-1],
    "without prefix and time": KEY.split("_", 2)[2],
    "without its checksum": KEY.rpartition("_")[0],
    "its time": KEY.split("_")[1],
    "its random part": KEY.split("_")[2],
    "its checksum": KEY.split("_")[3],
    "its fingerprint": Key(KEY).fingerprint,
    "its SHA-256": hashlib.sha256(KEY.encode()).hexdigest(),
    "its repr": repr(Key(KEY)),
    "a key of another keyring": generate_key(int(time.time()) - 1000).text,
    **{f"the character {character}": character for character in "0f_Z-"},
}

WAYS = [
    as_this_app,
    as_stock_flask,
    as_stock_flask_with_sha256,
    with_sha1,
    with_the_key_itself,
    as_the_first_version,
]


@pytest.mark.parametrize("read_sha1", [False, True])
@pytest.mark.parametrize("guess", GUESSES.values(), ids=GUESSES)
def test_guessed_key(app: Flask, app_with_sha1: Flask, guess: str, read_sha1: bool) -> None:
    assert [counted(app_with_sha1 if read_sha1 else app, way(guess)) for way in WAYS] == [0] * len(WAYS)


@pytest.mark.parametrize("key", [KEY, OLDER])
@pytest.mark.parametrize("way", [*WAYS[1:], for_another_purpose])
def test_other_way(app: Flask, way: Forge, key: str) -> None:
    """What a key of the keyring signs in another way does not count."""
    assert counted(app, way(key)) == 0


def test_stock_flask_cookies() -> None:
    """They count only if the app is told to read them, and only under their own name."""
    cookie = as_stock_flask(KEY)

    assert counted(make_app(), cookie) == 0
    assert counted(make_app(SESSION_READ_SHA1=True), cookie) == 1337
    secure_name = {"SESSION_COOKIE_NAME": "__Host-session"}
    assert counted(make_app(SESSION_READ_SHA1=True, **secure_name), cookie, "__Host-session") == 0


def test_upcoming_and_expired_key() -> None:
    upcoming = generate_key(int(time.time()) + 1800).text
    app = make_app(upcoming, KEY, EXPIRED)
    assert counted(app, as_this_app(upcoming)) == 1337
    assert counted(app, as_this_app(KEY)) == 1337

    replaced = make_app(KEY, generate_key(int(time.time()) - 50 * 86400).text, EXPIRED)
    assert counted(replaced, as_this_app(EXPIRED)) == 0


# An app that displays, or signs with, its own SECRET_KEY


LABELS = [
    "session",
    "session on a server",
    "encrypted session",
    "token\0reset",
    "token: reset",
    "token",
    "reset",
    "flask-secure-start v1",
    "flask-secure-start v1\0session",
    "cookie-session",
    "itsdangerous",
    "itsdangerous.Signer",
    "session\1",
    "",
]
MESSAGES = [
    *LABELS,
    *(f"{label}{end}" for label in LABELS for end in ("\0", "\1", "\n", "signer")),
    "ann",
    "ann@example.org",
    "7",
    "wtf-csrf-token",
    KEY,
]
DIGESTS = sorted(hashlib.algorithms_guaranteed - {"shake_128", "shake_256"})


def displayed(message: str) -> Iterator[bytes]:
    """What an app may compute with its SECRET_KEY and show to a visitor, for example a chat widget's signature."""
    for name in DIGESTS:
        yield hmac.new(KEY.encode(), message.encode(), name).digest()
        yield hashlib.new(name, KEY.encode() + message.encode()).digest()
        yield hashlib.new(name, message.encode() + KEY.encode()).digest()
    for how in ("concat", "django-concat", "hmac", "none"):
        for digest in (hashlib.sha1, hashlib.sha256, hashlib.sha512):
            signer = TimestampSigner(KEY, salt=message.encode(), key_derivation=how, digest_method=digest)
            yield signer.derive_key()


def test_no_displayed_value_is_a_derived_key() -> None:
    """No session or token is signed with anything that an app can show; the label itself included."""
    ours = {
        tokens.derive(Key(KEY), purpose)
        for purpose in ("session", "session on a server", "encrypted session", "token\0reset")
    }
    assert derived(KEY) in ours
    shown = {value for message in MESSAGES for value in displayed(message)}

    assert len(ours) == 4
    assert len(shown) > 2500
    assert not ours & shown
    assert not ours & {value[:32] for value in shown}


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_displayed_value_forges_nothing(app: Flask, message: str) -> None:
    """Sessions and tokens signed with displayed values, in itsdangerous' format, are refused."""
    how: dict[str, Any] = {"key_derivation": "none", "digest_method": hashlib.sha256}
    for key in displayed(message):
        assert not accepted(app, signed(1, key, **how))
    for name in ("sha1", "sha256", "sha512"):
        assert counted(app, signed(payload(), hmac.digest(KEY.encode(), message.encode(), name), **how)) == 0


@pytest.mark.parametrize("digest", [hashlib.sha1, hashlib.sha256, hashlib.sha512])
@pytest.mark.parametrize("how", ["concat", "django-concat", "hmac", "none"])
@pytest.mark.parametrize("salt", LABELS, ids=range(len(LABELS)))
def test_stock_itsdangerous(app: Flask, salt: str, how: str, digest: Any) -> None:
    """What the app signs with stock itsdangerous and its SECRET_KEY is no session and no token."""
    options = {"key_derivation": how, "digest_method": digest}

    assert counted(app, signed(payload(), KEY, salt, **options)) == 0
    assert not accepted(app, signed(1, KEY, salt, **options))


def test_control(app: Flask) -> None:
    """The forgeries above fail because of the key, not because of their form."""
    how: dict[str, Any] = {"key_derivation": "none", "digest_method": hashlib.sha256}

    assert counted(app, signed(payload(), derived(KEY), **how)) == 1337
    assert accepted(app, signed(1, derived(KEY, f"token\0{PURPOSE}"), **how))


def test_purposes_do_not_mix(app: Flask) -> None:
    with app.app_context():
        token = tokens.sign(payload(), PURPOSE)
        assert [counted(app, tokens.sign(payload(), purpose)) for purpose in LABELS] == [0] * len(LABELS)
    assert not accepted(app, as_this_app(KEY))
    assert not accepted(app, token, "other")
    assert counted(make_app(store="encrypted"), as_this_app(KEY)) == 0


# Changed cookies


def unsigned(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def test_changed_cookie(app: Flask) -> None:
    content, moment, signature = as_this_app(KEY).split(".")
    later = unsigned((int(time.time()) + 100).to_bytes(8, "big").lstrip(b"\0"))
    other = unsigned(json.dumps([int(time.time()), {"count": 7}]).encode())
    bomb = "." + unsigned(zlib.compress(b'[0,{"count":1}]' + b" " * 2_000_000))
    forged = [
        "",
        ".",
        "..",
        "...",
        content,
        f"{content}.{moment}",
        f"{content}.{moment}.",
        f"{content}..{signature}",
        f".{moment}.{signature}",
        f"{content}.{later}.{signature}",
        f"{other}.{moment}.{signature}",
        f"{bomb}.{moment}.{signature}",
        f".{content}.{moment}.{signature}",
        f"{content}.{moment}.{signature[:-2]}",
        f"{content}.{moment}.{signature}.{signature}",
        f"{content}.{signature}",
        f"{content}.{moment}.{signature.swapcase()}",
        "eyJjb3VudCI6MTMzN30",
        "eyJhbGciOiJub25lIn0.eyJjb3VudCI6MTMzN30.",
    ]

    assert [counted(app, cookie) for cookie in forged] == [0] * len(forged)


@pytest.mark.parametrize("timeout", [7 * 86400, timedelta(days=7)])
def test_age(timeout: int | timedelta, app: Flask) -> None:
    """Flask takes the timeout in both ways."""

    class Signer(TimestampSigner):
        moment = 0

        def get_timestamp(self) -> int:
            return self.moment

    app.permanent_session_lifetime = timeout

    def at(ago: int) -> str:
        signer = Signer(derived(KEY), key_derivation="none", digest_method=hashlib.sha256)
        signer.moment = int(time.time()) - ago
        return signer.sign(unsigned(json.dumps(payload()).encode())).decode()

    week = 7 * 86400
    assert [counted(app, at(ago)) for ago in (0, week - 60, week + 1, 2 * week)] == [1337, 1337, 0, 0]
    assert [counted(app, at(-ahead)) for ahead in (60, 3500, 3700, 2 * week)] == [1337, 1337, 0, 0]


def test_stock_interface_is_unchanged() -> None:
    """Flask's own class still signs with SHA-1: nothing is patched globally."""
    assert SecureCookieSessionInterface.digest_method(b"").name == "sha1"
