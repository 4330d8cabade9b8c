"""No cookie and no form counts that was not signed with a key of the ring, in the way this app signs."""

import hashlib
import hmac
import json
import time
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apps import KEY, make_app
from flask import Flask, session
from flask.json.tag import TaggedJSONSerializer
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from package import ConfigError, judge, mint

OLDER = mint(int(time.time()) - 2000).text
FALLBACKS = f"{OLDER},kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL"
EXPIRED = mint(int(time.time()) - 100 * 86400).text

Forge = Callable[[str], str]


def payload() -> list[Any]:
    """What the cookie of a session that has counted to 1337 holds."""
    return [int(time.time()), {"count": 1337}]


def signed(value: Any, key: bytes, salt: str = "session", **how: Any) -> str:
    serializer = URLSafeTimedSerializer(key, salt=salt, serializer=TaggedJSONSerializer(), signer_kwargs=how)
    return str(serializer.dumps(value))


def as_this_app_signs(key: str) -> str:
    derived = hmac.digest(key.encode(), b"session", "sha256")
    return signed(payload(), derived, key_derivation="none", digest_method=hashlib.sha256)


def as_stock_flask_signs(key: str) -> str:
    how = {"key_derivation": "hmac", "digest_method": hashlib.sha1}
    return signed({"count": 1337}, key.encode(), "cookie-session", **how)


def as_stock_flask_with_sha256(key: str) -> str:
    how = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    return signed({"count": 1337}, key.encode(), "cookie-session", **how)


def with_sha1(key: str) -> str:
    derived = hmac.digest(key.encode(), b"session", "sha256")
    return signed(payload(), derived, key_derivation="none", digest_method=hashlib.sha1)


def with_the_key_itself(key: str) -> str:
    return signed(payload(), key.encode(), key_derivation="none", digest_method=hashlib.sha256)


def for_another_purpose(key: str) -> str:
    derived = hmac.digest(key.encode(), b"wtf-csrf-token", "sha256")
    return signed(payload(), derived, key_derivation="none", digest_method=hashlib.sha256)


def counted(app: Flask, cookie: str, name: str = "") -> int:
    """To what the session has counted that this cookie brings."""
    client = app.test_client()
    client.set_cookie(name or app.config["SESSION_COOKIE_NAME"], cookie, secure=True)
    response = client.get("/count")
    assert response.status_code == 200
    return int(json.loads(response.text)["count"])


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """An app with two keys in its fallbacks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("app"))
        return make_app(SECRET_KEY=KEY, SECRET_KEY_FALLBACKS=FALLBACKS)


@pytest.mark.parametrize("key", [KEY, *FALLBACKS.split(",")])
def test_what_a_key_of_the_ring_signs_counts(app: Flask, key: str) -> None:
    assert counted(app, as_this_app_signs(key)) == 1337


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
    "the fallbacks as they stand": FALLBACKS,
    "the fallbacks as a list": str(FALLBACKS.split(",")),
    "all keys joined": KEY + FALLBACKS,
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
    "its fingerprint": judge(KEY, b"").fingerprint,
    "its SHA-256": hashlib.sha256(KEY.encode()).hexdigest(),
    "its repr": repr(judge(KEY, b"")),
    "a key of another ring": mint(int(time.time()) - 1000).text,
    **{f"the character {character}": character for character in sorted(set(KEY + FALLBACKS))},
}

WAYS = [as_this_app_signs, as_stock_flask_signs, as_stock_flask_with_sha256, with_sha1, with_the_key_itself]


@pytest.mark.parametrize("guess", GUESSES.values(), ids=GUESSES)
def test_what_any_other_text_signs_does_not_count(app: Flask, guess: str) -> None:
    assert [counted(app, way(guess)) for way in WAYS] == [0] * len(WAYS)


@pytest.mark.parametrize("key", [KEY, OLDER])
@pytest.mark.parametrize(
    "way",
    [as_stock_flask_signs, as_stock_flask_with_sha256, with_sha1, with_the_key_itself, for_another_purpose],
)
def test_what_a_key_of_the_ring_signs_in_another_way_does_not_count(app: Flask, way: Forge, key: str) -> None:
    assert counted(app, way(key)) == 0


def test_stock_flask_cookies_count_only_where_the_app_is_told_so() -> None:
    cookie = as_stock_flask_signs(KEY)

    assert counted(make_app(), cookie, "session") == 0
    assert counted(make_app(SESSION_READ_SHA1="1"), cookie, "session") == 1337
    assert counted(make_app(SESSION_READ_SHA1="1"), cookie, "__Host-session") == 0


def test_a_stock_flask_session_does_not_outlive_a_sign_out() -> None:
    app = make_app(SESSION_READ_SHA1="1")

    @app.get("/sign-out")
    def sign_out() -> str:
        session.clear()
        return ""

    client = app.test_client()
    client.set_cookie("session", as_stock_flask_signs(KEY))

    def count() -> int:
        return int(json.loads(client.get("/count", base_url="https://localhost/").text)["count"])

    assert count() == 1337
    assert client.get_cookie("__Host-session")
    assert client.get_cookie("session")  # an instance of before may still be asked
    for _ in range(2):  # a sign-out may also be the first page
        client.get("/sign-out", base_url="https://localhost/")
        assert count() == 0
        client.delete_cookie("__Host-session")


@pytest.mark.parametrize("guess", GUESSES.values(), ids=GUESSES)
def test_reading_stock_flask_cookies_opens_no_other_door(guess: str) -> None:
    app = make_app(SECRET_KEY=KEY, SECRET_KEY_FALLBACKS=FALLBACKS, SESSION_READ_SHA1="1")

    assert [counted(app, way(guess)) for way in WAYS] == [0] * len(WAYS)


def test_what_an_expired_or_upcoming_ring_signed_follows_the_ring() -> None:
    upcoming = mint(int(time.time()) + 1800).text
    app = make_app(SECRET_KEY=upcoming, SECRET_KEY_FALLBACKS=f"{KEY},{EXPIRED}")
    assert counted(app, as_this_app_signs(upcoming)) == 1337
    assert counted(app, as_this_app_signs(KEY)) == 1337

    replaced = make_app(
        SECRET_KEY=KEY, SECRET_KEY_FALLBACKS=f"{mint(int(time.time()) - 50 * 86400).text},{EXPIRED}"
    )
    assert counted(replaced, as_this_app_signs(EXPIRED)) == 0


def unsigned(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def test_a_cookie_whose_parts_were_changed_does_not_count(app: Flask) -> None:
    content, moment, signature = as_this_app_signs(KEY).split(".")
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


@pytest.mark.parametrize("guess", GUESSES.values(), ids=GUESSES)
def test_a_form_whose_token_any_other_text_signed_is_refused(app: Flask, guess: str) -> None:
    client = app.test_client()
    known = json.loads(client.get("/count").text)["token"]
    raw = URLSafeTimedSerializer(KEY, salt="wtf-csrf-token").loads(known)

    def send(key: str) -> int:
        token = URLSafeTimedSerializer(key, salt="wtf-csrf-token").dumps(raw)
        headers = {"Referer": "https://localhost/count"}
        return client.post("/count", data={"csrf_token": token}, headers=headers).status_code

    assert send(guess) == 400
    assert send(KEY) == 200


@pytest.mark.parametrize("fallbacks", ["a,,b", ",", " , ", "o", "a,b,c", f"{OLDER},", f"{OLDER}, ,{EXPIRED}"])
def test_fallbacks_with_a_hole_or_a_letter_stop_the_start(fallbacks: str) -> None:
    with pytest.raises(ConfigError, match="SECRET_KEY_FALLBACKS"):
        make_app(SECRET_KEY_FALLBACKS=fallbacks)


@pytest.mark.parametrize("key", ["", " ", "\n", "a", "\0" * 40, "12345678901234567890123456789012"])
def test_a_key_that_anybody_could_guess_stops_the_start(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SECRET_KEY"):
        make_app(SECRET_KEY=key)
    assert not list(tmp_path.iterdir())


def test_fallbacks_are_a_list_always() -> None:
    for variables in ({}, {"SECRET_KEY_FALLBACKS": ""}, {"SECRET_KEY_FALLBACKS": FALLBACKS}):
        config = make_app(**variables).config
        assert isinstance(config["SECRET_KEY_FALLBACKS"], list)
        assert min(map(len, config["SECRET_KEY_FALLBACKS"])) >= 32


def test_a_cookie_is_not_older_and_not_much_newer_than_it_may_be(app: Flask) -> None:
    class Signer(TimestampSigner):
        moment = 0

        def get_timestamp(self) -> int:
            return self.moment

    def sealed(ago: int) -> str:
        derived = hmac.digest(KEY.encode(), b"session", "sha256")
        signer = Signer(derived, key_derivation="none", digest_method=hashlib.sha256)
        signer.moment = int(time.time()) - ago
        return signer.sign(unsigned(json.dumps(payload()).encode())).decode()

    week = 7 * 86400
    assert [counted(app, sealed(ago)) for ago in (0, week - 60, week + 1, 2 * week)] == [1337, 1337, 0, 0]
    assert [counted(app, sealed(-ahead)) for ahead in (60, 3500, 3700, 2 * week)] == [1337, 1337, 0, 0]
