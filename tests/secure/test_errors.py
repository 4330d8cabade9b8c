"""Error pages: readable, the same everywhere, JSON for programs, and silent about the cause."""

import logging
from pathlib import Path
from typing import Any, NoReturn

import pytest
import secure
from apps import KEY, UNSAFE, make_app, post, token
from flask import Blueprint, Response, abort, redirect, request
from flask.testing import FlaskClient
from secure.errors import ADVICE, FOR_PROGRAMS, FORM_ELSEWHERE, FORM_EXPIRED, NEEDS_HTTPS, PROBLEM
from secure.sessions import SessionStoreUnavailableError
from werkzeug.exceptions import HTTPException, NotFound

ENVIRONMENTS = pytest.mark.parametrize("environment", ["production", "development"])
NAMED = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
TEAM_PAGE = "<h1>{{ error.code }} {{ error.name }}</h1><p>{{ advice }}</p><code>{{ request_id }}</code>"


@pytest.fixture(params=["built in", "the team's"])
def template(request: pytest.FixtureRequest) -> str:
    """The page is the team's, or the team has deleted it."""
    if request.param == "the team's":
        Path("templates").mkdir()
        Path("templates/error.html").write_text(TEAM_PAGE)
    return str(request.param)


@ENVIRONMENTS
@pytest.mark.parametrize(("code", "name"), NAMED.items())
def test_page(environment: str, code: int, name: str, template: str) -> None:
    response = make_app(APP_ENV=environment).test_client().get(f"/fail/{code}")

    title = name if template == "built in" else f"{code} {name}"
    assert (response.status_code, response.mimetype) == (code, "text/html")
    assert f"<h1>{title}</h1>" in response.text
    assert f"<p>{ADVICE[code]}</p>" in response.text
    assert f"<code>{response.headers['X-Request-ID']}</code>" in response.text


def test_page_of_another_error() -> None:
    response = make_app().test_client().get("/fail/418")

    assert response.status_code == 418
    assert "Go back and try again." in response.text


@ENVIRONMENTS
def test_failure_hides_the_cause(environment: str, template: str) -> None:
    response = make_app(APP_ENV=environment).test_client().get("/crash")

    assert response.status_code == 500
    assert response.headers["X-Request-ID"] in response.text
    assert not any(word in response.text for word in ("RuntimeError", "the cause", "Traceback", KEY))


@pytest.mark.parametrize(
    "page", ["{{ 1 / 0 }}", "{% extends 'no-base.html' %}", "{{ url_for('no.such.endpoint') }}", "{% if %}"]
)
def test_team_page_fails(page: str, caplog: pytest.LogCaptureFixture) -> None:
    """The visitor gets the built-in page, and the log the reason."""
    Path("templates").mkdir()
    Path("templates/error.html").write_text(page)

    response = make_app().test_client().get("/fail/404")

    assert (response.status_code, response.mimetype) == (404, "text/html")
    assert f"<p>{ADVICE[404]}</p>" in response.text
    assert "cannot render error.html" in [record.getMessage() for record in caplog.records]


def test_team_page_without_the_session_store(caplog: pytest.LogCaptureFixture) -> None:
    """The store logs that it does not answer: a page that asks it again needs no traceback."""

    def ask() -> NoReturn:
        raise SessionStoreUnavailableError

    Path("templates").mkdir()
    Path("templates/error.html").write_text("{{ ask() }}")
    app = make_app()
    app.jinja_env.globals["ask"] = ask

    response = app.test_client().get("/fail/404")

    assert (response.status_code, response.mimetype) == (404, "text/html")
    assert f"<p>{ADVICE[404]}</p>" in response.text
    assert "cannot render error.html" not in caplog.text


@pytest.mark.parametrize("host", ["a..b", "...", "x" * 70 + ".org"])
def test_bad_host(host: str, caplog: pytest.LogCaptureFixture) -> None:
    """A template cannot have a link then; a client could fill the log with that."""
    Path("templates").mkdir()
    Path("templates/error.html").write_text("{{ url_for('count') }}")

    response = make_app().test_client().get("/", headers={"Host": host})

    assert response.status_code == 400
    assert f"<p>{ADVICE[400]}</p>" in response.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_failure_before_the_view() -> None:
    app = make_app()

    @app.url_value_preprocessor
    def fail(*_: object) -> None:
        raise RuntimeError

    response = app.test_client().get("/healthz")

    assert response.status_code == 500
    assert f"<code>{response.headers['X-Request-ID']}</code>" in response.text


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_headers_of_the_error(accept: str) -> None:
    response = make_app().test_client().delete("/healthz", headers={"Accept": accept})

    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]


def test_description(template: str) -> None:
    """What `abort` says is shown, escaped."""
    app = make_app()
    app.add_url_rule("/own", "own", lambda: abort(404, "No pet <b>7</b> & more"))

    client = app.test_client()
    assert "<p>No pet &lt;b&gt;7&lt;/b&gt; &amp; more</p>" in client.get("/own").text
    as_json = client.get("/own", headers={"Accept": "application/json"}).json
    assert as_json
    assert as_json["detail"] == "No pet <b>7</b> & more"


@pytest.mark.parametrize("limit", ["5 per 1 minute", "100 per 1 hour"])
def test_description_of_a_limit(limit: str, template: str) -> None:
    """Flask-Limiter describes an error by its limit alone, which says nothing to a visitor."""
    app = make_app()
    app.add_url_rule("/pages", "pages", view_func=lambda: abort(400, limit))
    app.add_url_rule("/limited", "limited", lambda: abort(429, limit))
    app.add_url_rule("/own", "own", lambda: abort(429, f"Only {limit}, please."))

    assert f"<p>{ADVICE[429]}</p>" in app.test_client().get("/limited").text
    assert f"<p>{limit}</p>" in app.test_client().get("/pages").text
    assert f"<p>Only {limit}, please.</p>" in app.test_client().get("/own").text


def test_refused_host() -> None:
    client = make_app(TRUSTED_HOSTS="app.example").test_client()

    response = client.get("/count", environ_overrides={"HTTP_HOST": "not a host"})

    assert response.status_code == 400
    assert ADVICE[400] in response.text


# What is an answer already


def test_own_response() -> None:
    app = make_app()

    @app.get("/own")
    def own() -> NoReturn:
        abort(Response("my own", 400))

    @app.get("/carried")
    def carried() -> NoReturn:
        raise NotFound(response=Response("my own", 404))

    @app.get("/gone")
    def gone() -> NoReturn:
        abort(redirect("/there"))

    client = app.test_client()
    for accept in ("text/html", "application/json"):
        assert client.get("/own", headers={"Accept": accept}).text == "my own"
        assert client.get("/carried", headers={"Accept": accept}).text == "my own"
        assert client.get("/folder", headers={"Accept": accept}).headers["Location"].endswith("/folder/")
        assert client.get("/gone", headers={"Accept": accept}).headers["Location"] == "/there"


class SeeOther(HTTPException):
    """A redirect of a team's own."""

    code, description = 303, "It is elsewhere."

    def get_headers(self, *arguments: Any) -> list[tuple[str, str]]:
        """Return where it leads to."""
        return [*super().get_headers(*arguments), ("Location", "/there")]


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_own_redirect(accept: str) -> None:
    """An exception whose status is no error keeps its page."""
    app = make_app()

    @app.get("/own")
    def own() -> NoReturn:
        raise SeeOther

    answer = app.test_client().get("/own", headers={"Accept": accept})

    assert (answer.status_code, answer.headers["Location"]) == (303, "/there")
    assert answer.text == SeeOther().get_body()


def test_path_is_not_in_the_page() -> None:
    page = make_app().test_client().get("/<script>alert(1)</script>?<script>").text

    assert "script" not in page


# JSON (RFC 9457)


@pytest.mark.parametrize(
    ("accept", "as_json"),
    [
        (None, False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("application/json", True),
        ("application/problem+json", True),
        ("application/json, text/plain, */*", True),
        ("application/json;q=0.5, text/html", False),
        ("text/html;q=0.5, application/json", True),
        ("image/png", False),
        ("ä;;", False),
    ],
)
@pytest.mark.parametrize("path", ["/fail/404", "/no/such/page", "/crash"])
def test_accept(accept: str | None, as_json: bool, path: str) -> None:
    headers = {"Accept": accept} if accept else {}

    response = make_app().test_client().get(path, headers=headers)

    assert response.mimetype == (PROBLEM if as_json else "text/html")
    assert response.headers["Vary"] == "Accept"


@pytest.mark.parametrize(("code", "name"), NAMED.items())
def test_problem(code: int, name: str) -> None:
    response = make_app().test_client().get(f"/fail/{code}", headers={"Accept": "application/json"})

    assert response.status_code == code
    assert response.json == {
        "type": "about:blank",
        "title": name,
        "status": code,
        "detail": FOR_PROGRAMS[code],
        "request_id": response.headers["X-Request-ID"],
    }


def test_json_errors() -> None:
    """A blueprint answers with JSON whatever the client accepts; the rest of the app does not."""
    app = make_app()
    api = Blueprint("api", __name__, url_prefix="/api")
    api.register_error_handler(410, lambda error: ("own", error.code))
    secure.json_errors(api)

    @api.get("/missing")
    def missing() -> NoReturn:
        abort(404, "no such pet")

    @api.get("/crash")
    def crash() -> NoReturn:
        raise RuntimeError(KEY)

    @api.route("/form", methods=UNSAFE)
    def form() -> str:
        return ""

    @api.get("/json")
    def malformed() -> str:
        return str(request.get_json(force=True))

    @api.get("/own")
    def own() -> NoReturn:
        abort(410)

    app.register_blueprint(api)
    for code in (404, 500):  # the team's own pages, which are for people
        app.register_error_handler(code, lambda error: (f"<h1>{error.code}</h1>", error.code))
    client = app.test_client()
    answers = [client.get("/api/missing"), client.get("/api/crash"), client.post("/api/form"), client.get("/api/json")]

    assert [answer.status_code for answer in answers] == [404, 500, 400, 400]
    assert [answer.mimetype for answer in answers] == [PROBLEM] * 4
    details = [answer.json["detail"] for answer in answers if answer.json]
    assert details[:2] == ["no such pet", ADVICE[500]]
    assert details[2].startswith("CSRF check failed. The CSRF token is missing.")
    assert "X-CSRFToken" in details[2]
    assert "reload" not in details[3]
    assert client.get("/api/own").text == "own"
    assert client.get("/no").mimetype == "text/html"


# CSRF


def refused(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log says of refused forms."""
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("form refused: ")]


@pytest.mark.parametrize(
    ("form", "reason"),
    [({}, "The CSRF token is missing."), ({"csrf_token": "x"}, "The CSRF token is invalid.")],
)
def test_csrf_token(form: dict[str, str], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    client = make_app().test_client()
    token(client)

    page = client.post("/count", data=form)

    assert page.status_code == 400
    assert f"<p>{FORM_EXPIRED}</p>" in page.text
    assert "CSRF" in page.text
    assert refused(caplog) == [f"form refused: {reason}"]


@pytest.mark.parametrize("referrer", ["https://evil.example/<b>?token=secret", ""])
def test_csrf_referrer(referrer: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the referrer and the host, once a minute."""
    client = make_app().test_client()
    form = {"csrf_token": token(client)}

    pages = [client.post("/count", data=form, headers={"Referer": referrer}).text for _ in range(3)]

    assert all(f"<p>{FORM_ELSEWHERE}</p>" in page and "evil" not in page for page in pages)
    (warning,) = refused(caplog)
    assert "host localhost" in warning
    assert "proxy to send the browser's Host header" in warning
    assert "evil.example" in warning or not referrer
    assert "secret" not in warning
    assert ("a program or a test must send a Referer" in warning) == (not referrer)


@pytest.mark.parametrize(("environment", "advice"), [("production", NEEDS_HTTPS), ("development", FORM_EXPIRED)])
def test_form_over_http(environment: str, advice: str) -> None:
    """In production, a reload helps nobody whose browser does not return the cookie."""
    client: FlaskClient = make_app(APP_ENV=environment).test_client(use_cookies=False)
    form = {"csrf_token": token(client)}

    page = client.post("/count", data=form, base_url="http://localhost").text

    assert advice in page
    assert ("eload" in page) == (environment == "development")


def test_form_posts(caplog: pytest.LogCaptureFixture) -> None:
    client = make_app().test_client()

    assert post(client, token(client)).status_code == 200
    assert refused(caplog) == []
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []
