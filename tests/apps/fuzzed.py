"""Send mutated requests to an app in this process, and report its answers.

    python fuzzed.py PACKAGE SEED COUNT     with the app's variables in the environment

Prints one JSON object: counts, and the first wrong answers. The same seed sends the same mutations.
"""

import base64
import hashlib
import hmac
import json
import logging
import random
import re
import sys
import time
from collections import Counter
from importlib import import_module
from io import BytesIO, StringIO
from typing import Any, NamedTuple
from urllib.parse import urlencode

from flask import Flask, render_template_string, session
from itsdangerous import URLSafeTimedSerializer
from werkzeug.datastructures import Headers
from werkzeug.test import create_environ, run_wsgi_app
from werkzeug.wrappers import Request

HOST = "app.example"
ORIGIN = f"https://{HOST}"
TRUSTED = r"(app\.example|([a-z0-9.-]+\.)?example\.net)(:[0-9]{1,5})?"
GENUINE, FORGED = 1337, 666
"""The count in the genuine sessions, and the one that a forgery claims."""

WORDS = r"""
GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT
/count / /healthz /readyz /no /static/style.css /static/../config.py //evil.example/
Accept Accept-Encoding Authorization Content-Length Expect Forwarded If-Modified-Since If-None-Match If-Range
Origin Range Referer Transfer-Encoding Upgrade User-Agent X-CSRFToken X-Forwarded-For X-Forwarded-Host
X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Proto X-HTTP-Method-Override X-Request-ID
% %00 %0d%0a %u0000 .. /../ // \ ' " ` ; , = & ? # @ : [ ] . * -1 0 1e999 NaN null [] {} __proto__ <script>
Content-Security-Policy X-Content-Type-Options Strict-Transport-Security X-Request-ID
"""
METHODS, PATHS, NAMES, MORE, PROXIED, SIGNS, EVERYWHERE = (line.split() for line in WORDS.split("\n")[1:-1])
NAMES += MORE + PROXIED
BYTES = ["\0", "\n", "\r\n\r\n", "\t", " ", "\x1b[31m", "\x7f", "\x85", "\xff\xfe", "\xed\xa0\x80"]
NASTY = (*SIGNS, *BYTES, "\xe2\x80\xa8", "\xc3\xa9", "'; DROP TABLE", "file:///etc/passwd", "a" * 5000)
SALTS = ("session", "cookie-session", "encrypted session", "wtf-csrf-token", "itsdangerous", "")
DERIVATIONS = ("hmac", "concat", "django-concat", "none")
DIGESTS = (hashlib.sha256, hashlib.sha1, hashlib.sha512, hashlib.md5)
FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=a"
TYPES = [FORM, PARTS, "multipart/form-data", "multipart/form-data; boundary=", "application/json", ""]
VALUES = (f"{ORIGIN}/count", "https", "127.0.0.1", "bytes=0-1", "*", "5", "chunked", "gzip")


class Sent(NamedTuple):
    """One request: its parts as a server passes them on, in Latin-1."""

    method: str = "GET"
    path: str = "/count"
    query: str = ""
    host: str = HOST
    cookie: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    content_type: str = ""

    def environ(self) -> dict[str, Any]:
        """The WSGI environment of a server: only the path, which is unquoted, may have line breaks."""
        body = self.body.encode("latin-1")
        given = {
            "REQUEST_METHOD": self.method,
            "QUERY_STRING": self.query,
            "HTTP_HOST": self.host,
            "HTTP_COOKIE": self.cookie,
            "CONTENT_TYPE": self.content_type,
            "CONTENT_LENGTH": str(len(body)),
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers},
        }
        lines = {name: re.sub("[\r\n\0]", "", value) for name, value in given.items()}
        length = lines.pop("HTTP_CONTENT_LENGTH", "")
        if length and not body:
            lines["CONTENT_LENGTH"] = length
        environ = create_environ(base_url=ORIGIN)
        return environ | lines | {"PATH_INFO": self.path, "wsgi.input": BytesIO(body)}


class Answer(NamedTuple):
    """What the app answered, and logged meanwhile."""

    status: int
    headers: Headers
    body: str
    log: str


class Visitor:
    """What one browser has: a session with a count, and the token of an open form."""

    def __init__(self, app: Flask) -> None:
        client = app.test_client()
        self.token = client.get("/genuine", base_url=ORIGIN).text
        self.name: str = app.config["SESSION_COOKIE_NAME"]
        record = client.get_cookie(self.name, domain=HOST)
        assert record
        self.value = record.value
        self.cookie = f"{self.name}={self.value}"

    def form(self, token: str | None = None) -> Sent:
        """Its form, with its own token or another one."""
        body = urlencode({"csrf_token": self.token if token is None else token, "a": "b"})
        referer = (("Referer", f"{ORIGIN}/count"),)
        return Sent("POST", cookie=self.cookie, headers=referer, body=body, content_type=FORM)


class Attacks:
    """Each creates a request, and returns the counts that an answer to it may show."""

    def __init__(self, app: Flask, seed: int) -> None:
        self.random = random.Random(seed)
        self.visitors = [Visitor(app), Visitor(app)]
        self.keys: list[str] = app.config["SECRET_KEY_FALLBACKS"]

    def cookie(self) -> tuple[Sent, set[int]]:
        """A changed cookie is no session; if its meaning is unchanged, it is the same session."""
        one, other = self.two()
        parts = zip(one.value.split("."), other.value.split("."), strict=False)
        crossed = ".".join(map(self.random.choice, parts))
        value = self.random.choice((self.mutated(one.value), self.mutated(one.value), crossed))
        sent = Sent(cookie=f"{one.name}={value}")
        read = Request(sent.environ()).cookies.get(one.name, "")
        genuine = same(read, one.value) or same(read, other.value)
        return sent, {0, GENUINE} if genuine else {0}

    def signature(self) -> tuple[Sent, set[int]]:
        """A forged session: signed as the app signs, with a wrong key; or as libraries sign, with any key."""
        if self.random.random() < 0.5:
            return self.forgery(self.wrong_key()), {0}
        content = {"count": FORGED}
        record = self.random.choice((content, [int(time.time()), content], {" t": [int(time.time()), content]}))
        how = {"key_derivation": self.random.choice(DERIVATIONS), "digest_method": self.random.choice(DIGESTS)}
        key, salt = self.random.choice((self.wrong_key(), self.keys[-1])), self.random.choice(SALTS)
        value = URLSafeTimedSerializer(key, salt=salt, signer_kwargs=how).dumps(record)
        return Sent(cookie=f"{self.visitors[0].name}={value!s}"), {0}

    def forgery(self, key: str) -> Sent:
        """A forged session, signed with `key` exactly as the app signs."""
        derived = hmac.digest(hmac.digest(b"flask-secure-start v1", key.encode(), "sha256"), b"session\x01", "sha256")
        how = {"key_derivation": "none", "digest_method": hashlib.sha256}
        value = URLSafeTimedSerializer(derived, signer_kwargs=how).dumps([int(time.time()), {"count": FORGED}])
        return Sent(cookie=f"{self.visitors[0].name}={value!s}")

    def token(self) -> tuple[Sent, set[int]]:
        """A form whose token is changed, forged, or of another session: it is refused."""
        one, other = self.two()
        forged = str(URLSafeTimedSerializer(self.wrong_key(), salt="wtf-csrf-token").dumps("0" * 40))
        token = self.random.choice((other.token, forged, self.mutated(one.token), self.mutated(one.token)))
        return one.form(token), {GENUINE + 1} if same(token, one.token) else set()

    def form(self) -> tuple[Sent, set[int]]:
        """A changed form is accepted if its token is still in it."""
        one, _ = self.two()
        form = one.form()
        parts = f'--a\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n{one.token}\r\n--a--\r\n'
        body, kind = self.random.choice(((form.body, FORM), (parts, PARTS)))
        if self.random.random() < 0.3:
            kind = self.random.choice((*TYPES, self.mutated(kind)))
        return form._replace(body=self.mutated(body), content_type=kind), {GENUINE + 1}

    def headers(self) -> tuple[Sent, set[int]]:
        """Changed and added headers, with a genuine session."""
        one, _ = self.two()
        pairs = range(self.random.randint(1, 5))
        changed = tuple((self.random.choice(NAMES), self.mutated(self.random.choice(VALUES))) for _ in pairs)
        if self.random.random() < 0.5:
            form = one.form()
            return form._replace(headers=form.headers + changed), {GENUINE + 1}
        return Sent(path=self.random.choice(PATHS), cookie=one.cookie, headers=changed), {GENUINE}

    def host(self) -> tuple[Sent, set[int]]:
        """A changed host: only a trusted one gets an answer."""
        one, _ = self.two()
        hosts = (HOST, "below.example.net", f"{HOST}:443", "127.0.0.1:8000", "[::1]")
        sent = Sent(host=self.mutated(self.random.choice(hosts)), cookie=one.cookie)
        trusted = re.fullmatch(TRUSTED, sent.environ()["HTTP_HOST"], re.IGNORECASE | re.ASCII)
        return sent, {GENUINE} if trusted else set()

    def path(self) -> tuple[Sent, set[int]]:
        """A changed method, path and query."""
        one, _ = self.two()
        method = self.random.choice((*METHODS, self.mutated("GET")))
        query = self.mutated(f"a=b&csrf_token={one.token}")
        return Sent(method, self.mutated(self.random.choice(PATHS)), query, cookie=one.cookie), {GENUINE}

    def two(self) -> list[Visitor]:
        """Two visitors."""
        return self.random.sample(self.visitors, 2)

    def wrong_key(self) -> str:
        """A guess at the key."""
        key = self.random.choice(self.keys)
        guesses = ("", " ", "\n", "a", "None", "dev", "changeme", ",".join(self.keys), str(self.keys))
        pieces = (key[:-1], key[1:], key.upper(), f"{key}\n", key.rpartition("_")[0], self.random.choice(key))
        return self.random.choice((*guesses, *pieces, self.mutated(key)))

    def mutated(self, text: str) -> str:
        """The text after one to four changes; never the text itself."""
        before = text
        for _ in range(self.random.randint(1, 4)):
            at, end = sorted((self.random.randint(0, len(text)), self.random.randint(0, len(text))))
            head, middle, tail = text[:at], text[at:end], text[end:]
            swapped = middle.encode("latin-1").swapcase().decode("latin-1")
            sign = chr(self.random.randrange(256))
            text = self.random.choice((
                *(head, middle, head + tail, head + middle * 2 + tail, head + middle[::-1] + tail),
                *(head + swapped + tail, head + sign + middle[1:] + tail, self.random.choice(NASTY)),
                head + self.random.choice(NASTY) + middle + tail,
            ))  # fmt: skip
        return text if text != before else text + "x"


def same(text: str, genuine: str) -> bool:
    """Whether a changed text means the same: Base64 has spare bits, and its decoder skips other characters."""
    if "." not in genuine:  # an encrypted cookie
        return _decoded(text) == _decoded(genuine)
    (*parts, last), (*genuine_parts, genuine_last) = text.split("."), genuine.split(".")
    return parts == genuine_parts and _decoded(last) == _decoded(genuine_last)


def _decoded(text: str) -> bytes:
    part = text.encode()
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        return b""


def answered(app: Flask, sent: Sent, log: StringIO) -> Answer:
    """Send a request to the app and return its answer."""
    log.seek(0)
    log.truncate()
    body, status, headers = run_wsgi_app(app, sent.environ(), buffered=True)
    return Answer(int(status.split()[0]), headers, b"".join(body).decode("latin-1"), log.getvalue())


def wrongs(answer: Answer, allowed: set[int], keys: list[str]) -> list[str]:
    """Return what is wrong with an answer."""
    counted = re.fullmatch("count ([0-9]+)\n", answer.body)
    times = {len(answer.headers.get_all(name)) for name in EVERYWHERE}
    lines = [json.loads(line) for line in answer.log.splitlines()]
    wrong = {
        "a server error": answer.status >= 500,
        "a forgery": bool(counted) and int(counted[1] if counted else 0) not in allowed,
        "a header that is missing or repeated": times != {1},
        "a header with an unprintable character": not all(value.isprintable() for _, value in answer.headers),
        "a key": any(key in f"{answer.body}{answer.headers}{answer.log}" for key in keys),
        "not one line in the log": sum("milliseconds" in line for line in lines) != 1,
        "a line without the id": {line["request_id"] for line in lines} != {answer.headers["X-Request-ID"]},
    }
    return [what for what, is_wrong in wrong.items() if is_wrong]


def fuzzed(app: Flask, seed: int, count: int) -> dict[str, Any]:
    """Send `count` requests, each kind of attack in turn, and return the figures."""
    attacks, log = Attacks(app, seed), StringIO()
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(log)
    one = attacks.visitors[0]
    genuine = (Sent(cookie=one.cookie), one.form(), attacks.forgery(attacks.keys[-1]))
    controls = [answered(app, sent, log).body for sent in genuine]
    of_a_session = (attacks.cookie, attacks.signature, attacks.token, attacks.form)
    kinds = (*of_a_session, attacks.headers, attacks.host, attacks.path)
    sent_of: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    found: list[str] = []
    for number in range(count):
        attack = kinds[number % len(kinds)]
        sent, allowed = attack()
        answer = answered(app, sent, log)
        sent_of[attack.__name__] += 1
        statuses[str(answer.status)] += 1
        wrong = wrongs(answer, allowed, attacks.keys)
        found += [f"{attack.__name__}: {what}: {sent!r:.999} {answer!r:.999}" for what in wrong]
    return {"controls": controls, "requests": sent_of, "statuses": statuses, "found": found[:20]}


def main() -> None:
    """Run, and print the figures."""
    package, seed, count = sys.argv[1:]
    app: Flask = import_module(f"{package}.app").create_app()

    @app.get("/genuine")
    def genuine() -> str:
        session["count"] = GENUINE
        return render_template_string("{{ csrf_token() }}")

    @app.get("/count")
    def shown() -> str:
        return f"count {session.get('count', 0)}\n"

    @app.post("/count")
    def counted() -> str:
        return f"count {session.get('count', 0) + 1}\n"

    print(json.dumps(fuzzed(app, int(seed), int(count)), sort_keys=True))


if __name__ == "__main__":
    main()
