"""A stand-in for the API server of Kubernetes: one Secret, one account, over TLS. It is no cluster."""

import base64
import json
import secrets
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from serving import LIMIT
from tls import self_signed

NAMESPACE = "default"
_VERBS = {"GET": "get", "PATCH": "patch", "PUT": "update", "POST": "create", "DELETE": "delete"}


class StandIn(ThreadingHTTPServer):
    """It answers as an API server does: 401, 403 by `rule` of a Role, 404, 409 for another resourceVersion."""

    readers_at_once = 1
    """1, or 2 for the first answer to wait until two have asked."""

    def __init__(self, folder: Path, rule: Mapping[str, Any], keyring: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rule = rule
        self.keyring = keyring
        self.calls: list[str] = []
        self.version = 41
        self.lock = threading.Lock()
        self.readers = threading.Barrier(2)
        self.token = secrets.token_hex(16)
        self._account = folder / "serviceaccount"
        self._account.mkdir()
        certificate, key = self_signed(self._account)
        for name, text in {"ca.crt": certificate.read_text(), "namespace": NAMESPACE, "token": self.token}.items():
            (self._account / name).write_text(text)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a container of the account finds in its environment, and where its account is."""
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.server_port),
            "SERVICE_ACCOUNT": str(self._account),
        }

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve during the block."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            status = self._status(body)
            self.server.calls.append(f"{self.command} {status.value}")
        if status == HTTPStatus.OK and self.command == "GET":
            self._wait_for_readers()
        self.send_response(status)
        self.end_headers()
        if status == HTTPStatus.OK:
            data = {"keyring": base64.b64encode(self.answered.encode()).decode()}
            metadata = {"name": "secret-key", "resourceVersion": str(self.answered_version)}
            self.wfile.write(json.dumps({"kind": "Secret", "metadata": metadata, "data": data}).encode())

    do_GET = do_PATCH = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def _status(self, body: bytes) -> HTTPStatus:
        """Carry out the request."""
        server = self.server
        *parents, name = self.path.split("/")
        if self.headers["Authorization"] != f"Bearer {server.token}":
            return HTTPStatus.UNAUTHORIZED
        if _VERBS[self.command] not in server.rule["verbs"] or name not in server.rule["resourceNames"]:
            return HTTPStatus.FORBIDDEN
        if "/".join(parents) != f"/api/v1/namespaces/{NAMESPACE}/secrets":
            return HTTPStatus.NOT_FOUND
        if self.command == "PATCH":
            change = json.loads(body)
            if self.headers["Content-Type"] != "application/merge-patch+json":
                return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
            if change["metadata"]["resourceVersion"] != str(server.version):
                return HTTPStatus.CONFLICT
            server.version += 1
            server.keyring = base64.b64decode(change["data"]["keyring"], validate=True).decode()
        self.answered, self.answered_version = server.keyring, server.version
        return HTTPStatus.OK

    def _wait_for_readers(self) -> None:
        with self.server.lock:
            waiting = self.server.calls.count("GET 200") <= self.server.readers_at_once
        if waiting and self.server.readers_at_once > 1:
            self.server.readers.wait(LIMIT)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
