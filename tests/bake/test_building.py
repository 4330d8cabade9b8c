"""Every recipe of docs/building.md: alone, served by `flask run` and by gunicorn, and all of them together."""

import base64
import hashlib
import html
import http.client
import io
import json
import logging
import re
import secrets
import shlex
import shutil
import sqlite3
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import secure
from baking import UV, Bake, Result
from chromium import chromium, go
from flask import Flask, Response
from itsdangerous import URLSafeTimedSerializer
from npm import installed
from once import made_once
from playwright.sync_api import Browser, Page, Request, Route, expect
from postgres_server import is_installed, postgres
from readme import OF_PROJECT, blocks
from recipes import PACKAGE, apply, recipes, with_needs
from recipes import PAGE as BUILDING
from running import APPS
from secure.keys.key import generate_key
from secure.keys.key_format import generate_text
from services import Services, running
from serving import LIMIT, serving, wait_until
from tls import tls

PAGE = recipes()
TEXT = BUILDING.read_text("utf-8")
CHECKS = next(block for block in blocks(OF_PROJECT) if any("pytest" in command for command in block))
SIGN_INS = ["sign-in-with-flask-login", "sign-in-with-oauth-or-openid-connect", "flask-security"]
SMALL = ["sign-in-with-flask-login", "sign-in-with-oauth-or-openid-connect", "rate-limits", "logging"]
PASSWORD = "a long enough password"
KINDS = ["flask run", "gunicorn"]
MB = 1 << 20


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    text: str
    headers: http.client.HTTPMessage

    @property
    def policy(self) -> dict[str, str]:
        """The directives of the Content-Security-Policy."""
        parts = (part.strip().partition(" ") for part in self.headers["Content-Security-Policy"].split(";"))
        return {name: sources for name, _, sources in parts}


@dataclass
class Visitor:
    """One browser; to a server in production, it comes through a proxy with TLS."""

    port: int
    https: bool
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: str | bytes = b"", **headers: str) -> Answer:
        """Send a request; the names of headers have underscores."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        scheme = "https" if self.https else "http"
        host = "app.example.org" if self.https else f"127.0.0.1:{self.port}"
        sent = {
            "Host": host,
            "Referer": f"{scheme}://{host}/",
            "Cookie": "; ".join(map("=".join, self.cookies.items())),
        }
        if self.https:
            sent |= {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
        connection.request(method, path, body, sent | {name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        answer = Answer(response.status, response.read().decode(), response.headers)
        connection.close()
        for given in response.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(given).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0" or "1970" in morsel["expires"]:
                    del self.cookies[name]
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for a page."""
        return self.ask("GET", path, **headers)

    def token(self, page: str) -> str:
        """Return the CSRF token of a page."""
        found = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', self.get(page).text)
        assert found, page
        return html.unescape(found[1])

    def post(self, path: str, page: str = "", **fields: str) -> Answer:
        """Send the form of a page, by default of the page at `path`."""
        body = urlencode({"csrf_token": self.token(page or path), **fields})
        return self.ask("POST", path, body, Content_Type="application/x-www-form-urlencoded")

    def upload(self, path: str, size: int, page: str = "") -> Answer:
        """Send a form with a file of random bytes."""
        part = '--limit\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
        fields = (
            part.format("csrf_token", "") + self.token(page or path) + "\r\n" + part.format("title", "") + "Cat\r\n"
        )
        head = (fields + part.format("file", '; filename="cat.png"')).encode()
        body = head + secrets.token_bytes(size) + b"\r\n--limit--\r\n"
        return self.ask("POST", path, body, Content_Type="multipart/form-data; boundary=limit")


@dataclass
class Site:
    """A project with recipes, and a server that serves it."""

    project: Bake
    kind: str
    variables: Mapping[str, str]
    services: Services
    log: Path
    port: int = 0

    @property
    def production(self) -> bool:
        """Whether gunicorn serves it."""
        return self.kind == "gunicorn"

    def visitor(self) -> Visitor:
        """Return a new browser."""
        return Visitor(self.port, self.production)

    def run(self, program: str, *arguments: str) -> Result:
        """Run a program with the server's variables."""
        variables: dict[str, Any] = dict(self.variables)
        return self.project.run(self.project.program(program), *arguments, **variables)

    def documented(self, name: str, *more: str) -> str:
        """Run the `flask` command that the page shows; return what it prints."""
        shown = [command[2:] for recipe in PAGE.values() for command in recipe.commands if name in command]
        return self.run(shown[0][0], *shown[0][1:], *more).stdout.strip()

    def rotate(self) -> str:
        """Rotate the key, wait until the server has followed; return the new key."""
        self.run("flask", "secret-key", "rotate", "--now")
        time.sleep(1.5)
        return Path(self.variables["SECRET_KEY_FILE"]).read_text().split()[0]


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, bake_into: Callable[..., Bake], environment: dict[str, str]
) -> Bake:
    """One bake, in whose environment all packages of the page are installed."""

    def make(folder: Path) -> None:
        bake = bake_into(folder)
        packages = [package for recipe in PAGE.values() for package in recipe.packages]
        packages += [package for line in re.findall("`uv add ([^`]+)`", TEXT) for package in shlex.split(line)]
        bake.run(UV, "add", "--quiet", "--no-sync", *packages)
        bake.synced().run(bake.program("python"), "-m", "compileall", "-q", bake.package.name)

    folder = made_once(tmp_path_factory, "building", make)
    return Bake(folder / "my-flask-app", subprocess.CompletedProcess((), 0), environment)


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with running() as services:
        yield services


def pasted(project: Bake, folder: Path, *names: str) -> Bake:
    """Return a copy of a project with these recipes and what they need; it shares the environment."""
    copy = project.copied(folder / "app", ".git")
    copy = replace(copy, environment={**project.environment, "PYTHONPATH": str(copy.path)})
    for recipe in with_needs(*names):
        apply(recipe, copy)
    return copy


Serve = Callable[..., Any]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of a PostgreSQL database; of a SQLite file where no server is installed."""
    if is_installed():
        with postgres() as address:
            yield address
    else:
        yield "sqlite:///production.db"


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def served(
    bake: Bake, kind: str, services: Services, prepare: Callable[[Site], object], **variables: str
) -> Iterator[Site]:
    """Serve a project that follows a key file."""
    folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=bake.path.parent))  # a process may serve it twice
    keys, metrics = folder / "keys", folder / "metrics"
    metrics.mkdir()
    keys.write_text(generate_text(int(time.time())))
    keys.chmod(0o600)
    settings = {
        "SECRET_KEY_FILE": str(keys),
        "SECRET_KEY_INTERVAL": "1s",
        **{name: text for recipe in PAGE.values() for name, text in recipe.variables.items()},
        "FORM_ACTION": "https://pay.example.org,https://idp.example.org",
        "SUPPORT_EMAIL": "team@example.org",
        "SERVER_NAME": "app.example.org",
        "SMTP": services.smtp,
        "SENTRY_DSN": services.http.replace("//", "//public@") + "/1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": services.http,
        "IDP_CLIENT_ID": "client",
        "IDP_CLIENT_SECRET": "client-secret",
        "IDP_SERVER_METADATA_URL": f"{services.http}/.well-known/openid-configuration",
        "SECURITY_PASSWORD_SALT": "a salt",
        **variables,
    }
    process = {"PROMETHEUS_MULTIPROC_DIR": str(metrics), "OTEL_BSP_SCHEDULE_DELAY": "100", "SECRET_KEY_FILE": str(keys)}
    if kind == "gunicorn":
        process |= settings | {
            "APP_ENV": "production",
            "TRUSTED_PROXIES": "1",
            "TRUSTED_HOSTS": "127.0.0.1,app.example.org",
        }
        command: tuple[str, ...] = (bake.program("gunicorn"), "--bind", "127.0.0.1:PORT")
    else:
        lines = {"APP_ENV": "development", **settings}
        (bake.path / ".env").write_text("".join(f"{name}={text}\n" for name, text in lines.items()))
        command = (bake.program("flask"), "run", "--debug", "--no-reload", "--port", "PORT")
    site = Site(bake, kind, process, services, folder / "log")
    prepare(site)
    environment = {**bake.environment, **process}
    with serving(*command, folder=bake.path, log=site.log, environment=environment) as server:
        site.port = server.port
        yield site


def fail(bake: Bake) -> None:
    """Add a page that fails, and logs the secret key."""
    views = bake.package / "views.py"
    code = """

        @bp.get("/fail")
        def fail() -> str:
            from flask import current_app

            current_app.logger.error("the key is %s", current_app.config["SECRET_KEY"])
            return str(1 // 0)
        """
    views.write_text(views.read_text("utf-8") + textwrap.dedent(code), "utf-8")


def add_button(bake: Bake) -> None:
    """Give the home page a button that htmx sends."""
    home = bake.package / "templates" / "home.html"
    button = """<button id="htmx" hx-post="/" hx-target=".count" hx-select=".count" hx-swap="outerHTML">htmx</button>"""
    home.write_text(home.read_text("utf-8").replace("</form>", f"</form>{button}"), "utf-8")


def with_tables(site: Site) -> None:
    """Create the tables and Ann by the commands of the page, where an earlier run of the site has not."""
    made = site.project.path.parent / f"{site.kind} has tables"
    if made.exists():
        return
    if not (site.project.path / "migrations").exists():
        site.documented("init")
        site.documented("migrate")
    site.documented("upgrade")
    site.documented("add-user", "--password", PASSWORD)
    made.touch()


@pytest.fixture(scope="module")
def many(project: Bake, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """All recipes that fit together."""
    names = [name for name in PAGE if name not in {*SIGN_INS, *SMALL}]
    bake = pasted(project, tmp_path_factory.mktemp("many"), *names)
    fail(bake)
    add_button(bake)
    files = installed("htmx.org", tmp_path_factory.mktemp("npm"), bake.environment)
    shutil.copy(files / "dist" / "htmx.min.js", bake.package / "static")
    return bake


@pytest.fixture(scope="module")
def site(many: Bake, kind: str, services: Services, database: str) -> Iterator[Site]:
    address = {"SQLALCHEMY_DATABASE_URI": database} if kind == "gunicorn" else {}
    yield from served(many, kind, services, with_tables, **address)


CREATE = """
from my_flask_app.app import create_app
from my_flask_app.models import User, db
from werkzeug.security import generate_password_hash

app = create_app()
with app.app_context():
    db.drop_all()
    db.create_all()
    db.session.add(User(email="ann@example.org", password_hash=generate_password_hash({password!r})))
    if "security" in app.extensions:
        from flask_security import hash_password
        app.extensions["security"].datastore.create_user(email="ann@example.org", password=hash_password({password!r}))
    db.session.commit()
"""


def with_ann(site: Site) -> None:
    site.run("python", "-c", CREATE.format(password=PASSWORD))


@pytest.fixture(scope="module")
def small(project: Bake, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """The recipes that are instead of others."""
    return pasted(project, tmp_path_factory.mktemp("small"), *SMALL)


@pytest.fixture(scope="module")
def other_site(small: Bake, kind: str, services: Services) -> Iterator[Site]:
    yield from served(small, kind, services, with_ann, WEB_CONCURRENCY="1")


@pytest.fixture(scope="module")
def security(project: Bake, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    return pasted(project, tmp_path_factory.mktemp("security"), "flask-security")


@pytest.fixture(scope="module")
def security_site(security: Bake, kind: str, services: Services) -> Iterator[Site]:
    yield from served(security, kind, services, with_ann)


# Alone

CONTROL = "a recipe without what it needs"


@pytest.fixture(scope="module")
def alone(project: Bake, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bake]:
    """A project for each recipe; what its tests say is in its folder."""
    names = {name: (name,) for name in PAGE} | {CONTROL: ()}

    def make(folder: Path) -> None:
        projects = {name: pasted(project, folder / name, *recipes) for name, recipes in names.items()}
        apply(PAGE["flask-admin"], projects[CONTROL])
        project.run(project.program("python"), str(APPS / "pasted.py"), *(str(each.path) for each in projects.values()))

    folder = made_once(tmp_path_factory, "alone", make)
    return {name: replace(project, path=folder / name / "app") for name in names}


@pytest.mark.parametrize("name", PAGE)
def test_alone(alone: dict[str, Bake], name: str) -> None:
    """With one recipe and what it needs, the app starts and each page answers."""
    assert result(alone[name]) == ("0", "")


def test_alone_is_real(alone: dict[str, Bake]) -> None:
    assert "No module named" in result(alone[CONTROL])[1]


def test_another_name(project: Bake, bake_into: Callable[..., Bake], tmp_path: Path) -> None:
    """The page says where to write the name of the package; in a project with another name, the recipes work."""
    for section in re.split("^## ", TEXT, flags=re.MULTILINE):
        before, _, rest = section.partition(PACKAGE)
        assert not rest or re.search(r"write the name of your package in place of\s+`$", before)
    shop = bake_into(tmp_path, project_name="Shop")
    shop = replace(shop, environment={**project.environment, "PYTHONPATH": str(shop.path)})
    for recipe in with_needs("a-test-as-another-user"):
        apply(recipe, shop)
    shop.run(project.program("python"), "-m", "pytest", "-q", "-p", "no:cacheprovider")


SILENCED = """
import logging

from flask_migrate import upgrade
from my_flask_app.app import create_app

with create_app().app_context():
    upgrade()
print(logging.getLogger("my_flask_app.secure.logging").disabled)
"""


def test_migrations_in_code(project: Bake, tmp_path: Path) -> None:
    """`upgrade` turns the log off, and the edit of the page keeps it."""
    copy = pasted(project, tmp_path, "a-database")
    command = next(command for command in PAGE["a-database"].commands if command[-2:] == ["db", "init"])
    copy = replace(copy, environment={**copy.environment, "SECRET_KEY": generate_key(0).text})
    copy.flask(*command[3:])
    file = copy.path / "migrations" / "env.py"
    old, new = re.findall(r"`(fileConfig\(.*?\))`", TEXT)
    assert file.read_text("utf-8").count(old) == 1
    for expected in ("True", "False"):
        assert copy.run(copy.program("python"), "-c", SILENCED).stdout.strip() == expected
        file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")


def result(project: Bake) -> tuple[str, str]:
    status = (project.path / "result").read_text()
    return status, "" if status == "0" else (project.path / "output").read_text("utf-8")


# Together


def test_checks(project: Bake, tmp_path: Path) -> None:
    """With all recipes, the project's own checks pass."""
    copy = pasted(project, tmp_path, *PAGE)
    first = re.findall(r"`uv run --group dev (ruff [^`]+)`", TEXT)
    assert len(first) == 2
    for name, *arguments in map(str.split, first):
        copy.run(copy.program(name), *arguments)
    programs = [command.removeprefix("uv run --group dev ").split() for command in CHECKS]
    programs.remove(["pytest"])  # coverage runs it
    done = [copy.run(copy.program(name), *arguments, check=False) for name, *arguments in programs]
    assert [result.stdout + result.stderr for result in done if result.returncode] == []


# Served


def test_page(site: Site) -> None:
    visitor = site.visitor()
    assert "<h1>Hello, world</h1>" in visitor.get("/blog/hello").text
    assert "There is no such post." in visitor.get("/blog/none").text
    assert json.loads(visitor.get("/blog/none", Accept="application/json").text)["status"] == 404


def test_setting(site: Site) -> None:
    assert "Write to team@example.org." in site.visitor().get("/").text


def signed_in(site: Site) -> Visitor:
    visitor = site.visitor()
    answer = visitor.post("/sign-in", email="ann@example.org", password=PASSWORD)
    assert (answer.status, answer.headers["Location"]) == (303, "/account")
    return visitor


def test_sign_in(site: Site) -> None:
    visitor = signed_in(site)
    assert "Signed in as ann@example.org" in visitor.get("/account").text
    assert visitor.post("/sign-out", "/account").status == 303
    assert visitor.get("/account").headers["Location"] == "/sign-in?next=/account"
    for email, password in (("ann@example.org", "wrong"), ("bob@example.org", PASSWORD)):
        assert visitor.post("/sign-in", email=email, password=password).status == 422


@pytest.mark.parametrize(
    ("page", "then"),
    [
        ("/blog/hello?a=b%26c", "/blog/hello?a=b%26c"),
        ("/blog/é", "/blog/%C3%A9"),
        ("", "/account"),
        ("blog", "/account"),
        ("//example.org", "/account"),
        ("///example.org", "/account"),
        ("/\\example.org", "/account"),
        ("/\t/example.org", "/account"),
        ("/\r\n/example.org", "/account"),
        ("https://example.org/", "/account"),
    ],
)
def test_next_page(site: Site, page: str, then: str) -> None:
    """After a sign-in, the visitor comes back, but to no other site."""
    path = f"/sign-in?{urlencode({'next': page})}"
    answer = site.visitor().post(path, email="ann@example.org", password=PASSWORD)
    assert (answer.status, answer.headers["Location"]) == (303, then)


WITHOUT_PASSWORD = """
from my_flask_app.app import create_app
from my_flask_app.models import User, db

with create_app().app_context():
    if not db.session.scalar(db.select(User).where(User.email == "none@example.org")):
        db.session.add(User(email="none@example.org"))
        db.session.commit()
"""


def check_times(site: Site, page: str) -> None:
    """Compare the times of wrong sign-ins; a user without a password cannot sign in."""
    site.run("python", "-c", WITHOUT_PASSWORD)
    visitor, times = site.visitor(), dict[str, list[float]]()
    token = visitor.token(page)
    for _ in range(8):  # the first ones create the hash, in each worker
        for email in ("ann@example.org", "none@example.org", "bob@example.org"):
            for password in ("wrong", ""):
                body = urlencode({"csrf_token": token, "email": email, "password": password})
                began = time.perf_counter()
                answer = visitor.ask("POST", page, body, Content_Type="application/x-www-form-urlencoded")
                times.setdefault(email, []).append(time.perf_counter() - began)
                assert answer.status == 422
    fastest = [min(each) for each in times.values()]
    assert max(fastest) < 3 * min(fastest), times


def test_time_of_a_sign_in(site: Site) -> None:
    check_times(site, "/sign-in")


RESET = """
from my_flask_app.account import reset_token
from my_flask_app.app import create_app
from my_flask_app.models import User, db

with create_app().app_context():
    db.session.add(user := User(email={email!r}))
    db.session.commit()
    print(reset_token(user))
"""


def test_reset(site: Site) -> None:
    """A link sets a password once, and ends the sessions of the user."""
    email = f"{secrets.token_hex(4)}@example.org"
    page = f"/reset?token={site.run('python', '-c', RESET.format(email=email)).stdout.strip()}"
    visitor = site.visitor()
    assert visitor.post(page, password="short").status == 422
    assert visitor.post("/sign-in", email=email, password="short").status == 422
    assert visitor.post(page, password=PASSWORD).headers["Location"] == "/sign-in"
    assert visitor.post("/sign-in", email=email, password=PASSWORD).status == 303
    used = visitor.get(page)
    assert (used.status, "This link has been used." in used.text) == (400, True)
    assert visitor.get("/reset?token=x").status == 400
    assert visitor.get("/reset").status == 400


def test_sign_out_everywhere(site: Site) -> None:
    phone, laptop = signed_in(site), signed_in(site)
    phone.post("/sign-out", "/account")
    assert laptop.get("/account").status == 200
    signed_in(site).post("/sign-out", "/account", everywhere="")
    assert laptop.get("/account").status == 303


def test_upload(site: Site) -> None:
    visitor = site.visitor()
    assert visitor.upload("/uploads/", 5 * MB).status == 303
    assert "Cat is saved." in visitor.get("/uploads/").text
    sizes = [path.stat().st_size for path in site.project.path.glob("instance/uploads/*")]
    assert set(sizes) == {5 * MB}
    for path, size in (("/uploads/", 7 * MB), ("/", 5 * MB)):
        announced = {"Content_Type": "multipart/form-data; boundary=limit", "Content_Length": str(size)}
        assert visitor.ask("POST", path, **announced).status == 413
    assert "This field is required." in visitor.post("/uploads/", title="").text


def test_api(site: Site) -> None:
    visitor = site.visitor()
    bearer = {"Authorization": f"Bearer {site.documented('api-token')}", "Content_Type": "application/json"}
    added = visitor.ask("POST", "/api/items", '{"name": "pen"}', **bearer)
    assert (added.status, json.loads(added.text)) == (201, {"name": "pen", "user": "ann"})
    assert visitor.ask("POST", "/api/items", "[]", **bearer).status == 422
    refused = visitor.ask("POST", "/api/items", '{"name": "pen"}', Content_Type="application/json", Accept="text/html")
    assert (refused.status, refused.headers["Content-Type"]) == (401, "application/problem+json")
    assert refused.headers["WWW-Authenticate"].lower().startswith("bearer")
    for answer in (refused, visitor.ask("OPTIONS", "/api/items", Origin="https://app.example.org")):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.org"
    assert answer.status == 200
    for method, path, status in (("GET", "/api/none", 404), ("PUT", "/api/items", 405)):
        for accepted, sent in (("application/json", "application/problem+json"), ("*/*", "text/html; charset=utf-8")):
            answer = visitor.ask(method, path, Accept=accepted)
            assert (answer.status, answer.headers["Content-Type"]) == (status, sent)


def test_scripts(site: Site) -> None:
    answer = site.visitor().get("/blog/hello")
    nonces = set(re.findall('nonce="([^"]+)"', answer.text))
    assert len(nonces) == 1
    assert {f"'nonce-{nonces.pop()}'", "https://cdn.jsdelivr.net"} <= set(answer.policy["script-src"].split())
    assert "https://fonts.gstatic.com" in answer.policy["font-src"]


def test_embedded(site: Site) -> None:
    widget, page = site.visitor().get("/widget"), site.visitor().get("/")
    assert widget.headers["X-Frame-Options"] is None
    assert widget.policy == page.policy | {
        "script-src": widget.policy["script-src"],  # without the nonce
        "style-src": widget.policy["style-src"],
        "frame-ancestors": "https://partner.example.org",
    }
    assert page.headers["X-Frame-Options"] == "DENY"


def test_payment(site: Site) -> None:
    visitor = site.visitor()
    page = visitor.get("/")
    assert "https://pay.example.org" in page.policy["form-action"]
    assert page.headers["Cross-Origin-Opener-Policy"] == "same-origin-allow-popups"
    assert visitor.post("/pay", "/").headers["Location"] == "https://pay.example.org/checkout/1"


@pytest.fixture(scope="module", name="chromium")
def running_browser(environment: Mapping[str, str]) -> Iterator[Browser]:
    with chromium(environment) as browser:
        yield browser


@pytest.fixture
def browser_page(site: Site, chromium: Browser, tmp_path: Path) -> Iterator[Page]:
    """A page of Chromium on the site; other sites are not asked, but pay.example.org answers with a popup."""
    popup = "<script>opener ? opener.postMessage('paid', '*') : document.write('no opener')</script>"

    def answer(route: Route) -> None:
        if "pay.example.org" in route.request.url:
            route.fulfill(body=popup, content_type="text/html")
        elif "127.0.0.1" in route.request.url:
            route.continue_()
        else:
            route.fulfill(body="")

    with ExitStack() as stack:
        address = f"http://127.0.0.1:{site.port}"
        if site.production:
            address = stack.enter_context(tls(site.port, tmp_path)).url
        context = stack.enter_context(chromium.new_context(ignore_https_errors=True))
        context.route("**/*", answer)
        page = context.new_page()
        go(page, address)
        yield page


def test_htmx_in_a_browser(site: Site, browser_page: Page) -> None:
    """A request of htmx has the CSRF token, and the policy blocks nothing that htmx needs."""
    complaints: list[str] = []
    browser_page.on("console", lambda message: complaints.append(message.text))

    def click() -> Request:
        with browser_page.expect_request(lambda request: request.method == "POST") as posted:
            browser_page.click("#htmx")
        return posted.value

    for count in ("1", "2"):
        assert click().headers["hx-request"] == "true"
        expect(browser_page.locator(".count")).to_have_text(count)
    if site.production:  # in development, the toolbar has styles of its own
        assert complaints == []

    browser_page.evaluate("addEventListener('htmx:configRequest', e => { delete e.detail.headers['X-CSRFToken']; })")
    response = click().response()
    assert response
    assert response.status == 400, "negative control: no token"


def test_popup_in_a_browser(browser_page: Page) -> None:
    """A popup of another site reaches the page that opened it."""
    opened = """url => new Promise(resolve => {
        addEventListener("message", event => resolve(event.origin + " " + event.data));
        window.popup = open(url);
    })"""
    assert browser_page.evaluate(opened, "https://pay.example.org/1") == "https://pay.example.org paid"

    browser_page.route(
        "**/isolated",
        lambda route: route.fulfill(
            body="page", content_type="text/html", headers={"Cross-Origin-Opener-Policy": "same-origin"}
        ),
    )
    go(browser_page, browser_page.url + "isolated")
    with browser_page.expect_popup() as popup:
        browser_page.evaluate("url => { open(url); }", "https://pay.example.org/1")
    expect(popup.value.locator("body")).to_have_text("no opener")


def test_mail(site: Site) -> None:
    site.documented("send-link")
    mail = site.services.mails[-1].replace("=\n", "").replace("=3D", "=")
    link = re.search(r"https?://\S+", mail)
    assert link
    assert link[0].startswith("https://app.example.org/" if site.production else "http://app.example.org/")
    path = link[0].partition("app.example.org")[2]
    assert site.visitor().get(path).text == "ann@example.org is confirmed."
    assert site.visitor().get(path[:-1]).status == 400


def signer(token: str, keys: str) -> str:
    """Return the first key of a keyring whose app accepts a token."""
    for key in keys.split():
        app = Flask(__name__)
        secure.init_app(app, secure.Settings.load({"APP_ENV": "testing", "SECRET_KEY": key}, root=Path("/nonexistent")))
        with app.app_context():
            try:
                secure.tokens.verify(token, "job", 60)
            except secure.tokens.InvalidTokenError:
                continue
        return key
    return ""


def test_worker(site: Site) -> None:
    """A worker that runs follows a rotation."""
    keys = Path(site.variables["SECRET_KEY_FILE"])
    command = (site.project.program("flask"), "worker")
    environment = {**site.project.environment, **site.variables}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=site.project.path, env=environment, text=True, **pipes) as worker:
        stdin, stdout = worker.stdin, worker.stdout
        assert stdin
        assert stdout

        def job() -> str:
            stdin.write("job\n")
            stdin.flush()
            return signer(stdout.readline().strip(), keys.read_text())

        old = keys.read_text().split()[0]
        assert job() == old
        new = site.rotate()
        assert new != old
        assert job() == new
        stdin.close()
        assert worker.wait(LIMIT) == 0


def test_cache(site: Site) -> None:
    answers = {site.visitor().get("/prices/3").text for _ in range(10)}
    assert {"300 after 1 questions"} == answers


def test_sentry(site: Site) -> None:
    assert site.visitor().get("/fail").status == 500
    wait_until(lambda: b"ZeroDivisionError" in site.services.bodies("/envelope/"), "an error report")
    for key in Path(site.variables["SECRET_KEY_FILE"]).read_text().split():
        assert key.encode() not in site.services.bodies("/envelope/")


def test_prometheus(site: Site) -> None:
    for _ in range(20):
        site.visitor().get("/blog/hello")
    counts = re.findall(
        r'^flask_http_request_total{method="GET",status="200"} (\S+)', site.visitor().get("/metrics").text, re.M
    )
    assert float(counts[0]) >= 20


def test_opentelemetry(site: Site) -> None:
    site.visitor().get("/blog/hello")
    wait_until(lambda: b"GET /blog/<name>" in site.services.bodies("/v1/traces"), "a trace")


def test_toolbar(site: Site) -> None:
    answer = site.visitor().get("/")
    inline = re.search(r"<script[^>]*>(var DEBUG_TOOLBAR.*?)</script>", answer.text)
    assert bool(inline) is not site.production
    if inline:
        digest = base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in answer.policy["script-src"]


def test_admin(site: Site) -> None:
    assert site.visitor().get("/admin/user/").status == 403
    admin = signed_in(site)
    page = admin.get("/admin/user/new/")
    assert set(re.findall('nonce="([^"]+)"', page.text)) == set(
        re.findall("'nonce-([^']+)'", page.policy["script-src"])
    )
    email = f"{secrets.token_hex(4)}@example.org"
    assert admin.ask("POST", "/admin/user/new/", f"email={email}").status == 400
    assert admin.post("/admin/user/new/", email=email).status == 302
    listed = admin.get("/admin/user/").text
    assert email in listed
    newest = max(re.findall(r'name="id"[^>]* value="(\d+)"', listed), key=int)
    assert admin.post("/admin/user/delete/", "/admin/user/", id=newest, url="/admin/user/").status == 302
    assert email not in admin.get("/admin/user/").text


def test_remember_me(other_site: Site) -> None:
    """The cookie outlives the session and a rotation, and gets a new signature; a new session version ends it."""
    visitor = other_site.visitor()
    assert visitor.get("/profile").status == 302
    assert visitor.post("/login", email="ann@example.org", password=PASSWORD, remember="on").status == 303
    other_site.rotate()
    cookie = visitor.cookies["remember_token"]
    visitor.cookies = {"remember_token": cookie}
    assert visitor.get("/profile").text == "Signed in as ann@example.org"
    assert visitor.cookies["remember_token"] not in ("", cookie)
    with sqlite3.connect(other_site.project.path / "instance" / "app.db") as connection:
        connection.execute("UPDATE user SET session_version = session_version + 1")
    assert visitor.get("/profile").status == 302


@pytest.mark.parametrize("mode", ["query", "form_post"])
def test_oauth(other_site: Site, mode: str) -> None:
    visitor = other_site.visitor()
    start = visitor.post("/oauth/sign-in", "/")
    code, state = other_site.services.authorize(start.headers["Location"])
    sent = urlencode({"code": code, "state": state})
    if mode == "query":
        done = visitor.get(f"/oauth/callback?{sent}")
    else:
        elsewhere = Visitor(visitor.port, visitor.https)  # SameSite=Lax: no cookie is sent
        posted = elsewhere.ask(
            "POST",
            "/oauth/callback",
            sent,
            Content_Type="application/x-www-form-urlencoded",
            Referer="https://idp.example.org/",
        )
        assert posted.status == 303
        done = visitor.get(posted.headers["Location"])
    assert (done.status, done.headers["Location"]) == (303, "/")
    assert parse_qs(urlsplit(start.headers["Location"]).query)["client_id"] == ["client"]
    assert visitor.get(f"/oauth/callback?{sent}").status == 401


def test_time_of_a_login(other_site: Site) -> None:
    check_times(other_site, "/login")


def test_logging(other_site: Site) -> None:
    """The format of the recipe has the ID of the request."""
    number = other_site.visitor().get("/login").headers["X-Request-ID"]
    [line] = [line for line in other_site.log.read_text().splitlines() if number in line]
    assert re.fullmatch(rf"[\d-]+ [\d:,]+ INFO my_flask_app\.secure\.logging GET /login 200 .* \[{number}\]", line)


def test_rate_limit(other_site: Site) -> None:
    """A page has a limit, and says when to try again; a probe has none."""
    answers = [other_site.visitor().get("/") for _ in range(101)]
    assert answers[0].status == 200
    assert answers[-1].status == 429
    assert int(answers[-1].headers["Retry-After"]) <= 60
    for probe in ("/healthz", "/readyz"):
        assert {other_site.visitor().get(probe).status for _ in range(101)} == {200}


def test_flask_security(security_site: Site) -> None:
    """After a rotation, the new key signs its tokens; older tokens stay valid."""

    def token() -> str:
        visitor = security_site.visitor()
        body = json.dumps({"email": "ann@example.org", "password": PASSWORD})
        headers = {"Content_Type": "application/json", "Accept": "application/json"}
        answer = visitor.ask("POST", "/login?include_auth_token", body, X_CSRFToken=visitor.token("/login"), **headers)
        return str(json.loads(answer.text)["response"]["user"]["authentication_token"])

    def signed_by(token: str) -> str:
        keys = Path(security_site.variables["SECRET_KEY_FILE"]).read_text().split()
        return next(key for key in keys if URLSafeTimedSerializer(key, salt="remember-salt").loads_unsafe(token)[0])

    old = token()
    new_key = security_site.rotate()
    assert signed_by(old) != new_key
    assert signed_by(token()) == new_key


# What the page says does not work


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """An app with no more than `secure`."""
    app = Flask(__name__)
    settings = {"APP_ENV": "testing", "SECRET_KEY": generate_key(0).text, "SECRET_KEY_RETENTION": "7d"}
    secure.init_app(app, secure.Settings.load(settings, root=tmp_path))
    return app


@pytest.mark.parametrize(("late", "seen"), [(False, "DENY"), (True, None)], ids=["in the view", "after_request"])
def test_header_of_plain_response(app: Flask, late: bool, seen: str | None) -> None:
    def remove(response: Response) -> Response:
        response.headers.pop("X-Frame-Options", None)
        return response

    app.add_url_rule("/plain", view_func=lambda: Response("") if late else remove(Response("")))
    if late:
        app.after_request(remove)
    assert app.test_client().get("/plain").headers.get("X-Frame-Options") == seen


def test_late_handler(app: Flask) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    app.logger.addHandler(handler)
    app.logger.error("%s", app.config["SECRET_KEY"])
    app.logger.removeHandler(handler)
    assert app.config["SECRET_KEY"] in log.getvalue()


def test_refused_calls(app: Flask) -> None:
    with app.test_request_context():
        with pytest.raises(secure.sessions.RevocationUnsupportedError):
            secure.sessions.revoke_all(1)
        with pytest.raises(ValueError, match="SECRET_KEY_RETENTION"):
            secure.tokens.verify("", "API", max_age=8 * 86400)
