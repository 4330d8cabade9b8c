"""The proxy recipes of docs/deploy.md, with real proxies: what they let through, and what is logged without a line."""

import http.client
import os
import re
import secrets
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from baking import PROJECT, Bake
from running import Server
from serving import LIMIT, free_port, wait_until
from tls import self_signed

PAGE = (PROJECT / "docs" / "deploy.md").read_text("utf-8")
HOST = "app.example.org"
MISSING = "in a request: TRUSTED_PROXIES is 1"
VARIABLES = {"TRUSTED_HOSTS": HOST, "TRUSTED_PROXIES": "1", "SECRET_KEY": secrets.token_hex(32)}
FRAMES = {
    "nginx": """
daemon off;
user root;  # the folders of a test are the caller's alone
worker_processes 1;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
""",
    "caddy": """
{{
    admin off
    auto_https disable_redirects
}}
{site}
""",
    # Debian's haproxy.cfg has these defaults.
    "haproxy": """
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
{site}
""",
}
"""A configuration that has a recipe in it."""
PLACES = {
    "nginx": {"listen 443": "listen {address}", "/etc/ssl/app.pem": "{certificate}", "/etc/ssl/app.key": "{key}"},
    "caddy": {HOST: f"{HOST}:{{port}}", "    rev": "    bind 127.0.0.1\n    tls {certificate} {key}\n    rev"},
    "haproxy": {"bind :443": "bind {address}", "/etc/ssl/app.pem": "{both}"},
}
"""What a recipe names, and what a test has instead."""
CADDY = str(Path(sys.executable).with_name("caddy"))
COMMANDS = {
    "nginx": ("nginx", "-p", "{folder}", "-c", "proxy.conf", "-e", "stderr"),
    "caddy": (CADDY, "run", "--config={folder}/proxy.conf", "--adapter=caddyfile"),
    "haproxy": ("haproxy", "-db", "-f", "{folder}/proxy.conf"),
}


def recipe(name: str = "nginx") -> str:
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


class Proxy:
    """A running proxy, and a browser that keeps its cookies."""

    def __init__(self, port: int, certificate: Path) -> None:
        self._port = port
        self._trust = ssl.create_default_context(cafile=certificate)
        self._cookies: dict[str, str] = {}
        self.origin = f"https://{HOST}:{port}"

    def ask(
        self, method: str, path: str, body: bytes | str = "", **more: str
    ) -> tuple[int, str, http.client.HTTPMessage]:
        """The status, the body and the headers of an answer."""
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=LIMIT, context=self._trust)
        headers = {
            "Host": f"{HOST}:{self._port}",
            "Referer": f"{self.origin}{path}",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
            "Content-Type": "application/x-www-form-urlencoded",
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        given = response.headers.get_all("Set-Cookie", [])
        self._cookies |= dict(line.split(";")[0].split("=", 1) for line in given)
        return response.status, text, response.headers

    def add(self, path: str) -> tuple[int, str]:
        """Send the form of a page; the status and where it leads."""
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.ask("GET", path)[1])
        assert token
        status, _, headers = self.ask("POST", path, f"csrf_token={token[1]}")
        return status, headers["Location"] or ""


@contextmanager
def proxying(folder: Path, site: str, name: str = "nginx") -> Iterator[Proxy]:
    """Run a proxy with its recipe, as changed."""
    if not shutil.which(COMMANDS[name][0]):
        pytest.skip(f"{name} is not installed")
    folder.mkdir()
    certificate, key = self_signed(folder)
    (folder / "both").write_text(certificate.read_text() + key.read_text())
    port = free_port()
    here = {"folder": folder, "port": port, "address": f"127.0.0.1:{port}"}
    here |= {"certificate": certificate, "key": key, "both": folder / "both"}
    for place, instead in PLACES[name].items():
        assert place in site
        site = site.replace(place, instead.format(**here))
    (folder / "proxy.conf").write_text(FRAMES[name].format(folder=folder, site=site))
    with (folder / "log").open("ab") as log:
        command = [part.format(**here) for part in COMMANDS[name]]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}  # Caddy keeps files there
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    proxy = Proxy(port, certificate)

    def is_up() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return proxy.ask("GET", "/healthz")[0] > 0
        except OSError:
            return False

    try:
        wait_until(is_up, name)
        yield proxy
    finally:
        process.terminate()
        process.wait(LIMIT)


@pytest.fixture
def start(shared: Bake, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts the app with further variables and flags."""
    servers: list[Server] = []

    def start(*flags: str, **variables: str) -> Server:
        log = tmp_path / "app.log"
        servers.append(Server(shared, log, {**VARIABLES, **variables}, "--workers", "1", *flags, app="visited:app()"))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def behind(server: Server, site: str = "") -> str:
    return (site or recipe()).replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")


@pytest.mark.parametrize("name", COMMANDS)
def test_recipe(start: Callable[..., Server], tmp_path: Path, name: str) -> None:
    """TLS, a host with a port, the client's address, a form, and no warning in the log."""
    server = start()
    with proxying(tmp_path / name, behind(server, recipe(name)), name) as proxy:
        assert proxy.ask("GET", "/count")[2]["Seen"] == "https 127.0.0.1"
        forged = {"X_Forwarded_For": "192.0.2.7", "X_Forwarded_Proto": "http", "X_Request_ID": "0123456789abcdef"}
        answer = proxy.ask("GET", "/count", **forged)[2]
        assert answer["Seen"] == "https 127.0.0.1"
        [number] = answer.get_all("X-Request-ID") or []
        assert re.fullmatch("[0-9a-f-]{32,36}", number), "the proxy's: the app's own has 16 digits"
        assert proxy.add("/") == (303, "/")
        assert 'class="count">3<' in proxy.ask("GET", "/")[1]  # /count has counted as well
    assert '"WARNING"' not in server.log.read_text()


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("nginx", "proxy_set_header Host $http_host;", "request refused: host 127.0.0.1:PORT is not in TRUSTED_HOSTS"),
        ("nginx", "proxy_set_header X-Forwarded-For $remote_addr;", f"no X-Forwarded-For {MISSING}"),
        ("nginx", "proxy_set_header X-Forwarded-Proto $scheme;", f"no X-Forwarded-Proto {MISSING}"),
        ("nginx", "TRUSTED_PROXIES", "X-Forwarded-For ignored: TRUSTED_PROXIES is 0"),
        ("haproxy", "http-request set-header X-Forwarded-For %[src]", f"no X-Forwarded-For {MISSING}"),
        ("haproxy", "http-request set-header X-Forwarded-Proto https", f"no X-Forwarded-Proto {MISSING}"),
    ],
)
def test_missing_line(start: Callable[..., Server], tmp_path: Path, name: str, line: str, message: str) -> None:
    """The log says what is missing; the page shows the same message."""
    server = start(**({"TRUSTED_PROXIES": "0"} if line == "TRUSTED_PROXIES" else {}))
    site = recipe(name).replace(f"{line}\n", "\n")
    with proxying(tmp_path / name, behind(server, site), name) as proxy:
        proxy.ask("GET", "/")
    assert message.replace("PORT", str(server.port)) in server.log.read_text()
    assert message.replace("PORT", "8000") in PAGE


@pytest.mark.parametrize("name", ["caddy", "haproxy"])
def test_restart(start: Callable[..., Server], tmp_path: Path, name: str) -> None:
    """A form that is sent while the app is down waits for it."""
    server = start()
    with proxying(tmp_path / name, behind(server, recipe(name)), name) as proxy, ThreadPoolExecutor() as pool:
        proxy.ask("GET", "/")
        server.stop()
        answer = pool.submit(proxy.ask, "POST", "/")
        start("--bind", f"127.0.0.1:{server.port}")
        assert answer.result()[0] == 400  # it has no token


def test_large_upload(start: Callable[..., Server], tmp_path: Path) -> None:
    """An upload needs both limits; with the recipe's, nginx refuses it."""
    server = start(MAX_CONTENT_LENGTH=str(4 << 20))
    form = b"x=" + b"a" * (2 << 20)
    with proxying(tmp_path / "small", behind(server)) as proxy:
        assert proxy.ask("POST", "/", form)[0] == 413
    with proxying(
        tmp_path / "large", behind(server).replace("client_max_body_size 1m", "client_max_body_size 4m")
    ) as proxy:
        assert proxy.ask("POST", "/", form)[0] == 400  # read whole: it has no token
        proxy.ask("GET", "/")


def test_unix_socket(start: Callable[..., Server], tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    start("--bind", f"unix:{socket}")
    site = recipe().replace("http://127.0.0.1:8000", f"http://unix:{socket}")
    with proxying(tmp_path / "nginx", site) as proxy:
        assert proxy.ask("GET", "/count")[2]["Seen"] == "https 127.0.0.1"
        assert proxy.add("/") == (303, "/")


@pytest.mark.parametrize("kept", [False, True])
def test_url_prefix(start: Callable[..., Server], tmp_path: Path, kept: bool) -> None:
    """Under /shop: removed by the proxy (X-Forwarded-Prefix), and kept by it (SCRIPT_NAME)."""
    site = recipe().replace("location / ", "location /shop/ ")
    if kept:
        server = start(SCRIPT_NAME="/shop")
    else:
        server = start(TRUSTED_PREFIX="/shop")
        site = site.replace("127.0.0.1:8000;", "127.0.0.1:8000/;\n        proxy_set_header X-Forwarded-Prefix /shop;")
    with proxying(tmp_path / "nginx", behind(server, site)) as proxy:
        assert proxy.ask("GET", "/shop/count")[2]["Seen"] == "https 127.0.0.1 /shop"
        assert proxy.add("/shop/") == (303, "/shop/")
        assert 'class="count">2<' in proxy.ask("GET", "/shop/")[1]  # /count has counted as well
        assert 'href="/shop/static/' in proxy.ask("GET", "/shop/")[1]
