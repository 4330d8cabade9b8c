"""Error pages: readable, the same everywhere, and silent about the cause."""

from typing import NoReturn

import pytest
from apps import KEY, make_app
from flask import Response, abort
from markupsafe import escape
from package import ADVICE, NAME
from werkzeug.exceptions import NotFound

ENVIRONMENTS = pytest.mark.parametrize("environment", ["production", "development"])

NAMED = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@ENVIRONMENTS
@pytest.mark.parametrize(("code", "name"), NAMED.items())
def test_an_error_has_a_page_that_says_what_to_do(environment: str, code: int, name: str) -> None:
    response = make_app(APP_ENV=environment).test_client().get(f"/fail/{code}")

    assert response.status_code == code
    assert response.mimetype == "text/html"
    assert '<html lang="en">' in response.text
    assert f"<h1>{name}</h1>" in response.text
    assert f"<p>{ADVICE[code]}</p>" in response.text
    assert f"<title>{name} " in response.text
    assert '<a href="/">Back to the start</a>' in response.text


def test_every_page_has_the_name_of_the_project_escaped() -> None:
    assert str(escape(NAME)) in make_app().test_client().get("/fail/404").text


def test_an_error_that_is_not_named_has_a_page_too() -> None:
    response = make_app().test_client().get("/fail/418")

    assert response.status_code == 418
    assert "Go back and try again." in response.text


@ENVIRONMENTS
def test_a_failure_shows_an_id_and_not_the_cause(environment: str) -> None:
    response = make_app(APP_ENV=environment).test_client().get("/crash")

    assert response.status_code == 500
    assert f"<code>{response.headers['X-Request-ID']}</code>" in response.text
    assert not any(word in response.text for word in ("RuntimeError", "the cause", "Traceback", KEY))


def test_a_failure_before_the_app_has_begun_shows_an_id_as_well() -> None:
    app = make_app()

    @app.url_value_preprocessor
    def fail(*_: object) -> None:
        raise RuntimeError

    response = app.test_client().get("/healthz")

    assert response.status_code == 500
    assert f"<code>{response.headers['X-Request-ID']}</code>" in response.text


def test_only_a_failure_shows_an_id() -> None:
    response = make_app().test_client().get("/fail/404")

    assert response.headers["X-Request-ID"] not in response.text


def test_the_page_keeps_what_the_error_says_in_headers() -> None:
    response = make_app().test_client().delete("/healthz")

    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]


def test_an_error_under_a_prefix_links_to_the_start_there() -> None:
    page = make_app().test_client().get("/fail/404", base_url="https://localhost/prefix").text

    assert 'href="/prefix/"' in page
    assert 'href="/prefix/static/style.css"' in page


def test_a_refused_host_gets_a_page() -> None:
    client = make_app(TRUSTED_HOSTS="app.example").test_client()

    response = client.get("/count", environ_overrides={"HTTP_HOST": "not a host"})

    assert response.status_code == 400
    assert ADVICE[400] in response.text


def test_a_response_of_the_apps_own_is_left_alone() -> None:
    app = make_app()

    @app.get("/own")
    def own() -> NoReturn:
        abort(Response("my own", 400))

    @app.get("/there/")
    def there() -> str:
        return ""

    client = app.test_client()
    assert client.get("/own").text == "my own"
    assert client.get("/there").headers["Location"].endswith("/there/")


def test_an_error_that_brings_a_response_keeps_it() -> None:
    app = make_app()

    @app.get("/own")
    def own() -> NoReturn:
        raise NotFound(response=Response("my own", 404))

    assert app.test_client().get("/own").text == "my own"


def test_a_path_is_not_written_into_a_page() -> None:
    page = make_app().test_client().get("/<script>alert(1)</script>?<script>").text

    assert "script" not in page
