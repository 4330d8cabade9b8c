"""Other services that an app talks to: an OpenID Connect provider, a mail server, what collects errors and traces."""

import base64
import gzip
import hashlib
import json
import secrets
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

SUBJECT = "subject-7"
"""Whom the provider signs in."""


def base64url(data: bytes) -> str:
    """Return base64url text without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Services:
    """What is running, and what was sent there."""

    http: str = ""
    """The address of the provider and the collectors."""
    smtp: str = ""
    mails: list[str] = field(default_factory=list)
    posted: list[tuple[str, bytes]] = field(default_factory=list)
    """The path and body of each POST."""
    grants: dict[str, dict[str, str]] = field(default_factory=dict)
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def authorize(self, address: str) -> tuple[str, str]:
        """Sign the user in at the provider: return the code and state that it sends to the callback."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        code = secrets.token_hex()
        self.grants[code] = asked
        return code, asked["state"]

    def bodies(self, path: str) -> bytes:
        """Return what was sent to a path so far."""
        return b"\n".join(body for at, body in self.posted if at.endswith(path))

    def answer(self, path: str, body: bytes) -> object:
        """Return what the provider says, as JSON."""
        if path.endswith("openid-configuration"):
            paths = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
            return {"issuer": self.http, **{name: self.http + path for name, path in paths.items()}}
        if path == "/keys":
            public = self.key.public_key().public_numbers()
            numbers = {"n": public.n.to_bytes(256, "big"), "e": public.e.to_bytes(3, "big")}
            kind = {"kty": "RSA", "alg": "RS256", "kid": "1"}
            return {"keys": [kind | {name: base64url(number) for name, number in numbers.items()}]}
        if path == "/token":
            return self._token({name: values[0] for name, values in parse_qs(body.decode()).items()})
        return {}

    def _token(self, sent: dict[str, str]) -> dict[str, object]:
        asked = self.grants.pop(sent["code"], {})
        challenge = base64url(hashlib.sha256(sent.get("code_verifier", "").encode()).digest())
        if asked.get("code_challenge") != challenge or asked["redirect_uri"] != sent["redirect_uri"]:
            return {"error": "invalid_grant"}
        claims = {
            "iss": self.http,
            "aud": asked["client_id"],
            "sub": SUBJECT,
            "nonce": asked["nonce"],
            "iat": int(time.time()),
            "exp": int(time.time()) + 60,
        }
        signed = ".".join(base64url(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "1"}, claims))
        signature = base64url(self.key.sign(signed.encode(), padding.PKCS1v15(), SHA256()))
        return {"access_token": "access", "token_type": "Bearer", "id_token": f"{signed}.{signature}"}


@contextmanager
def running() -> Iterator[Services]:
    """Run all services until the block ends."""
    services = Services()

    class Web(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "POST":
                text = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                services.posted.append((self.path, text))
            answer = json.dumps(services.answer(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    class Mail(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            """Accept one mail (RFC 5321)."""
            self.wfile.write(b"220 ready\r\n")
            while (line := self.rfile.readline().upper()) and not line.startswith(b"QUIT"):
                if line.startswith(b"DATA"):
                    self.wfile.write(b"354 send\r\n")
                    lines = iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ".")
                    services.mails.append("\n".join(lines))
                self.wfile.write(b"250 ok\r\n")
            self.wfile.write(b"221 bye\r\n")

    address = ("127.0.0.1", 0)
    with ThreadingHTTPServer(address, Web) as web, socketserver.ThreadingTCPServer(address, Mail) as mail:
        mail.daemon_threads = True
        services.http, services.smtp = (f"127.0.0.1:{each.server_address[1]}" for each in (web, mail))
        services.http = f"http://{services.http}"
        for each in (web, mail):
            threading.Thread(target=each.serve_forever, daemon=True).start()
        yield services
        web.shutdown()
        mail.shutdown()
