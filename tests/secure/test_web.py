"""What protects every request and every response."""

import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Mapping
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
import secure
from apps import KEY, UNSAFE, load, make_app, post, token, with_views
from flask import (
    Blueprint,
    Flask,
    Response,
    after_this_request,
    current_app,
    make_response,
    redirect,
    render_template_string,
    request,
    session,
)
from flask.testing import FlaskClient
from secure import web
from secure.keys.key import Key, generate_key
from secure.keys.keyring import ACTIVATION_DELAY
from secure.settings import SettingsError
from werkzeug.wrappers import Response as PlainResponse

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HSTS = "max-age=31536000"
POLICY = "Content-Security-Policy"
DAY = 86400

RESPONSES = [
    ("GET", "/count", 200),
    ("GET", "/plain", 200),
    ("HEAD", "/count", 200),
    ("OPTIONS", "/count", 200),
    ("GET", "/healthz", 200),
    ("GET", "/static/style.css", 200),
    ("GET", "/moved", 302),
    ("GET", "/folder", 308),
    ("POST", "/count", 400),
    ("GET", "/fail/401", 401),
    ("GET", "/fail/403", 403),
    ("GET", "/no/such/page", 404),
    ("DELETE", "/healthz", 405),
    ("TRACE", "/count", 405),
    ("GET", "/crash", 500),
]
Warnings = pytest.LogCaptureFixture


def warnings(caplog: Warnings) -> list[str]:
    """Return the warnings so far, and forget them."""
    found = [
        r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "TRUSTED_HOSTS: not set" not in r.msg
    ]
    caplog.clear()
    return found


@pytest.fixture
def _static() -> None:
    Path("static").mkdir()
    Path("static/style.css").write_text("a { color: red }")


# Cookies


@pytest.mark.parametrize(
    ("variables", "name", "path", "flags"),
    [
        ({}, "__Host-site_session", "/", {"secure", "httponly"}),
        ({"TRUSTED_PREFIX": "/shop"}, "__Secure-site_session", "/shop", {"secure", "httponly"}),
        ({"APP_ENV": "development"}, "site_session", "/", {"httponly"}),
        ({"APP_ENV": "testing"}, "site_session", "/", {"httponly"}),
    ],
)
def test_cookie(variables: dict[str, str], name: str, path: str, flags: set[str]) -> None:
    """Scripts and other sites cannot read the session cookie; its name has the app's name."""
    response = make_app(**variables).test_client().get("/count")

    (cookie,) = SimpleCookie(response.headers["Set-Cookie"]).values()
    assert cookie.key == name
    assert {attribute for attribute, value in cookie.items() if value} == {"path", "samesite", *flags}
    assert (cookie["path"], cookie["samesite"]) == (path, "Lax")


def test_cookie_domain() -> None:
    """A cookie for all names below a domain cannot have the prefix `__Host-` (RFC 6265bis, 4.1.3.2)."""
    app = Flask("site")
    app.config["SESSION_COOKIE_DOMAIN"] = "example.org"
    secure.init_app(app, load())

    cookie = with_views(app).test_client().get("/count").headers["Set-Cookie"]

    assert cookie.startswith("__Secure-site_session=")
    assert "Domain=example.org" in cookie


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"script_src": ["'self'"]}, "'script_src' is not a directive, such as script-src"),
        ({"Script-Src": ["'self'"]}, "'Script-Src' is not a directive, such as script-src"),
        ({"script-src; x": []}, "'script-src; x' is not a directive, such as script-src"),
        ({"script-src": ["self"]}, "self in script-src needs quotes of its own: \"'self'\""),
        ({"script-src": "https://cdn.example unsafe-inline"}, "unsafe-inline in script-src needs quotes of its own"),
        ({"script-src": ["https://cdn.example;"]}, "'https://cdn.example;' is not a source for script-src"),
        ({"script-src": ["https://a,https://b"]}, "'https://a,https://b' is not a source for script-src"),
        ({"script-src": ["https://\u65e5\u672c.example"]}, " is not a source for script-src"),
        ({"script-src": ["x\ny"]}, "'x\\ny' is not a source for script-src"),
    ],
)
def test_wrong_policy(policy: dict[str, list[str] | str], reason: str) -> None:
    with pytest.raises(ValueError, match=r"^csp: ") as caught:
        secure.init_app(Flask("site"), load(), csp=policy)
    assert reason in str(caught.value)


def test_two_apps_on_one_host() -> None:
    """Two apps do not replace each other's sessions."""
    apps = [Flask(name, root_path=str(Path.cwd())) for name in ("shop", "my.blog-é")]
    cookies = []
    for app in apps:
        secure.init_app(app, load())
        cookies.append(with_views(app).test_client().get("/count").headers["Set-Cookie"].partition("=")[0])

    assert cookies == ["__Host-shop_session", "__Host-my_blog-__session"]


def test_application_root_leaves_the_cookie_path() -> None:
    """`__Host-` demands the path "/"."""
    app = make_app()
    app.config["APPLICATION_ROOT"] = "/below"

    assert "; Path=/;" in app.test_client().get("/count").headers["Set-Cookie"]


def test_permanent_session() -> None:
    app = make_app()

    @app.get("/remember")
    def remember() -> str:
        session.permanent = True
        return "remembered"

    cookie = app.test_client().get("/remember").headers["Set-Cookie"]
    assert app.permanent_session_lifetime.total_seconds() == 7 * DAY
    assert "Expires=" in cookie


def test_no_cache_keeps_a_session() -> None:
    app = make_app()

    @app.get("/shared")
    def shared() -> tuple[str, dict[str, str]]:
        session["a"] = 1
        return "for all", {"Cache-Control": "public, max-age=3600", "Vary": "Accept"}

    client = app.test_client()
    for response in (client.get("/count"), client.get("/count"), post(client, token(client))):
        assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("no-store", "Cookie")
    assert client.get("/shared").headers["Cache-Control"] == "max-age=3600, private"
    assert client.get("/shared").headers["Vary"] == "Accept, Cookie"


def test_no_default_header_weakens_a_session() -> None:
    """What all responses vary on stays, and a rule for all responses does not let a cache keep a session."""
    app = Flask("site")
    secure.init_app(app, load(), headers={"Vary": "Accept-Language", "Cache-Control": "public, max-age=60"})
    client = with_views(app).test_client()

    session_page, other = client.get("/count").headers, client.get("/healthz").headers
    assert session_page.getlist("Cache-Control") == ["no-store"]
    assert {*session_page.getlist("Vary")} == {"Cookie", "Accept-Language"}
    assert (other["Cache-Control"], other["Vary"]) == ("public, max-age=60", "Accept-Language")


@pytest.mark.usefixtures("_static")
@pytest.mark.parametrize(
    ("path", "vary"), [("/static/style.css", None), ("/healthz", None), ("/no/such/page", "Accept")]
)
def test_no_session_no_cookie(path: str, vary: str | None) -> None:
    client = make_app().test_client()
    client.get("/count")

    response = client.get(path, buffered=True)

    assert "no-store" not in response.headers.get("Cache-Control", "")
    assert response.headers.get("Vary") == vary
    assert "Set-Cookie" not in response.headers


# Headers


@pytest.mark.usefixtures("_static")
@pytest.mark.parametrize("environment", ["production", "development"])
@pytest.mark.parametrize(("method", "path", "status"), RESPONSES)
def test_headers(environment: str, method: str, path: str, status: int) -> None:
    response = make_app(APP_ENV=environment).test_client().open(path, method=method, buffered=True)

    assert response.status_code == status
    assert {name: response.headers.getlist(name) for name in HEADERS} == {n: [v] for n, v in HEADERS.items()}
    hsts = [HSTS] if environment == "production" else []
    assert response.headers.getlist("Strict-Transport-Security") == hsts
    assert "Server" not in response.headers


@pytest.mark.usefixtures("_static")
def test_headers_not_modified() -> None:
    client = make_app().test_client()
    etag = client.get("/static/style.css", buffered=True).headers["ETag"]

    response = client.get("/static/style.css", headers={"If-None-Match": etag}, buffered=True)

    assert response.status_code == 304
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


def test_headers_after_a_failing_function() -> None:
    app = make_app()

    @app.after_request
    def spoil(_: Response) -> Response:
        raise RuntimeError

    response = app.test_client().get("/count")

    assert response.status_code == 500
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


VIEWS = {
    "text": lambda: "x",
    "JSON": lambda: {"a": 1},
    "tuple": lambda: ("x", 201, {"X-More": "1"}),
    "stream": lambda: (part for part in "xy"),
    "redirect": lambda: redirect("/"),
    "make_response": lambda: make_response("x"),
    "flask.Response": lambda: Response("x"),
    "werkzeug's Response": lambda: PlainResponse("x"),
    "WSGI": lambda: PlainResponse("x").__call__,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_headers_of_any_response(view: object) -> None:
    app = make_app()
    app.add_url_rule("/view", view_func=view)  # type: ignore[arg-type]
    app.add_url_rule("/changed", "changed", view)  # type: ignore[arg-type]

    @app.after_request
    def change(response: Response) -> Response:
        if request.path == "/changed":
            del response.headers["X-Frame-Options"]
            response.headers["Referrer-Policy"] = "no-referrer"
        return response

    client = app.test_client()
    found = client.get("/view").headers
    changed = client.get("/changed").headers
    assert {name: found.getlist(name) for name in HEADERS} == {name: [value] for name, value in HEADERS.items()}
    assert "X-Frame-Options" not in changed
    assert changed.getlist("Referrer-Policy") == ["no-referrer"]


class Fancy(Response):
    """A response class of an extension."""

    def __call__(self, *args: object) -> list[bytes]:
        """Answer in its own way, as Flask-Sock does."""
        return super().__call__(*args)  # type: ignore[return-value, arg-type]


def test_response_class_of_an_extension() -> None:
    """It stays what it is; stock Flask does not change it either."""
    app, seen = make_app(), []
    app.add_url_rule("/fancy", view_func=lambda: Fancy("x"))

    @app.after_request
    def look(response: Response) -> Response:
        seen.append(type(response))
        return response

    assert app.test_client().get("/fancy").headers["X-Frame-Options"] == "DENY"
    assert seen == [Fancy]


def test_response_class_of_the_app() -> None:
    app = Flask("site", root_path=str(Path.cwd()))
    app.response_class = Fancy
    secure.init_app(app, load())
    with_views(app)

    seen = []

    @app.after_request
    def look(response: Response) -> Response:
        seen.append(type(response))
        return response

    app.add_url_rule("/flask", view_func=lambda: Response("x"))
    assert app.test_client().get("/flask").headers["X-Frame-Options"] == "DENY"
    assert [issubclass(each, Fancy) for each in seen] == [True]
    assert app.test_client().get("/count").headers["X-Frame-Options"] == "DENY"
    assert app.test_client().get("/no").headers["X-Frame-Options"] == "DENY"


def test_response_returned_twice() -> None:
    app = make_app()
    with app.app_context():
        kept = app.response_class("x")
    app.add_url_rule("/kept", view_func=lambda: kept)

    for _ in range(3):
        found = app.test_client().get("/kept").headers
        assert {name: found.getlist(name) for name in HEADERS} == {name: [value] for name, value in HEADERS.items()}


def test_response_outside_an_app() -> None:
    """A response is created without an app, and pickled, as by a cache."""
    app = make_app()
    made = app.response_class("x")
    with app.test_request_context():
        inside = pickle.loads(pickle.dumps(app.response_class("y")))  # noqa: S301
        assert inside.headers["X-Frame-Options"] == "DENY"

    assert "X-Frame-Options" not in made.headers


def test_view_sets_a_header() -> None:
    app = make_app()
    app.add_url_rule("/own", view_func=lambda: ("", {POLICY: "default-src 'none'", "x-frame-options": "SAMEORIGIN"}))

    found = app.test_client().get("/own").headers
    assert found.getlist(POLICY) == ["default-src 'none'"]
    assert found.getlist("X-Frame-Options") == ["SAMEORIGIN"]


@pytest.mark.parametrize("how", ["del", "pop", "remove", "after_this_request"])
def test_view_removes_a_header(how: str) -> None:
    app = make_app()

    def drop(response: Response) -> Response:
        if how == "pop":
            assert response.headers.pop("X-Frame-Options") == "DENY"
        elif how == "remove":
            response.headers.remove("X-Frame-Options")
        else:
            del response.headers["X-Frame-Options"]
        return response

    @app.get("/own")
    def own() -> Response:
        response = make_response("embed me")
        if how == "after_this_request":
            after_this_request(drop)
            return response
        return drop(response)

    found = app.test_client().get("/own").headers
    assert "X-Frame-Options" not in found
    assert found[POLICY] == HEADERS[POLICY]
    assert app.test_client().get("/count").headers["X-Frame-Options"] == "DENY"


def test_response_replaced_by_another_function() -> None:
    app = make_app()
    app.after_request(lambda _: Response("other"))

    assert app.test_client().get("/count").headers["X-Frame-Options"] == "DENY"


def with_headers(
    csp: Mapping[str, list[str]] | None = None, changes: Mapping[str, str | None] | None = None
) -> FlaskClient:
    """Return a client of an app whose team changes the headers."""
    app = Flask("site", root_path=str(Path.cwd()))
    settings = load()
    app.config.from_mapping(settings.flask_config(), SECRET_KEY=KEY)
    web.init_app(app, settings, csp, changes)
    return with_views(app).test_client()


@pytest.mark.parametrize(
    ("csp", "directives"),
    [
        ({"script-src": ["https://cdn.example"]}, ["default-src 'self'", "script-src 'self' https://cdn.example"]),
        ({"img-src": ["data:", "data:"]}, ["img-src 'self' data:"]),
        ({"font-src": "https://a.example https://b.example"}, ["font-src 'self' https://a.example https://b.example"]),
        ({"default-src": ["https://a.example"]}, ["default-src 'self' https://a.example"]),
        ({"img-src": ["data:"], "default-src": ["https://a.example"]}, ["img-src 'self' https://a.example data:"]),
        ({"child-src": ["data:"], "default-src": ["https://a.example"]}, ["child-src 'self' https://a.example data:"]),
        ({"frame-ancestors": ["https://partner.example"]}, ["frame-ancestors https://partner.example"]),
        ({"object-src": []}, ["object-src 'none'"]),
        ({"form-action": ["https://pay.example"]}, ["form-action 'self' https://pay.example"]),
        ({"upgrade-insecure-requests": []}, ["upgrade-insecure-requests"]),
    ],
)
def test_csp_is_extended(csp: dict[str, list[str]], directives: list[str]) -> None:
    policy = with_headers(csp).get("/count").headers[POLICY].split("; ")

    assert [directive for directive in directives if directive not in policy] == []
    assert len({directive.split()[0] for directive in policy}) == len(policy)
    assert set(HEADERS[POLICY].split("; ")) - set(policy) <= {
        d for d in HEADERS[POLICY].split("; ") if d.split()[0] in csp
    }


def test_headers_of_all_responses_are_changed() -> None:
    changes = {"x-frame-options": None, "Permissions-Policy": "camera=(self)", "X-Robots-Tag": "noindex"}
    client = with_headers(changes=changes)

    for path in ("/count", "/plain", "/no/such/page"):
        found = client.get(path).headers
        assert "X-Frame-Options" not in found
        assert found.getlist("Permissions-Policy") == ["camera=(self)"]
        assert found["X-Robots-Tag"] == "noindex"
        assert found[POLICY] == HEADERS[POLICY]


@pytest.mark.parametrize(
    ("variables", "header", "value"),
    [
        (
            {"CROSS_ORIGIN_OPENER_POLICY": "same-origin-allow-popups"},
            "Cross-Origin-Opener-Policy",
            "same-origin-allow-popups",
        ),
        ({"HSTS": "max-age=60; includeSubDomains"}, "Strict-Transport-Security", "max-age=60; includeSubDomains"),
        ({"FORM_ACTION": "https://pay.example"}, POLICY, f"{HEADERS[POLICY]} https://pay.example"),
    ],
)
def test_headers_by_a_setting(variables: dict[str, str], header: str, value: str) -> None:
    assert make_app(**variables).test_client().get("/count").headers.getlist(header) == [value]


def test_csp_nonce() -> None:
    """The nonce is in the policy of the response that uses it, and only there."""
    app = make_app()
    page = "<script nonce={{ csp_nonce() }}></script><style nonce={{ csp_nonce() }}></style>"
    app.add_url_rule("/nonce", "nonce", view_func=lambda: render_template_string(page))
    app.add_url_rule("/python", "python", view_func=secure.csp_nonce)
    client = app.test_client()

    first, second = client.get("/nonce"), client.get("/python")

    nonce = second.text
    assert len(nonce) >= 22
    assert f"; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'" in second.headers[POLICY]
    assert nonce not in first.text
    assert first.text.count(first.headers[POLICY].partition("'nonce-")[2].partition("'")[0]) == 2
    assert client.get("/count").headers[POLICY] == HEADERS[POLICY]


def test_csp_nonce_and_a_policy_of_the_view() -> None:
    app = make_app()
    app.add_url_rule("/own", view_func=lambda: (secure.csp_nonce(), {POLICY: "script-src 'none'"}))

    assert app.test_client().get("/own").headers.getlist(POLICY) == ["script-src 'none'"]


# CSRF


@pytest.fixture
def client() -> FlaskClient:
    return make_app().test_client()


@pytest.mark.parametrize("method", UNSAFE)
def test_csrf_token(client: FlaskClient, method: str) -> None:
    right = token(client)

    assert post(client, None, method).status_code == 400
    assert post(client, "", method).status_code == 400
    assert post(client, right[:-1], method).status_code == 400
    assert post(client, right, method).json == {"count": 1}


def test_csrf_token_of_another_session(client: FlaskClient) -> None:
    others = token(client.application.test_client())
    token(client)

    assert post(client, others).status_code == 400


def test_csrf_token_without_session(client: FlaskClient) -> None:
    assert post(client.application.test_client(), token(client)).status_code == 400


@pytest.mark.parametrize(
    "referer",
    [
        "",
        "https://evil.example/",
        "http://localhost/",
        "https://localhost.evil/",
        "//[",
        "https://localhost:x/",
    ],
)
def test_csrf_referrer(client: FlaskClient, referer: str) -> None:
    form = {"csrf_token": token(client)}

    assert client.post("/count", data=form, headers={"Referer": referer}).status_code == 400


def test_csrf_token_lifetime(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, later = token(client), time.time() + 6 * DAY
    monkeypatch.setattr(time, "time", lambda: later)

    assert post(client, opened).status_code == 200


def test_csrf_exempt(client: FlaskClient) -> None:
    """A view or a blueprint needs no token; the rest of the app does."""
    app = make_app()
    api = Blueprint("api", __name__)
    api.post("/api")(lambda: "done")
    secure.csrf.exempt(api)
    app.register_blueprint(api)

    @app.post("/hook")
    @secure.csrf.exempt  # type: ignore[untyped-decorator]
    def hook() -> str:
        return "done"

    client = app.test_client()
    assert [client.post(path).status_code for path in ("/api", "/hook", "/count")] == [200, 200, 400]


def test_csrf_off_in_tests(client: FlaskClient) -> None:
    client.application.config["WTF_CSRF_ENABLED"] = False

    assert client.post("/count").json == {"count": 1}


def test_csrf_token_and_rotation(tmp_path: Path) -> None:
    now = int(time.time())
    old, upcoming, signing, last = (generate_key(at) for at in (now - 900, now + ACTIVATION_DELAY, now - 1, now))
    file = tmp_path / "keys"

    def keyring(*keys: Key) -> None:
        file.write_text("".join(f"{key.text}\n" for key in keys))
        file.chmod(0o600)

    keyring(old)
    client = make_app(SECRET_KEY_FILE=str(file)).test_client()
    opened = token(client)

    keyring(upcoming, old)
    assert post(client, opened).json == {"count": 1}
    keyring(signing, old)
    assert post(client, opened).json == {"count": 2}
    keyring(last)
    assert post(client, opened).status_code == 400


# Hosts


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("app.example", 200),
        ("APP.Example", 200),
        ("app.example:8443", 200),
        ("below.example.net", 200),
        ("a.b.example.net", 200),
        ("example.net", 200),
        ("evil.example", 400),
        ("app.example.evil.example", 400),
        ("notexample.net", 400),
        ("app.example@evil.example", 400),
        ("10.0.0.7:8000", 400),
        ("[::1]:8000", 400),
        ("app.example:80:80", 400),
        ("app.example evil", 400),
        ("a" * 300, 400),
        ("\xff\xfe", 400),
        ("../..", 400),
        ("", 400),
    ],
)
def test_trusted_hosts(host: str, status: int) -> None:
    client = make_app(TRUSTED_HOSTS="App.example, .example.net").test_client()

    assert client.get("/seen", environ_overrides={"HTTP_HOST": host}).status_code == status


@pytest.mark.parametrize("path", ["/no/such/page", "/folder"])
def test_trusted_hosts_without_a_view(path: str) -> None:
    """A page that does not exist is refused too, and a redirect, which repeats the host."""
    client = make_app(TRUSTED_HOSTS="app.example").test_client()

    assert client.get(path, base_url="https://evil.example").status_code == 400


@pytest.mark.parametrize("host", ["10.0.0.7:8000", "[::1]:8000", "kubernetes.internal", "not a host", ""])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probe_by_address(host: str, path: str) -> None:
    client = make_app(TRUSTED_HOSTS="app.example").test_client()

    assert client.get(path, environ_overrides={"HTTP_HOST": host}).status_code == 200


@pytest.mark.parametrize("host", ["app.example", "not a host", "a" * 300, "\xff\xfe", "..", "[", ""])
def test_odd_host(host: str) -> None:
    client = make_app().test_client()

    assert client.get("/count", environ_overrides={"HTTP_HOST": host}).status_code in {200, 400}


def test_refused_host_is_logged(caplog: Warnings) -> None:
    """The log has the reason and the setting, at most once a minute; the page has neither."""
    client = make_app(TRUSTED_HOSTS="app.example").test_client()

    pages = [client.get("/seen", base_url="https://other.example").text for _ in range(3)]

    assert warnings(caplog) == [
        "request refused: host other.example is not in TRUSTED_HOSTS\n"
        "hint: if it is one of this app's names, add it to TRUSTED_HOSTS"
    ]
    assert not any("TRUSTED_HOSTS" in page or "other.example" in page for page in pages)


def test_warning_after_a_minute(caplog: Warnings, monkeypatch: pytest.MonkeyPatch) -> None:
    client, now = make_app(TRUSTED_HOSTS="app.example").test_client(), time.monotonic()
    counts = []
    for seconds in (0, 59, 61, 100, 122):
        monkeypatch.setattr(time, "monotonic", lambda at=now + seconds: at)
        client.get("/seen")
        counts.append(len(warnings(caplog)))

    assert counts == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("host", ["x" * 9000, "evil\x85 \u2028" + "x" * 9000])
def test_warning_of_a_long_host(host: str, caplog: Warnings) -> None:
    client = make_app(TRUSTED_HOSTS="app.example").test_client()

    client.get("/seen", environ_overrides={"HTTP_HOST": host})

    (warning,) = warnings(caplog)
    first, _ = warning.splitlines()
    assert first.isascii()
    assert len(warning) < 300


def test_warning_of_an_odd_host(caplog: Warnings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Werkzeug before 3.1.7 returns any host as the client sent it; later versions return "" for this one."""
    monkeypatch.setattr("flask.app.get_host", lambda environ, _: environ["HTTP_HOST"])
    client = make_app(TRUSTED_HOSTS="app.example").test_client()

    answer = client.get("/seen", environ_overrides={"HTTP_HOST": "evil\n x"})

    assert answer.status_code == 400
    assert warnings(caplog)[0].startswith("request refused: host evil%0A%20x is not in TRUSTED_HOSTS\n")


@pytest.mark.parametrize(
    ("variables", "count"),
    [({}, 1), ({"TRUSTED_HOSTS": "app.example"}, 0), ({"APP_ENV": "development"}, 0)],
)
def test_no_trusted_hosts(variables: dict[str, str], count: int, caplog: Warnings) -> None:
    """Production without TRUSTED_HOSTS warns once."""
    client = make_app(**variables).test_client()
    client.get("/plain")
    client.get("/plain")

    assert [r.msg for r in caplog.records if r.levelno >= logging.WARNING and "every host name" in str(r.msg)] == [
        "TRUSTED_HOSTS: not set, so every host name is served"
    ] * count


# Proxies


FORGED = {
    "X-Forwarded-For": "6.6.6.6, 203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=6.6.6.6;host=evil.example;proto=https",
}


@pytest.mark.parametrize(("proxies", "address", "scheme"), [("0", "127.0.0.1", "http"), ("1", "203.0.113.9", "https")])
def test_forwarded(proxies: str, address: str, scheme: str) -> None:
    client = make_app(TRUSTED_PROXIES=proxies).test_client()

    seen = client.get("/seen", base_url="http://localhost", headers=FORGED).json

    assert seen == {"address": address, "scheme": scheme, "host": "localhost"}


def test_two_proxies() -> None:
    client = make_app(TRUSTED_PROXIES="2").test_client()
    headers = {"X-Forwarded-For": "6.6.6.6, 198.51.100.4, 203.0.113.9", "X-Forwarded-Proto": "https, http"}

    seen = client.get("/seen", base_url="http://localhost", headers=headers).json

    assert seen == {"address": "198.51.100.4", "scheme": "https", "host": "localhost"}


@pytest.mark.parametrize(
    ("prefix", "sent", "status", "location"),
    [
        ("", "/evil", 200, "/count"),
        ("/shop", "/shop", 200, "/shop/count"),
        ("/shop", None, 200, "/count"),
        ("/shop", "/evil", 400, None),
        ("/shop", "//evil.example", 400, None),
    ],
)
def test_prefix(prefix: str, sent: str | None, status: int, location: str | None, caplog: Warnings) -> None:
    """A prefix of the proxy is believed if it is TRUSTED_PREFIX."""
    app = make_app(TRUSTED_PROXIES="1", TRUSTED_PREFIX=prefix)
    app.add_url_rule("/link", view_func=lambda: current_app.url_for("count"))
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}

    answer = app.test_client().get("/link", headers={**forwarded, **({"X-Forwarded-Prefix": sent} if sent else {})})

    assert answer.status_code == status
    if location:
        assert answer.text == location
    else:
        assert f"X-Forwarded-Prefix {sent} is not TRUSTED_PREFIX (/shop)" in warnings(caplog)[0]


@pytest.mark.parametrize(
    ("proxies", "sent", "words"),
    [
        ("0", {}, None),
        ("0", {"X-Forwarded-For": "1.1.1.1"}, ("X-Forwarded-For ignored: TRUSTED_PROXIES is 0", "set TRUSTED_PROXIES")),
        ("0", {"X-Forwarded-Proto": "https"}, ("X-Forwarded-Proto ignored", "set TRUSTED_PROXIES")),
        ("1", {"X-Forwarded-For": "1.1.1.1", "X-Forwarded-Proto": "https"}, None),
        (
            "1",
            {"X-Forwarded-For": "1.1.1.1"},
            ("no X-Forwarded-Proto in a request: TRUSTED_PROXIES is 1", "proxy to send"),
        ),
        ("1", {}, ("no X-Forwarded-For, X-Forwarded-Proto in a request", "set TRUSTED_PROXIES=0")),
    ],
)
def test_proxy_is_logged(proxies: str, sent: dict[str, str], words: tuple[str, str] | None, caplog: Warnings) -> None:
    """A proxy that is not trusted, or forwards nothing, is in the log once a minute; a probe is not."""
    client = make_app(TRUSTED_PROXIES=proxies).test_client()
    client.get("/healthz")
    probe = warnings(caplog) if not sent else []

    for _ in range(3):
        client.get("/plain", headers=sent)

    found = warnings(caplog)
    assert probe == []
    assert len(found) == bool(words)
    assert all(word in found[0] for word in words or ())


# HTTPS


@pytest.mark.parametrize(
    ("variables", "url", "path", "count"),
    [
        ({}, "http://localhost", "/count", 1),
        ({}, "http://localhost", "/plain", 0),
        ({}, "https://localhost", "/count", 0),
        ({"APP_ENV": "development"}, "http://localhost", "/count", 0),
    ],
)
def test_form_over_http_is_logged(variables: dict[str, str], url: str, path: str, count: int, caplog: Warnings) -> None:
    """One warning with both usual causes."""
    client = make_app(**variables).test_client()

    for _ in range(3):
        client.get(path, base_url=url)

    found = warnings(caplog)
    assert len(found) == count
    assert all("over HTTPS" in text and "TRUSTED_PROXIES" in text for text in found)


def test_session_over_http_is_logged(caplog: Warnings) -> None:
    app = make_app()

    @app.get("/keep")
    def keep() -> str:
        session["a"] = 1
        return ""

    app.test_client().get("/keep", base_url="http://localhost")

    assert "over plain HTTP" in warnings(caplog)[0]


# Limits


def test_body_limit() -> None:
    client = make_app(MAX_CONTENT_LENGTH="1000").test_client()
    headers = {"Referer": "https://localhost/count", "X-CSRFToken": token(client)}

    assert client.post("/count", data="x" * 1000, headers=headers).status_code == 200
    refused = client.post("/count", data="x" * 1001, headers=headers)
    assert refused.status_code == 413
    assert client.post("/count", data={"file": "x" * 1000}, headers=headers).status_code == 413


@pytest.mark.parametrize(
    ("form", "start", "end"),
    [
        ("application/x-www-form-urlencoded", "a=", ""),
        (
            "multipart/form-data; boundary=b",
            '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n',
            "\r\n--b--\r\n",
        ),
    ],
)
def test_default_body_limit(client: FlaskClient, form: str, start: str, end: str) -> None:
    headers = {"Referer": "https://localhost/count", "X-CSRFToken": token(client), "Content-Type": form}

    def send(size: int) -> int:
        return client.post("/count", data=start + "x" * size + end, headers=headers).status_code

    assert send(1_000_000) == 200
    assert send(1 << 20) == 413


def test_form_parts_limit(client: FlaskClient) -> None:
    def send(count: int) -> int:
        form = {f"field{number}": "x" for number in range(count - 1)} | {"csrf_token": right}
        headers = {"Referer": "https://localhost/count"}
        sent = client.post("/count", data=form, headers=headers, content_type="multipart/form-data")
        return sent.status_code

    right = token(client)

    assert send(200) == 200
    assert send(201) == 413


@pytest.mark.parametrize("disposition", ["form-data", 'form-data; filename="a"', 'form-data; namf="a"'])
def test_form_part_without_name(client: FlaskClient, disposition: str) -> None:
    body = f"--a\r\nContent-Disposition: {disposition}\r\n\r\nvalue\r\n--a--\r\n"
    headers = {"Referer": "https://localhost/count", "X-CSRFToken": token(client)}

    def send(body: str) -> int:
        kind = "multipart/form-data; boundary=a"
        return client.post("/count", data=body, headers=headers, content_type=kind).status_code

    assert send(body) == 400
    assert send(body.replace("form-data", 'form-data; name="b"')) == 200


def test_prefix_without_the_proxy(caplog: Warnings) -> None:
    """The browser sends the cookie to no page that is not below the prefix."""
    client = make_app(TRUSTED_PREFIX="/shop", TRUSTED_PROXIES="1", TRUSTED_HOSTS="localhost").test_client()
    forwarded = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}
    client.get("/plain", headers=forwarded)
    client.get("/count", headers=forwarded | {"X-Forwarded-Prefix": "/shop"})
    assert warnings(caplog) == []

    client.get("/count", headers=forwarded)

    (warning,) = warnings(caplog)
    assert warning.endswith("unset TRUSTED_PREFIX")
    assert warning.startswith("page with a form without X-Forwarded-Prefix: browsers return the session cookie below")


# Debug


@pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes", "on", "y", " 0", "off", "x"])
def test_debug_in_production(value: str) -> None:
    with pytest.raises(SettingsError, match="FLASK_DEBUG: must be off in production"):
        make_app(FLASK_DEBUG=value)


@pytest.mark.parametrize("value", ["", "0", "false", "False", "no", "NO"])
def test_debug_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", value)

    assert not make_app(FLASK_DEBUG=value).debug


def test_debug_in_the_code() -> None:
    """`app.debug = True` shows a console that runs code."""
    app = Flask("site")
    app.debug = True
    with pytest.raises(SettingsError, match=r"^app\.debug: must be off in production\nhint: remove what turns it on"):
        secure.init_app(app, load())
    secure.init_app(app, load(APP_ENV="development"))


@pytest.mark.parametrize("options", [{"debug": True}, {"use_debugger": True}, {"debug": True, "port": 1}])
def test_debug_of_run(options: dict[str, Any]) -> None:
    app = make_app()
    with pytest.raises(SettingsError, match=r"^app\.debug: must be off in production\n"):
        app.run(**options)
    with pytest.raises(SettingsError):
        app.run("127.0.0.1", 1, True)
    assert not app.debug
    app.debug = True
    with pytest.raises(SettingsError):
        app.run()


def test_run_without_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[object] = []
    monkeypatch.setattr("werkzeug.serving.run_simple", lambda *place, **options: served.extend([*place, options]))
    app = make_app()
    monkeypatch.setenv("FLASK_DEBUG", "1")  # as `run` itself reads it from `.env`
    app.run("127.0.0.2", 81, load_dotenv=False)

    host, port, served_app, options = served
    assert (host, port, options) == ("127.0.0.2", 81, {"use_reloader": False, "use_debugger": False, "threaded": True})
    assert served_app is app


def test_run_of_another_class() -> None:
    """A class of the team's own gets what it is given."""

    class Site(Flask):
        def run(self, port: int = 5, **options: Any) -> Any:  # type: ignore[override]
            ran.append((port, options))

    ran: list[object] = []
    app = Site("site")
    secure.init_app(app, load())
    app.run()
    app.run(6, threads=4)

    assert ran == [(5, {}), (6, {"threads": 4})]


def test_debug_in_development(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")

    assert make_app(APP_ENV="development", FLASK_DEBUG="1").debug


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["run", "--debug"], {}),
        (["--debug", "run"], {}),
        (["run", "--debugger"], {}),
        (["run"], {"FLASK_DEBUG": "1"}),
        (["run"], {"FLASK_RUN_DEBUGGER": "1"}),
    ],
)
def test_flask_command_with_debug_in_production(arguments: list[str], variables: dict[str, str]) -> None:
    Path("pages.py").write_text(
        "import flask, secure\ndef create_app():\n    app = flask.Flask('site')\n"
        "    secure.init_app(app, secure.Settings.load())\n    return app\n"
    )
    command = [sys.executable, "-m", "flask", "--app", "pages", *arguments]
    found = str(Path(secure.__path__[0]).parent)
    environ = {**os.environ, "PYTHONPATH": found, "APP_ENV": "production", "SECRET_KEY": KEY, "FLASK_RUN_PORT": "0"}

    done = subprocess.run(
        command, env={**environ, **variables}, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 1
    assert "FLASK_DEBUG: must be off in production" in done.stderr
    assert "Traceback" not in done.stderr


def test_testing() -> None:
    assert make_app(APP_ENV="testing").testing
    assert not any(make_app(APP_ENV=other).testing for other in ("production", "development"))


def test_url_outside_a_request() -> None:
    def address(app: Flask) -> str:
        app.config["SERVER_NAME"] = "app.example"
        with app.app_context():
            return app.url_for("health.healthz", _external=True)

    assert address(make_app()) == "https://app.example/healthz"
    assert address(make_app(APP_ENV="development")) == "http://app.example/healthz"
