"""What protects every response and every request."""

import logging
import os
import subprocess
import sys
import time
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from apps import KEY, UNSAFE, make_app, post, token
from flask import Flask, Response, session
from flask.testing import FlaskClient
from package import LEAD, PACKAGE, ConfigError, Key, load, mint

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
HSTS = "max-age=31536000; includeSubDomains"
DAY = 86400

RESPONSES = [
    ("GET", "/count", 200),
    ("HEAD", "/count", 200),
    ("OPTIONS", "/count", 200),
    ("GET", "/healthz", 200),
    ("GET", "/static/style.css", 200),
    ("GET", "/moved", 302),
    ("GET", "//count", 308),
    ("POST", "/count", 400),
    ("GET", "/fail/401", 401),
    ("GET", "/fail/403", 403),
    ("GET", "/no/such/page", 404),
    ("DELETE", "/healthz", 405),
    ("TRACE", "/count", 405),
    ("GET", "/crash", 500),
]


# Cookies


@pytest.mark.parametrize(
    ("environment", "name", "flags"),
    [
        ("production", "__Host-session", {"secure", "httponly"}),
        ("development", "session", {"httponly"}),
        ("testing", "session", {"httponly"}),
    ],
)
def test_the_session_cookie_is_out_of_reach_for_scripts_and_other_sites(
    environment: str, name: str, flags: set[str]
) -> None:
    response = make_app(APP_ENV=environment).test_client().get("/count")

    (cookie,) = SimpleCookie(response.headers["Set-Cookie"]).values()
    attributes = {attribute for attribute, value in cookie.items() if value}
    assert cookie.key == name
    assert attributes == {"path", "samesite", *flags}
    assert (cookie["path"], cookie["samesite"]) == ("/", "Lax")


def test_the_session_cookie_of_an_app_below_a_path_keeps_the_path_that_its_name_asks_for() -> None:
    app = make_app()
    app.config["APPLICATION_ROOT"] = "/below"

    assert "; Path=/;" in app.test_client().get("/count").headers["Set-Cookie"]


def test_a_permanent_session_lasts_seven_days_by_default() -> None:
    app = make_app()

    @app.get("/remember")
    def remember() -> str:
        session.permanent = True
        return "remembered"

    cookie = app.test_client().get("/remember").headers["Set-Cookie"]
    assert app.permanent_session_lifetime.total_seconds() == 7 * DAY
    assert "Expires=" in cookie


def test_a_response_that_carries_a_session_is_kept_by_no_cache() -> None:
    app = make_app()

    @app.get("/shared")
    def shared() -> tuple[str, dict[str, str]]:
        session["a"] = 1
        return "for all", {"Cache-Control": "public, max-age=3600", "Vary": "Accept"}

    client = app.test_client()
    for response in (client.get("/count"), client.get("/count"), post(client, token(client))):
        assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("no-store", "Cookie")
    assert client.get("/shared").headers["Cache-Control"] == "no-store"
    assert client.get("/shared").headers["Vary"] == "Accept, Cookie"


@pytest.mark.parametrize("path", ["/static/style.css", "/static/icon.svg", "/healthz", "/no/such/page"])
def test_a_response_without_a_session_may_be_kept_and_sets_no_cookie(path: str) -> None:
    client = make_app().test_client()
    client.get("/count")

    response = client.get(path, buffered=True)

    assert "no-store" not in response.headers.get("Cache-Control", "")
    assert "Vary" not in response.headers
    assert "Set-Cookie" not in response.headers


# Headers


@pytest.mark.parametrize("environment", ["production", "development"])
@pytest.mark.parametrize(("method", "path", "status"), RESPONSES)
def test_every_response_has_every_header(environment: str, method: str, path: str, status: int) -> None:
    response = make_app(APP_ENV=environment).test_client().open(path, method=method, buffered=True)

    assert response.status_code == status
    assert {name: response.headers.getlist(name) for name in HEADERS} == {n: [v] for n, v in HEADERS.items()}
    hsts = [HSTS] if environment == "production" else []
    assert response.headers.getlist("Strict-Transport-Security") == hsts
    assert "Server" not in response.headers


def test_a_response_that_is_not_modified_has_every_header() -> None:
    client = make_app().test_client()
    etag = client.get("/static/style.css", buffered=True).headers["ETag"]

    response = client.get("/static/style.css", headers={"If-None-Match": etag}, buffered=True)

    assert response.status_code == 304
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


def test_a_response_that_a_failing_function_of_the_app_spoils_has_every_header() -> None:
    app = make_app()

    @app.after_request
    def spoil(_: Response) -> Response:
        raise RuntimeError

    response = app.test_client().get("/count")

    assert response.status_code == 500
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


def test_a_view_can_set_a_policy_of_its_own() -> None:
    app = make_app()
    policy = "default-src 'none'"
    app.add_url_rule("/own", view_func=lambda: ("", {"Content-Security-Policy": policy}))

    assert app.test_client().get("/own").headers.getlist("Content-Security-Policy") == [policy]


# CSRF


@pytest.fixture
def client() -> FlaskClient:
    return make_app().test_client()


@pytest.mark.parametrize("method", UNSAFE)
def test_a_form_needs_its_token(client: FlaskClient, method: str) -> None:
    right = token(client)

    assert post(client, None, method).status_code == 400
    assert post(client, "", method).status_code == 400
    assert post(client, right[:-1], method).status_code == 400
    assert post(client, right, method).json == {"count": 1}


def test_the_token_of_another_session_is_refused(client: FlaskClient) -> None:
    others = token(client.application.test_client())
    token(client)

    assert post(client, others).status_code == 400


def test_a_token_without_its_session_is_refused(client: FlaskClient) -> None:
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
def test_on_https_a_form_must_come_from_this_site(client: FlaskClient, referer: str) -> None:
    form = {"csrf_token": token(client)}

    assert client.post("/count", data=form, headers={"Referer": referer}).status_code == 400


def test_a_form_posts_as_long_as_its_session_lives(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, later = token(client), time.time() + 6 * DAY
    monkeypatch.setattr(time, "time", lambda: later)

    assert post(client, opened).status_code == 200


def test_a_refused_form_is_told_in_words(client: FlaskClient) -> None:
    page = post(client, "wrong").text

    assert "This form is no longer valid. Go back, reload the page and send it again." in page


def test_a_form_that_was_open_while_the_key_rotated_still_posts_until_a_revocation(tmp_path: Path) -> None:
    now = int(time.time())
    old, upcoming, signing, last = (mint(at) for at in (now - 900, now + LEAD, now - 1, now))
    file = tmp_path / "keys"

    def ring(*keys: Key) -> None:
        file.write_text("".join(f"{key.text}\n" for key in keys))
        file.chmod(0o600)

    ring(old)
    client = make_app(SECRET_KEY_FILE=str(file)).test_client()
    opened = token(client)

    ring(upcoming, old)
    assert post(client, opened).json == {"count": 1}
    ring(signing, old)
    assert post(client, opened).json == {"count": 2}
    ring(last)
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
def test_only_trusted_hosts_are_served(host: str, status: int) -> None:
    client = make_app(TRUSTED_HOSTS="App.example, .example.net").test_client()

    assert client.get("/seen", environ_overrides={"HTTP_HOST": host}).status_code == status


@pytest.mark.parametrize("host", ["10.0.0.7:8000", "[::1]:8000", "kubernetes.internal", "not a host", ""])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_by_address_is_answered(host: str, path: str) -> None:
    client = make_app(TRUSTED_HOSTS="app.example").test_client()

    assert client.get(path, environ_overrides={"HTTP_HOST": host}).status_code == 200


@pytest.mark.parametrize("host", ["app.example", "not a host", "a" * 300, "\xff\xfe", "..", "[", ""])
def test_an_odd_host_is_no_failure_where_every_host_is_served(host: str) -> None:
    client = make_app().test_client()

    assert client.get("/count", environ_overrides={"HTTP_HOST": host}).status_code in {200, 400}


@pytest.mark.parametrize("hosts", ["https://app.example", "*", "*.example", "app.example:443", "a..b", "a b"])
def test_a_trusted_host_that_could_never_match_stops_the_start(hosts: str) -> None:
    with pytest.raises(ConfigError, match="TRUSTED_HOSTS must be host names"):
        make_app(TRUSTED_HOSTS=f"good.example,{hosts}")


@pytest.mark.parametrize(
    ("variables", "warnings"),
    [
        ({}, ["TRUSTED_HOSTS is not set: every host name is served"]),
        ({"TRUSTED_HOSTS": "app.example"}, []),
        ({"APP_ENV": "development"}, []),
    ],
)
def test_production_without_trusted_hosts_warns_once(
    variables: dict[str, str], warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    client = make_app(**variables).test_client()
    client.get("/count")
    client.get("/count")

    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == warnings


# Proxies


FORGED = {
    "X-Forwarded-For": "6.6.6.6, 203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=6.6.6.6;host=evil.example;proto=https",
}


@pytest.mark.parametrize(
    ("proxies", "address", "scheme"), [("0", "127.0.0.1", "http"), ("1", "203.0.113.9", "https")]
)
def test_what_proxies_say_is_believed_from_as_many_as_there_are(
    proxies: str, address: str, scheme: str
) -> None:
    client = make_app(TRUSTED_PROXIES=proxies).test_client()

    seen = client.get("/seen", base_url="http://localhost", headers=FORGED).json

    assert seen == {"address": address, "scheme": scheme, "host": "localhost"}


def test_two_proxies_are_believed_where_there_are_two() -> None:
    client = make_app(TRUSTED_PROXIES="2").test_client()
    headers = {"X-Forwarded-For": "6.6.6.6, 198.51.100.4, 203.0.113.9", "X-Forwarded-Proto": "https, http"}

    seen = client.get("/seen", base_url="http://localhost", headers=headers).json

    assert seen == {"address": "198.51.100.4", "scheme": "https", "host": "localhost"}


# Limits


def test_a_body_is_limited() -> None:
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
def test_a_body_is_limited_to_a_mebibyte_by_default(
    client: FlaskClient, form: str, start: str, end: str
) -> None:
    headers = {"Referer": "https://localhost/count", "X-CSRFToken": token(client), "Content-Type": form}

    def send(size: int) -> int:
        return client.post("/count", data=start + "x" * size + end, headers=headers).status_code

    assert send(1_000_000) == 200
    assert send(1 << 20) == 413


def test_the_parts_of_a_form_are_limited(client: FlaskClient) -> None:
    def send(count: int) -> int:
        form = {f"field{number}": "x" for number in range(count - 1)} | {"csrf_token": right}
        headers = {"Referer": "https://localhost/count"}
        sent = client.post("/count", data=form, headers=headers, content_type="multipart/form-data")
        return sent.status_code

    right = token(client)

    assert send(200) == 200
    assert send(201) == 413


@pytest.mark.parametrize("disposition", ["form-data", 'form-data; filename="a"', 'form-data; namf="a"'])
def test_a_part_of_a_form_without_a_name_is_refused(client: FlaskClient, disposition: str) -> None:
    body = f"--a\r\nContent-Disposition: {disposition}\r\n\r\nvalue\r\n--a--\r\n"
    headers = {"Referer": "https://localhost/count", "X-CSRFToken": token(client)}

    def send(body: str) -> int:
        kind = "multipart/form-data; boundary=a"
        return client.post("/count", data=body, headers=headers, content_type=kind).status_code

    assert send(body) == 400
    assert send(body.replace("form-data", 'form-data; name="b"')) == 200


# Debug


@pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes", "on", "y", " 0", "off", "x"])
def test_debug_is_refused_in_production(value: str) -> None:
    with pytest.raises(ConfigError, match="FLASK_DEBUG must be off in production"):
        make_app(FLASK_DEBUG=value)


@pytest.mark.parametrize("value", ["", "0", "false", "False", "no", "NO"])
def test_debug_that_is_off_is_no_problem(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", value)

    assert not make_app(FLASK_DEBUG=value).debug


def test_only_the_testing_environment_is_flasks_testing() -> None:
    assert make_app(APP_ENV="testing").testing
    assert not any(make_app(APP_ENV=other).testing for other in ("production", "development"))


def test_debug_works_in_development(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")

    assert make_app(APP_ENV="development", FLASK_DEBUG="1").debug


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
def test_the_flask_command_refuses_debug_in_production(
    arguments: list[str], variables: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "flask", "--app", PACKAGE.name, *arguments]
    environ = {**os.environ, "APP_ENV": "production", "SECRET_KEY": KEY, "FLASK_RUN_PORT": "0", **variables}

    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 1
    assert "FLASK_DEBUG must be off in production" in done.stderr
    assert "Traceback" not in done.stderr


def test_addresses_made_outside_of_a_request_are_https_in_production() -> None:
    def address(app: Flask) -> str:
        app.config["SERVER_NAME"] = "app.example"
        with app.app_context():
            return app.url_for("pages.healthz", _external=True)

    assert address(make_app()) == "https://app.example/healthz"
    assert address(make_app(APP_ENV="development")) == "http://app.example/healthz"


def test_only_the_key_must_be_set_in_production() -> None:
    assert load({"SECRET_KEY": KEY}, Path.cwd()).production
