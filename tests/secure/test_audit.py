"""`flask secure-audit`: what it finds, what it does not, and its exit status."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import release
from apps import KEY, load, with_views
from click.testing import Result
from flask import Blueprint, Flask
from flask.sessions import SecureCookieSessionInterface
from secure import csrf, init_app
from secure.keys.key import generate_key
from secure.status import FOLDER, RELEASE, audit, looser, released
from werkzeug.middleware.proxy_fix import ProxyFix

DAY = 86400
HOSTS = {"TRUSTED_HOSTS": "app.example.org"}
CDN = "https://cdn.example"


def run(
    *arguments: str,
    csp: Mapping[str, list[str]] | None = None,
    headers: Mapping[str, str | None] | None = None,
    config: Mapping[str, object] | None = None,
    **variables: str,
) -> Result:
    """Audit an app with these settings."""
    app = Flask("site", root_path=str(Path.cwd()))
    init_app(app, load(**HOSTS | variables), csp=csp, headers=headers)
    with_views(app).config.update(config or {})
    result = app.test_cli_runner().invoke(audit, arguments)
    assert KEY not in result.output
    return result


def found(*arguments: str, **changes: object) -> dict[str, str]:
    """Return what the audit finds; its exit status says the same."""
    result = run("--json", *arguments, **changes)  # type: ignore[arg-type]
    findings: dict[str, str] = json.loads(result.stdout)["found"]
    assert result.exit_code == bool(findings)
    return findings


@pytest.mark.parametrize("environment", ["production", "development", "testing"])
def test_defaults(environment: str) -> None:
    result = run(APP_ENV=environment)

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith("secure 0.")
    assert "flask 3." in result.stdout
    assert result.stdout.endswith("Nothing found.\n")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("TRUSTED_HOSTS", {"TRUSTED_HOSTS": ""}),
        ("SECRET_KEY_RETENTION", {"SECRET_KEY_RETENTION": "8d"}),
        ("SECRET_KEY_INTERVAL", {"config": {"SECRET_KEY_INTERVAL": 59 * 60}}),
        ("SESSION_ABSOLUTE_TIMEOUT", {"SESSION_ABSOLUTE_TIMEOUT": "31d"}),
        ("MAX_CONTENT_LENGTH", {"MAX_CONTENT_LENGTH": "2000000"}),
        ("MAX_CONTENT_LENGTH", {"config": {"MAX_CONTENT_LENGTH": None}}),
        ("SESSION_READ_SHA1", {"SESSION_READ_SHA1": "1"}),
        ("FORM_ACTION", {"FORM_ACTION": "https://pay.example"}),
        ("CROSS_ORIGIN_OPENER_POLICY", {"CROSS_ORIGIN_OPENER_POLICY": "unsafe-none"}),
        ("HSTS", {"HSTS": "off"}),
        ("HSTS", {"HSTS": "max-age=300"}),
        ("SESSION_COOKIE_SECURE", {"config": {"SESSION_COOKIE_SECURE": False}}),
        ("SESSION_COOKIE_HTTPONLY", {"config": {"SESSION_COOKIE_HTTPONLY": False}}),
        ("SESSION_COOKIE_SAMESITE", {"config": {"SESSION_COOKIE_SAMESITE": "None"}}),
        ("SESSION_COOKIE_DOMAIN", {"config": {"SESSION_COOKIE_DOMAIN": "example.org"}}),
        ("SESSION_COOKIE_NAME", {"config": {"SESSION_COOKIE_NAME": "session"}}),
        ("REMEMBER_COOKIE_SAMESITE", {"config": {"REMEMBER_COOKIE_SAMESITE": None}}),
        ("REMEMBER_COOKIE_DOMAIN", {"config": {"REMEMBER_COOKIE_DOMAIN": "example.org"}}),
        ("PERMANENT_SESSION_LIFETIME", {"config": {"PERMANENT_SESSION_LIFETIME": timedelta(days=31)}}),
        ("SESSION_ABSOLUTE_TIMEOUT", {"config": {"SESSION_ABSOLUTE_TIMEOUT": timedelta(days=31)}}),
        ("MAX_CONTENT_LENGTH", {"config": {"MAX_CONTENT_LENGTH": "1000"}}),
        ("MAX_FORM_MEMORY_SIZE", {"config": {"MAX_FORM_MEMORY_SIZE": None}}),
        ("HSTS", {"config": {"HSTS": None}}),
        ("HSTS", {"config": {"HSTS": "x-max-age=31536000"}}),
        ("WTF_CSRF_METHODS", {"config": {"WTF_CSRF_METHODS": {"POST"}}}),
        ("WTF_CSRF_METHODS", {"config": {"WTF_CSRF_METHODS": None}}),
        ("WTF_CSRF_ENABLED", {"config": {"WTF_CSRF_ENABLED": False}}),
        ("WTF_CSRF_SSL_STRICT", {"config": {"WTF_CSRF_SSL_STRICT": False}}),
        ("X-Frame-Options", {"headers": {"X-Frame-Options": None}}),
        ("Referrer-Policy", {"headers": {"referrer-policy": "unsafe-url"}}),
        ("Strict-Transport-Security", {"headers": {"Strict-Transport-Security": None}}),
        ("Strict-Transport-Security", {"headers": {"strict-transport-security": "max-age=0"}}),
        ("Cross-Origin-Opener-Policy", {"headers": {"Cross-Origin-Opener-Policy": "unsafe-none"}}),
        ("Content-Security-Policy", {"headers": {"Content-Security-Policy": None}}),
        ("Content-Security-Policy", {"headers": {"Content-Security-Policy": "default-src *"}}),
        ("Access-Control-Allow-Origin", {"headers": {"Access-Control-Allow-Origin": "*"}}),
        ("CSP script-src", {"csp": {"script-src": [CDN]}}),
        ("CSP default-src", {"csp": {"default-src": [CDN]}}),
        ("CSP frame-ancestors", {"csp": {"frame-ancestors": [CDN]}}),
        ("SESION_IDLE_TIMEOUT", {"SESION_IDLE_TIMEOUT": "1d"}),
    ],
)
def test_looser(name: str, changes: dict[str, object]) -> None:
    assert list(found(**changes)) == [name]


@pytest.mark.parametrize(
    "changes",
    [
        {"SECRET_KEY_INTERVAL": "1s", "SESSION_IDLE_TIMEOUT": "1h", "SESSION_ABSOLUTE_TIMEOUT": "1d"},
        {"MAX_CONTENT_LENGTH": "1000", "HSTS": "max-age=63072000; includeSubDomains; preload"},
        {"HSTS": 'Max-Age="31536000"', "config": {"FORM_ACTION": None, "SESSION_COOKIE_SAMESITE": "lax"}},
        {"config": {"PERMANENT_SESSION_LIFETIME": timedelta(days=7)}},
        {"config": {"SESSION_COOKIE_SAMESITE": "Strict"}, "csp": {"img-src": ["'self'"]}},
        {"APP_ENV": "development", "TRUSTED_HOSTS": ""},
        {"TRUSTED_PREFIX": "/shop", "TRUSTED_PROXIES": "1"},
        {"csp": {"require-trusted-types-for": ["'script'"], "report-uri": ["/csp"], "upgrade-insecure-requests": []}},
        {"headers": {"x-frame-options": "DENY", "Strict-Transport-Security": "max-age=63072000"}},
    ],
)
def test_stricter(changes: dict[str, object]) -> None:
    assert found(**changes) == {}


def test_text_of_a_header() -> None:
    assert found(headers={"referrer-policy": "unsafe-url"}) == {
        "Referrer-Policy": "'unsafe-url' (default 'same-origin')"
    }


def test_text_of_a_setting() -> None:
    assert found(HSTS="off") == {"HSTS": "'' (default 'max-age=31536000')"}


def test_views_without_a_csrf_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of this app: `csrf` is one object for all apps of a process."""
    monkeypatch.setattr(csrf, "_exempt_views", {"apps.count", "other.view"})

    assert found() == {"csrf.exempt apps.count": "no CSRF check"}


def test_blueprint_without_a_csrf_check() -> None:
    api, other = Blueprint("api", __name__), Blueprint("other", __name__)
    app = Flask("site", root_path=str(Path.cwd()))
    settings = load(**HOSTS)
    init_app(app, settings)
    app.register_blueprint(api)
    csrf.exempt(api)
    csrf.exempt(other)

    with app.app_context():
        assert looser(app, settings) == {"csrf.exempt api": "no CSRF check"}


def test_views_without_a_name() -> None:
    app = Flask("site", root_path=str(Path.cwd()))
    init_app(app, load(**HOSTS))
    app.add_url_rule("/one", "one", partial(str, 1))

    assert app.test_cli_runner().invoke(audit).exit_code == 0


def test_other_sessions() -> None:
    app = Flask("site", root_path=str(Path.cwd()))
    settings = load(**HOSTS)
    init_app(app, settings)
    app.session_interface = SecureCookieSessionInterface()

    with app.app_context():
        assert looser(app, settings) == {"session_interface": "replaced by SecureCookieSessionInterface"}


@pytest.mark.parametrize("name", ["SECRET_KEY", "SECRET_KEY_FALLBACKS", "WTF_CSRF_SECRET_KEY"])
@pytest.mark.parametrize("value", ["dev", b"dev", ["dev", KEY], None, 5])
def test_key_from_elsewhere(name: str, value: object) -> None:
    result = run("--json", config={name: value})

    assert json.loads(result.stdout)["found"] == {f"app.config {name}": "not from the keyring"}


@pytest.mark.parametrize(
    ("options", "proxies"),
    [({"x_for": 1}, "0"), ({"x_for": 1}, "1"), ({"x_host": 1}, "2"), ({"x_for": 0, "x_host": 1}, "2")],
)
def test_another_proxy(options: dict[str, int], proxies: str) -> None:
    app = Flask("site", root_path=str(Path.cwd()))
    settings = load(**HOSTS, TRUSTED_PROXIES=proxies)
    init_app(app, settings)
    with app.app_context():
        assert looser(app, settings) == {}

    app.wsgi_app = ProxyFix(app.wsgi_app, **options)  # type: ignore[method-assign]

    with app.app_context():
        assert list(looser(app, settings)) == ["ProxyFix"]


def test_app_without_this_code() -> None:
    result = Flask("site", root_path=str(Path.cwd())).test_cli_runner().invoke(audit)

    assert (result.exit_code, result.stderr) == (1, "Error: audit: this app does not call secure.init_app\n")


def test_old_key() -> None:
    old = generate_key(int(time.time()) - 401 * DAY).text

    assert found(SECRET_KEY=old) == {"signing key": "401 d old"}
    assert found("--max-age", "402d", SECRET_KEY=old) == {}
    assert found(SECRET_KEY="kIx3v9_Qm7-aZ0yR2tW5uB8cD1eF4gH6jL") == {"signing key": "of unknown age"}


def test_key_of_the_future() -> None:
    future = generate_key(int(time.time()) + 4000 * DAY)

    assert list(found(SECRET_KEY=future.text, SECRET_KEY_FALLBACKS=KEY)) == [f"key {future.fingerprint}"]


def test_accept() -> None:
    result = run(
        "--accept", "HSTS", "--accept", "OTHER", "--accept", "CSP script-src", HSTS="off", csp={"script-src": [CDN]}
    )

    assert (result.exit_code, result.stderr) == (0, "warning: --accept OTHER: not found\n")
    assert result.stdout.endswith("Nothing found.\n")


def test_hint() -> None:
    result = run(csp={"script-src": [CDN]})

    assert result.exit_code == 1
    assert result.stdout.endswith(f"\nCSP script-src: {CDN}\n")
    assert result.stderr == (
        "Error: audit: 1 found\nhint: correct it, or accept it by its name: --accept 'CSP script-src'\n"
    )


def test_facts() -> None:
    facts = json.loads(run("--json", "--accept", "HSTS", HSTS="off").stdout)

    assert facts["accepted"] == ["HSTS"]
    assert facts["environment"] == "production"
    assert facts["keyring"]["keys"][0]["state"] == "signing"
    assert facts["secure"] == released(FOLDER)[0]
    assert {"Python", "flask", "gunicorn"} <= facts["versions"].keys()


# The list of files


def test_list_is_current() -> None:
    """After a change in `secure`: uv run tools/release.py."""
    assert (FOLDER / RELEASE).read_text("utf-8") == release.release()


def test_sha256sum() -> None:
    """The list can be checked without this code."""
    checked = subprocess.run(("sha256sum", "--check", "--quiet", "--strict", RELEASE), cwd=FOLDER, check=True)

    assert checked.returncode == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of `secure`."""
    copy = tmp_path / "secure"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_changed_files(folder: Path) -> None:
    (folder / "web.py").write_text("# changed\n")
    (folder / "tokens.py").unlink()
    (folder / "keys" / "more.py").touch()
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "web.pyc").touch()

    assert released(folder)[1] == {
        "secure/keys/more.py": "not in the release",
        "secure/tokens.py": "missing",
        "secure/web.py": "changed",
    }


def test_links(folder: Path) -> None:
    """Python prefers a package, which may be a link, to a module of that name."""
    (folder.parent / "other").mkdir()
    (folder / "web").symlink_to(folder.parent / "other")
    (folder / "tokens.py").unlink()
    (folder / "tokens.py").symlink_to(folder.parent / "other")

    assert released(folder)[1] == {"secure/tokens.py": "changed", "secure/web": "not in the release"}


def test_code_where_none_is_expected(folder: Path) -> None:
    """Python also imports compiled code that has no source; its own is in `__pycache__` alone."""
    for name in ("__pycache__/more.py", f"keys/{RELEASE}", "more.pyc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()

    assert released(folder)[1] == {
        "secure/__pycache__/more.py": "not in the release",
        f"secure/keys/{RELEASE}": "not in the release",
        "secure/more.pyc": "not in the release",
    }


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\n"])
def test_damaged_list(folder: Path, content: bytes) -> None:
    (folder / RELEASE).write_bytes(content)

    assert released(folder)[1]["secure/web.py"] == "not in the release"


def test_line_endings(folder: Path) -> None:
    """Git may write each line with CR LF."""
    before = released(folder)
    for path in (folder / "web.py", folder / RELEASE):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert released(folder) == before


def test_no_list(folder: Path) -> None:
    (folder / RELEASE).unlink()

    facts, changes = released(folder)

    assert facts["version"] == "unknown"
    assert changes["secure/web.py"] == "not in the release"


@pytest.mark.parametrize(
    ("mode", "folder", "is_found"), [(0o644, 0o755, True), (0o640, 0o755, False), (0o644, 0o750, False)]
)
def test_key_file_of_everyone(mode: int, folder: int, is_found: bool) -> None:
    """A folder that others cannot enter protects the file, too."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # pytest's own folders are private
        Path(place).chmod(folder)
        path = Path(place, "keyring")
        path.write_text(KEY)
        path.chmod(mode)

        assert ("key file" in found(SECRET_KEY="", SECRET_KEY_FILE=str(path))) is is_found
