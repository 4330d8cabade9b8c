"""A proxy that ends TLS in front of a server, as in every deployment; it redirects plain HTTP to HTTPS."""

import http.client
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from serving import LIMIT

_HANDSHAKE = b"\x16"
"""The first byte that a TLS client sends (RFC 8446, section 5.1)."""
_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding"}


class Proxy(NamedTuple):
    """A running proxy."""

    port: int
    certificate: Path
    """Its certificate, which it has signed itself."""

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"https://127.0.0.1:{self.port}"


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that signs itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    kind = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "1")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(("openssl", "req", *kind, *names, *files), check=True, capture_output=True)
    return certificate, key


@contextmanager
def tls(port: int, folder: Path) -> Iterator[Proxy]:
    """Put a proxy with TLS in front of the server on `port` until the block ends."""
    certificate, key = self_signed(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.context, server.behind = context, port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Proxy(server.server_port, certificate)
        finally:
            server.shutdown()


class _Server(ThreadingHTTPServer):
    context: ssl.SSLContext
    behind: int

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection; a browser also opens some that it does not use."""
        request.settimeout(LIMIT)
        with suppress(OSError):
            if request.recv(1, socket.MSG_PEEK) == _HANDSHAKE:
                request = self.context.wrap_socket(request, server_side=True)
            with request:
                super().finish_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        if isinstance(self.connection, ssl.SSLSocket):
            self._pass_on()
        else:
            self.send_response_only(HTTPStatus.MOVED_PERMANENTLY)
            self.send_header("Location", f"https://{self.headers['Host']}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_GET = do_HEAD = do_POST = do_OPTIONS = _answer  # noqa: N815

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        sent = {n: v for n, v in self.headers.items() if n.lower() not in _OF_ONE_CONNECTION}
        forwarded = {"X-Forwarded-For": self.client_address[0], "X-Forwarded-Proto": "https"}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=LIMIT)
        try:
            connection.request(self.command, self.path, body, {**sent, **forwarded, "Connection": "close"})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            if name.lower() not in _OF_ONE_CONNECTION:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing: the server behind it does."""
