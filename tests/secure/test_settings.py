"""The environment becomes settings; every problem is told at once, and the start stops."""

import enum
import os
import sys
import traceback
from dataclasses import FrozenInstanceError, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import secure
from flask import Flask
from flask.cli import ScriptInfo
from secure import inherited
from secure.keys.key import generate_key
from secure.keys.keyring import RETENTION
from secure.keys.text import parse_duration
from secure.settings import Settings, SettingsError, host_names

KEY, OLDER = generate_key(1_700_000_000).text, generate_key(1_600_000_000).text
DAY = 86400
HINT = "\nhint: correct {} in the environment or in .env"


def loaded(cls: type[Settings] = Settings, /, **environ: str) -> Any:
    return cls.load({"SECRET_KEY": KEY, **environ}, Path.cwd())


def problems(cls: type[Settings] = Settings, /, **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        loaded(cls, **environ)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


# The environment


@pytest.mark.parametrize(
    ("process", "dotenv", "expected"),
    [
        (None, None, "production"),
        ("", None, "production"),
        ("production", None, "production"),
        ("development", None, "development"),
        ("testing", None, "testing"),
        (" development ", None, "development"),
        (None, "development", "development"),
        (None, "testing", "testing"),
        (None, "", "production"),
        ("testing", "development", "testing"),
        ("production", "development", "production"),
        ("", "development", "production"),
        ("development", "production", "development"),
        (None, "production", "production"),
    ],
)
def test_environment(tmp_path: Path, process: str | None, dotenv: str | None, expected: str) -> None:
    if dotenv is not None:
        (tmp_path / ".env").write_text(f"APP_ENV={dotenv}\n")
    settings = loaded() if process is None else loaded(APP_ENV=process)

    assert settings.environment == expected
    assert settings.production == (expected == "production")


@pytest.mark.parametrize("word", ["prod", "Production", "dev", "DEVELOPMENT", "test", "staging", "1", "on"])
def test_wrong_environment(tmp_path: Path, word: str) -> None:
    expected = ["APP_ENV: must be one of production, development, testing" + HINT.format("APP_ENV")]

    assert problems(APP_ENV=word) == expected
    (tmp_path / ".env").write_text(f"APP_ENV={word}\n")
    assert problems() == expected


@pytest.mark.parametrize(
    ("attribute", "default", "name", "value", "meaning"),
    [
        ("keyring_interval", 5, "SECRET_KEY_INTERVAL", "59m", 59 * 60),
        ("session_store", "signed", "SESSION_STORE", "encrypted", "encrypted"),
        ("session_idle_timeout", 7 * DAY, "SESSION_IDLE_TIMEOUT", "1d", DAY),
        ("session_absolute_timeout", 30 * DAY, "SESSION_ABSOLUTE_TIMEOUT", "90d", 90 * DAY),
        ("session_read_sha1", False, "SESSION_READ_SHA1", "1", True),
        ("session_read_sha1", False, "SESSION_READ_SHA1", "0", False),
        ("trusted_hosts", (), "TRUSTED_HOSTS", "a.example, .B.example,", ("a.example", ".b.example")),
        ("trusted_proxies", 0, "TRUSTED_PROXIES", "2", 2),
        ("max_content_length", 1 << 20, "MAX_CONTENT_LENGTH", "5000", 5000),
        ("trusted_prefix", "", "TRUSTED_PREFIX", "/shop/v1.0", "/shop/v1.0"),
        (
            "form_action",
            (),
            "FORM_ACTION",
            "https://a.example, https://b.example",
            ("https://a.example", "https://b.example"),
        ),
        ("cross_origin_opener_policy", "same-origin", "CROSS_ORIGIN_OPENER_POLICY", "unsafe-none", "unsafe-none"),
        ("hsts", "max-age=31536000", "HSTS", "max-age=1; preload", "max-age=1; preload"),
        ("hsts", "max-age=31536000", "HSTS", "off", ""),
    ],
)
def test_defaults(attribute: str, default: object, name: str, value: str, meaning: object) -> None:
    assert getattr(loaded(), attribute) == default
    assert getattr(loaded(**{name: ""}), attribute) == default
    assert getattr(loaded(**{name: value}), attribute) == meaning


def test_dotenv_and_process(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TRUSTED_PROXIES=1\nMAX_CONTENT_LENGTH=1\n")
    settings = loaded(MAX_CONTENT_LENGTH="2")

    assert (settings.trusted_proxies, settings.max_content_length) == (1, 2)
    assert settings.dotenv == {"TRUSTED_PROXIES": "1", "MAX_CONTENT_LENGTH": "1"}
    assert loaded(APP_ENV="production").dotenv is None
    assert loaded(APP_ENV="production").trusted_proxies == 0


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("example.org", ("example.org",)),
        (" Example.ORG , .b.example ,", ("example.org", ".b.example")),
        ("my_app", ("my_app",)),
        ("localhost,127.0.0.1", ("localhost", "127.0.0.1")),
        ("[::1],[2001:db8::1]", ("[::1]", "[2001:db8::1]")),
        ("[::ffff:127.0.0.1]", ("[::ffff:127.0.0.1]",)),
        ("bücher.example", ("xn--bcher-kva.example",)),
        (".BÜCHER.example", (".xn--bcher-kva.example",)),
        ("例え.テスト", ("xn--r8jz45g.xn--zckzah",)),
        ("xn--strae-oqa.de", ("xn--strae-oqa.de",)),
        (" , ", ()),
    ],
)
def test_host_names(text: str, names: tuple[str, ...]) -> None:
    assert host_names(text) == names


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a.example, https://b.example", "entry 2 is a URL: write the host name alone"),
        ("b.example/path", "entry 1 is a URL"),
        ("b.example:8000", "entry 1 has a port: write the host name without it"),
        ("[::1]:8000", "entry 1 has a port"),
        ("::1", "entry 1 has a port: write the host name without it (IPv6 in brackets: [::1])"),
        ("*.example.org", "entry 1 has a wildcard: write .example.org"),
        ("*", "entry 1 has a wildcard"),
        ("app*.example.org", "entry 1 has a wildcard"),
        ("a\u200cb.example", "entry 1 has a special character"),
        ("a b", "entry 1 is not a host name, such as example.org or .example.org"),
        ("a..b", "entry 1 is not a host name"),
        ("..b", "entry 1 is not a host name"),
        (".", "entry 1 is not a host name"),
        ("a;b", "entry 1 is not a host name"),
        (f"{'a' * 64}.example", "entry 1 is not a host name"),
        ("[1]", "entry 1 is not a host name"),
        ("[x::1]", "entry 1 has a port"),
        ("straße.de", "entry 1 has a special character: write the name as your browser sends it (xn--...)"),
    ],
)
def test_wrong_host_name(text: str, reason: str) -> None:
    """The message says which one is wrong, and why; never its text, which may be a key."""
    (problem,) = problems(TRUSTED_HOSTS=text)

    assert problem.startswith(f"TRUSTED_HOSTS: {reason}")


@pytest.mark.parametrize("name", ["TRUSTED_HOSTS", "FORM_ACTION", "TRUSTED_PROXIES", "HSTS", "SECRET_KEY_INTERVAL"])
def test_key_in_another_variable(name: str) -> None:
    """A key that was pasted into the wrong line is not shown."""
    told = "".join(str(problems(**{name: text})) for text in (KEY, "ec06b6" * 11, f"{KEY};x", f"{KEY}\r\nx"))

    assert "fsk_" not in told.lower()
    assert "ec06b6" not in told


def test_long_international_name() -> None:
    (problem,) = problems(TRUSTED_HOSTS=f"{'ü' * 60}.example")
    assert problem.startswith("TRUSTED_HOSTS: ")


@pytest.mark.parametrize("text", ["-1", "1.5", "1_000", "x", "1" * 13, "٣"])
def test_wrong_number(text: str) -> None:
    expected = "is not a whole number of zero or more"

    assert problems(TRUSTED_PROXIES=text) == [f"TRUSTED_PROXIES: {expected}" + HINT.format("TRUSTED_PROXIES")]


@pytest.mark.parametrize("text", ["/", "shop", "/shop/", "//shop", "/a b", "/shop?x", "https://x/shop"])
def test_wrong_prefix(text: str) -> None:
    (problem,) = problems(TRUSTED_PREFIX=text)

    assert problem.startswith("TRUSTED_PREFIX: is not a path that begins with /")


# Problems

WRONG = {
    "APP_ENV": "prod",
    "SECRET_KEY": f"{OLDER[:-1]}x",
    "SECRET_KEY_FALLBACKS": f"hunter2-hunter2,,{KEY}",
    "SECRET_KEY_RETENTION": "hunter2",
    "SECRET_KEY_INTERVAL": "hunter2",
    "SESSION_STORE": "hunter2",
    "SESSION_IDLE_TIMEOUT": "0d",
    "SESSION_ABSOLUTE_TIMEOUT": "a hunter2",
    "SESSION_READ_SHA1": "hunter2",
    "MAX_CONTENT_LENGTH": "hunter2",
    "TRUSTED_HOSTS": "https://x",
    "TRUSTED_PROXIES": "hunter2",
    "TRUSTED_PREFIX": "hunter2",
    "CROSS_ORIGIN_OPENER_POLICY": "hunter2",
}
"""Every one of them is wrong."""


def test_every_problem() -> None:
    """All are told at once, each as `NAME: reason` and a hint, and none shows a value."""
    told = problems(**WRONG)

    assert {problem.split()[0].rstrip(":") for problem in told} == set(WRONG)
    assert len(told) == len(WRONG) + 1
    without_hint = [problem for problem in told if "\nhint: " not in problem and "SESSION_STORE" not in problem]
    assert without_hint == []
    with pytest.raises(SettingsError) as caught:
        loaded(**WRONG)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "hunter2" not in shown
    assert KEY not in shown
    assert OLDER[:-1] not in shown


def test_unreadable_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe")

    (problem,) = problems()
    assert problem.startswith(f"cannot read {tmp_path / '.env'}: not UTF-8 text")
    assert "\nhint: save the file as UTF-8" in problem
    assert loaded(APP_ENV="production").production


def test_no_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SettingsError, match="working directory: it no longer exists"):
        Settings.load({"SECRET_KEY": KEY})


def test_idle_timeout_and_retention() -> None:
    """A retired key verifies as long as a session lives."""
    assert loaded(SESSION_IDLE_TIMEOUT="7d").keyring.retention == RETENTION == 7 * DAY
    assert loaded(SESSION_IDLE_TIMEOUT="30d", SECRET_KEY_RETENTION="30d").session_idle_timeout == 30 * DAY
    assert problems(SESSION_IDLE_TIMEOUT="8d") == [
        "SECRET_KEY_RETENTION: is shorter than SESSION_IDLE_TIMEOUT\n"
        "hint: set SECRET_KEY_RETENTION to at least SESSION_IDLE_TIMEOUT"
    ]


def test_interval() -> None:
    """The file is looked at more often than a rotation takes."""
    reason = "SECRET_KEY_INTERVAL: must be shorter than 1 h"
    assert problems(SECRET_KEY_INTERVAL="1h") == [f"{reason}\nhint: write a shorter one, such as 5s"]


@pytest.mark.parametrize("name", ["SECRET_KEY_INTERVAL", "SESSION_IDLE_TIMEOUT", "SESSION_ABSOLUTE_TIMEOUT"])
def test_wrong_duration(name: str) -> None:
    """One problem is reported for it, and none for what would compare it."""
    (problem,) = problems(**{name: "soon"})
    assert problem.startswith(f"{name}: must be a number with a unit")


@pytest.mark.parametrize("value", ["1", "true", "yes", "on"])
def test_debug(value: str) -> None:
    hint = "unset FLASK_DEBUG and run without --debug"
    expected = [f"FLASK_DEBUG: must be off in production\nhint: {hint}"]

    assert problems(FLASK_DEBUG=value, APP_ENV="production") == expected
    expected[0] += "; on your own machine, set APP_ENV=development in .env instead"
    assert problems(FLASK_DEBUG=value) == expected
    assert loaded(FLASK_DEBUG=value, APP_ENV="development").environment == "development"
    for off in ("", "0", "false", "No"):
        assert loaded(FLASK_DEBUG=off).production
    with click.Context(click.Command("run")) as command:
        assert loaded().production
        command.params["debugger"] = True
        assert loaded(APP_ENV="testing").environment == "testing"
        assert problems() == expected


def test_foreign_dotenv(tmp_path: Path) -> None:
    """It is told alone: it may be the cause of other problems."""
    (tmp_path / ".env").write_text("TRUSTED_PROXIES=x\n")
    with click.Context(click.Command("flask"), obj=ScriptInfo()), pytest.raises(SettingsError) as caught:
        Settings.load({"SECRET_KEY": "short", "TRUSTED_PROXIES": "x"}, tmp_path / "project")

    assert [problem.partition("\n")[0] for problem in caught.value.problems] == [
        f"{tmp_path / '.env'}: Flask has read this .env of another folder"
    ]


# Warnings


def test_notices() -> None:
    (level, keys), (warning_level, hosts) = loaded().notices(1_800_000_000)

    assert keys == f"Secret key: {loaded().keyring.keys[0].fingerprint} signing (from the process environment)"
    assert hosts == "TRUSTED_HOSTS: not set, so every host name is served"
    assert (level, warning_level) == (20, 30)
    assert len(loaded(TRUSTED_HOSTS="a.example").notices(0)) == 1
    assert len(loaded(APP_ENV="testing").notices(0)) == 1


def test_ignored_key(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"SECRET_KEY={OLDER}\nAPP_ENV=testing\n")
    (warning,) = loaded().warnings

    assert warning.startswith("SECRET_KEY: ignored in the process environment")
    assert loaded(SECRET_KEY=OLDER).warnings == ()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TRUSTED_HOST", "TRUSTED_HOSTS"),
        ("SESSION_IDLE_TIMOUT", "SESSION_IDLE_TIMEOUT"),
        ("SECRET_KEY_FALLBACK", "SECRET_KEY_FALLBACKS"),
        ("SECRET_KEY_RETENTON", "SECRET_KEY_RETENTION"),
        ("PAGE_SIZES", "PAGE_SIZE"),
        ("DATABASE_URL", ""),
        ("SESSION_MANAGER", ""),
        ("SECRET_KEY_BASE", ""),
        ("PATHS", ""),
        ("PAGE_SIZE", ""),
    ],
)
def test_misspelt(tmp_path: Path, name: str, meant: str) -> None:
    class Ours(Settings):
        page_size: int = secure.setting(20)
        path: str = secure.setting("")

    expected = [f"{name}: unknown setting\nhint: did you mean {meant}?"] if meant else []

    assert list(loaded(Ours, APP_ENV="testing", **{name: "1"}).warnings) == expected
    (tmp_path / ".env").write_text(f"{name}=1\n")
    assert list(loaded(Ours, APP_ENV="testing").warnings) == expected


# A team's settings


class Color(enum.Enum):
    """An example."""

    RED = "red"
    BLUE = "blue"


def even(text: str) -> int:
    if int(text, 16) % 2:
        raise ValueError("is odd")
    return int(text, 16)


def team() -> type[Settings]:
    """Return a class that is made now, with a setting of each kind."""

    class Team(Settings):
        """A setting of each kind."""

        database_url: str = secure.setting(secret=True)
        page_size: int = secure.setting(20)
        ratio: float = secure.setting(0.5)
        banner: bool = secure.setting(False)
        folder: Path = secure.setting(Path("files"))
        color: Color = secure.setting(Color.RED)
        names: tuple[str, ...] = secure.setting(())
        numbers: tuple[int, ...] = secure.setting((1,))
        limit: int | None = secure.setting(None)
        even: int = secure.setting(2, parse=even)
        sentry_dsn: str = secure.setting("", required_in_production=True)
        mail: str = secure.setting("mailhog", name="SMTP_HOST")
        tokens: tuple[str, ...] = secure.setting((), secret=True)
        pin: int = secure.setting(1234, secret=True)

    return Team


SET = {"DATABASE_URL": "postgres://ann:hunter2@db/shop", "SENTRY_DSN": "x"}


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("DATABASE_URL", "hunter2", "database_url", "hunter2"),
        ("PAGE_SIZE", "7", "page_size", 7),
        ("RATIO", "1.5", "ratio", 1.5),
        ("BANNER", "Yes", "banner", True),
        ("BANNER", "off", "banner", False),
        ("FOLDER", "/a/b", "folder", Path("/a/b")),
        ("COLOR", "blue", "color", Color.BLUE),
        ("NAMES", "a, b,,c ", "names", ("a", "b", "c")),
        ("NUMBERS", "1,2", "numbers", (1, 2)),
        ("LIMIT", "3", "limit", 3),
        ("EVEN", "ff0", "even", 0xFF0),
        ("SMTP_HOST", "smtp", "mail", "smtp"),
        ("TOKENS", "hunter2,hunter3", "tokens", ("hunter2", "hunter3")),
        ("PIN", "99", "pin", 99),
        ("PAGE_SIZE", "", "page_size", 20),
        ("LIMIT", "", "limit", None),
        ("TOKENS", "", "tokens", ()),
    ],
)
def test_kinds(name: str, text: str, attribute: str, value: object) -> None:
    settings = loaded(team(), **{**SET, name: text})

    assert getattr(settings, attribute) == value
    assert settings.flask_config()[name] == value


@pytest.mark.parametrize("word", ["1", "true", "yes", "on", "0", "false", "no", "off", "TRUE", "Off"])
def test_words(word: str) -> None:
    assert loaded(SESSION_READ_SHA1=word).session_read_sha1 is (word.lower() in {"1", "true", "yes", "on"})


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("PAGE_SIZE", "x", "is not a whole number, such as 20"),
        ("RATIO", "x", "is not a number, such as 1.5"),
        ("BANNER", "x", "must be one of 1, true, yes, on, 0, false, no, off"),
        ("COLOR", "green", "must be one of red, blue"),
        ("NUMBERS", "1,x", "is not a whole number, such as 20"),
        ("LIMIT", "x", "is not a whole number, such as 20"),
        ("EVEN", "1", "is odd"),
        ("PIN", "hunter2", "is not valid"),
    ],
)
def test_wrong_kinds(name: str, text: str, reason: str) -> None:
    assert problems(team(), **{**SET, name: text}) == [f"{name}: {reason}" + HINT.format(name)]


def test_missing() -> None:
    """A required setting, and one that is required in production only, are told with the other problems."""
    told = problems(team(), PAGE_SIZE="x")

    assert [problem.partition("\n")[0] for problem in told] == [
        "DATABASE_URL: missing",
        "PAGE_SIZE: is not a whole number, such as 20",
        "SENTRY_DSN: missing in production",
    ]
    assert told[0].endswith("\nhint: set DATABASE_URL in the environment or in .env")
    told = problems(team(), APP_ENV="production")
    assert told[0].endswith("\nhint: set DATABASE_URL in the process environment"), ".env is not read"
    assert loaded(team(), APP_ENV="development", DATABASE_URL="x").sentry_dsn == ""
    assert len(problems(team(), APP_ENV="development")) == 1


def test_masked() -> None:
    settings = loaded(team(), **SET, TOKENS="hunter2,hunter3", PIN="987654", SECRET_KEY_FALLBACKS=OLDER)
    app = Flask("app")
    app.config.from_mapping(settings.flask_config())

    for shown in (repr(settings), str(settings), repr(app.config)):
        assert "hunter" not in shown
        assert KEY not in shown
        assert OLDER not in shown
    assert "987654" not in repr(settings)
    assert "page_size=20" in repr(settings), "a control"
    assert repr(settings.mail) == "'mailhog'", "a control: a default that is no secret"
    assert repr(loaded(team(), **SET, SMTP_HOST="mail").mail) == "'mail'", "a control: a value that is no secret"
    assert f"{app.config['DATABASE_URL']}" == SET["DATABASE_URL"]
    assert repr(settings.database_url) == "'***'"
    assert settings.tokens == ("hunter2", "hunter3")


def test_masked_dotenv(tmp_path: Path) -> None:
    """The settings keep all of `.env`, for the workers of a gunicorn master."""
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"APP_ENV=development\nSECRET_KEY={KEY}\nSMTP_PASSWORD=hunter2\n")
    dotenv.chmod(0o600)
    settings = Settings.load({}, tmp_path)

    assert settings.dotenv
    assert settings.dotenv["SMTP_PASSWORD"] == "hunter2"
    assert "hunter2" not in repr(settings)
    assert KEY not in repr(settings)


def test_masked_session_store() -> None:
    """Its address may have a password."""
    settings = loaded(SESSION_STORE="encrypted")

    assert repr(settings.session_store) == repr(loaded().session_store) == "'***'"
    assert "encrypted" not in repr(settings)


def test_masked_default() -> None:
    class Ours(Settings):
        token: str = secure.setting("hunter2", secret=True)

    assert repr(loaded(Ours).token) == "'***'"
    assert loaded(Ours).token == "hunter2"


def test_session_store_password() -> None:
    pytest.importorskip("redis")
    environ = {"SECRET_KEY": KEY, "SESSION_STORE": "redis://:hunter2@127.0.0.1:1"}
    (problem,) = problems(**environ)
    assert "hunter2" not in problem
    assert "does not answer" in problem


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        loaded(team(), **SET).page_size = 1


def test_inheritance() -> None:
    class Base(Settings):
        a: int = secure.setting(1)

    class Mixin(Settings):
        c: bool = secure.setting(False)

    class Ours(Base, Mixin):
        b: int = secure.setting(2)
        a: str = secure.setting("3")  # type: ignore[assignment]

    settings = loaded(Ours, B="5")
    assert (settings.a, settings.b, loaded(Ours, A="4").a, loaded(Base, A="4").a) == ("3", 5, "4", 4)
    assert loaded(Ours, C="1").c is True
    assert settings.flask_config()["B"] == 5


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("x: list[str] = secure.setting(())", "x: list[str] needs setting(parse=...)"),
        ("x: dict = secure.setting(None)", "needs setting(parse=...)"),
        ("x: tuple[str, int] = secure.setting(())", "needs setting(parse=...)"),
        ("x: int | str = secure.setting(1)", "needs setting(parse=...)"),
        ("x: int | str | None = secure.setting(1)", "needs setting(parse=...)"),
        ("x: 'Unknown' = secure.setting(1)", "x: Unknown needs setting(parse=...)"),
        ("x: str", "x: declare it with setting()"),
        ("x: str = 'y'", "x: declare it with setting()"),
        ("session_store: str = 'encrypted'", "session_store: declare it with setting()"),
        ("x = secure.setting(1)", "'x' is a field but has no type annotation"),
        ("x: list[str] = secure.setting([])", "the default of a setting must not change: write a tuple"),
        ("x: dict = secure.setting({})", "the default of a setting must not change: write a tuple"),
    ],
)
def test_unsupported(line: str, error: str) -> None:
    """A mistake in a declaration is an error when the class is created."""
    with pytest.raises(TypeError) as caught:
        exec(f"class Ours(secure.Settings):\n    {line}", {"secure": secure, "__name__": __name__})  # noqa: S102
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FORM_ACTION", "https://a; script-src *"),
        ("FORM_ACTION", "https://a.example/;script-src"),
        ("FORM_ACTION", "https://a.example\nhttps://b.example"),
        ("FORM_ACTION", "https://a.example https://b.example"),
        ("FORM_ACTION", "https://\u65e5\u672c.example"),
        ("HSTS", "max-age=1\nX: y"),
        ("HSTS", "\u00fc"),
        ("HSTS", "includeSubDomains"),
        ("HSTS", "\u65e5"),
    ],
)
def test_value_of_no_header(name: str, value: str) -> None:
    """Else every response would be an error, or a policy would have a directive more."""
    (problem,) = problems(SECRET_KEY=KEY, **{name: value})

    assert problem.startswith(f"{name}: ")
    assert f"\nhint: correct {name} in " in problem


@pytest.mark.parametrize("error", [KeyError, ArithmeticError, RuntimeError, ValueError])
@pytest.mark.parametrize("secret", [True, False])
def test_parser_that_fails(error: type[Exception], secret: bool) -> None:
    """An edit of `.env` must not end a server, and the message shows no secret."""

    def parse(text: str) -> object:
        raise error(text)

    class Ours(Settings):
        zone: object = secure.setting(None, secret=secret, parse=parse)

    with pytest.raises(SettingsError) as caught:
        loaded(Ours, ZONE="hunter2")

    reason = "hunter2" if error is ValueError and not secret else "is not valid"
    assert caught.value.message.startswith(f"ZONE: {reason}\n")


@pytest.mark.parametrize(
    "name",
    ["session_cookie_samesite", "permanent_session_lifetime", "testing", "max_form_parts", "secret_key", "debug"],
)
def test_computed_name(name: str) -> None:
    """Else the value would be ignored, or would weaken what the app computes."""
    ours = type("Ours", (Settings,), {"__annotations__": {name: str}, name: secure.setting("x"), "__module__": "a"})

    with pytest.raises(
        TypeError, match=rf"^{name.upper()}: a setting cannot have this name(?s:.*)\nhint: (to change it|set|remove)"
    ):
        secure.init_app(Flask("site"), loaded(ours))


@pytest.mark.parametrize(
    "name",
    [
        *("production", "load", "notices", "flask_config"),
        *("keyring", "keyring_source", "keyring_identity", "dotenv", "warnings"),
    ],
)
def test_name_in_use(name: str) -> None:
    """Else `production: bool = setting(False)` would take the protection of production away."""
    with pytest.raises(TypeError, match=f"^{name}: a setting cannot have this name, because its base class uses it$"):
        type("Ours", (Settings,), {"__annotations__": {name: str}, name: secure.setting("x"), "__module__": "a"})


def test_setting_in_another_class() -> None:
    """A class that is no dataclass would leave it a field object that nobody reads."""
    mixin = type("Database", (), {"url": secure.setting("")})
    for bases in ((mixin, Settings), (Settings, mixin)):
        with pytest.raises(TypeError, match=r"^url: declare it in a class derived from Settings, not in Database$"):
            type("Ours", bases, {"__module__": "a"})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SESSION_COOKIE_SAMESITE", "to change it, set it in app.config after secure.init_app"),
        ("PERMANENT_SESSION_LIFETIME", "set SESSION_IDLE_TIMEOUT"),
    ],
)
def test_variable_without_effect(name: str, hint: str, tmp_path: Path) -> None:
    """Else a team believes that it has set it."""
    expected = (f"variable {name}: has no effect, because the app computes it\nhint: {hint}",)
    (tmp_path / ".env").write_text(f"{name}=Strict\n")

    assert loaded(TRUSTED_HOSTS="a.example", APP_ENV="testing").warnings == expected
    (tmp_path / ".env").unlink()
    assert loaded(TRUSTED_HOSTS="a.example", **{name: "Strict"}).warnings == expected


@pytest.mark.parametrize("name", ["PORT", "WEB_CONCURRENCY", "WEB_THREADS"])
def test_variable_of_gunicorn(name: str, tmp_path: Path) -> None:
    assert loaded(APP_ENV="testing", **{name: "8080"}).warnings == ()
    (tmp_path / ".env").write_text(f"{name}=8080\n")

    expected = f"variable {name}: has no effect in .env\nhint: set it in the process environment"
    assert loaded(APP_ENV="testing").warnings == (expected,)
    assert loaded(APP_ENV="testing", **{name: "8080"}).warnings == (), "gunicorn reads that one"


def test_usual_variables() -> None:
    """What machines set for other programs is no mistake."""
    usual = dict.fromkeys(["CI", "TESTING", "DEBUG", "PORT", "HOST", "SERVER_SOFTWARE", "SESSION_MANAGER"], "1")
    assert loaded(APP_ENV="testing", **usual).warnings == ()


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A dataclass with settings, for several classes."""

    mail_password: str = secure.setting("", secret=True)
    mail_timeout: int = secure.setting(60, parse=parse_duration)


Seconds = int


class WithMail(Mail, Settings):
    """Another default of a setting from another dataclass, and another name of its type."""

    mail_password: str = secure.setting("hunter2")
    session_idle_timeout: Seconds = secure.setting(DAY)


def test_settings_of_a_dataclass() -> None:
    settings = loaded(WithMail, MAIL_TIMEOUT="2m", SESSION_IDLE_TIMEOUT="12h")

    assert "hunter" not in repr(settings) + repr(settings.flask_config())
    assert (settings.mail_password, settings.mail_timeout) == ("hunter2", 120)
    assert settings.session_idle_timeout == DAY // 2


class OtherDefaults(Settings):
    """A line for each kind of setting, with another default."""

    session_store: str = secure.setting("encrypted")
    session_idle_timeout: int = secure.setting(DAY)
    keyring_interval: int = secure.setting(30)
    trusted_hosts: tuple[str, ...] = secure.setting(("localhost",))
    token: str = secure.setting("hunter2", secret=True, name="API_TOKEN")


class StillOtherDefaults(OtherDefaults):
    """A default that is secret because the one before it is."""

    token: str = secure.setting("hunter3")


class Changed(OtherDefaults):
    """Lines that say something else of a setting: that counts."""

    token: str = secure.setting("open", secret=False)
    trusted_hosts: int = secure.setting(3)  # type: ignore[assignment]


def test_another_default() -> None:
    """A line with another default keeps the parser, the variable, and what is secret."""
    settings = loaded(OtherDefaults)
    assert (settings.session_store, settings.session_idle_timeout) == ("encrypted", DAY)
    assert (settings.keyring_interval, settings.trusted_hosts) == (30, ("localhost",))

    settings = loaded(OtherDefaults, SESSION_IDLE_TIMEOUT="12h", SECRET_KEY_INTERVAL="3s", TRUSTED_HOSTS="Desk.example")
    assert (settings.session_idle_timeout, settings.keyring_interval) == (DAY // 2, 3)
    assert settings.trusted_hosts == ("desk.example",)
    assert problems(OtherDefaults, TRUSTED_HOSTS="https://desk.example")

    assert loaded(Changed).token == "open"
    assert "open" in repr(loaded(Changed))
    assert loaded(Changed, TRUSTED_HOSTS="5").trusted_hosts == 5
    settings = loaded(StillOtherDefaults)
    assert settings.token == "hunter3"
    assert "hunter" not in repr(settings) + repr(settings.flask_config())
    assert loaded(StillOtherDefaults, API_TOKEN="hunter4").token == "hunter4"
    address = "redis://:hunter5@127.0.0.1:1/0"
    assert "hunter5" not in repr(replace(settings, session_store=address))


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_config_module(future: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A team's config.py, with annotations as strings and names of its own."""
    source = future + (
        "import enum\n"
        "from typing import Literal\n"
        "import secure\n"
        "class Tone(enum.Enum): LOW = 'low'; HIGH = 'high'\n"
        "class Level(int): pass\n"
        "if False: from somewhere import Address\n"
        "class Settings(secure.Settings):\n"
        "    tone: Tone = secure.setting(Tone.LOW)\n"
        "    size: 'int' = secure.setting(20)\n"
        "    token: str = secure.setting()\n"
        "    names: tuple[str, ...] = secure.setting(())\n"
        "    mode: Literal['a', 'b'] = secure.setting('a')\n"
        "    level: Level = secure.setting(Level(1), parse=Level)\n"
        "    limit: int | None = secure.setting(None)\n"
        "    address: 'Address' = secure.setting('', parse=str.upper)\n"
    )
    module = ModuleType("team_config")
    monkeypatch.setitem(sys.modules, "team_config", module)
    exec(compile(source, "config.py", "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    settings = loaded(
        module.Settings, TOKEN="x", TONE="high", SIZE="3", NAMES="a,b", MODE="b", LEVEL="2", LIMIT="4", ADDRESS="x"
    )
    assert settings.address == "X"

    assert (settings.size, settings.names, settings.mode, settings.limit) == (3, ("a", "b"), "b", 4)
    assert type(settings.level).__name__ == "Level"
    assert settings.tone is module.Tone.HIGH
    assert problems(module.Settings, TOKEN="x", MODE="c") == ["MODE: must be one of a, b" + HINT.format("MODE")]


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_subclass_in_another_module(future: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own objects with the names of the base's annotations change nothing for the base."""
    base = "import secure\nfrom typing import Literal as Word\nclass Base(secure.Settings):\n    color: Word['red']"
    texts = {
        "base": f"{future}{base} = secure.setting('red')\n    hosts: int = secure.setting(3)\n",
        "other": f"{future}import secure\nfrom base import Base\nWord = dict\nclass Other(Base):\n"
        "    queue: str = secure.setting('q')\n    hosts: int = secure.setting(4)\n"
        "    session_idle_timeout: int = secure.setting(9)\n",
    }
    for name, text in texts.items():
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)  # noqa: S102

    for cls in (sys.modules["base"].Base, sys.modules["other"].Other):
        assert problems(cls, COLOR="7") == ["COLOR: must be one of red" + HINT.format("COLOR")]
    assert loaded(sys.modules["other"].Other, SESSION_IDLE_TIMEOUT="2m").session_idle_timeout == 120
    assert loaded(sys.modules["other"].Other).hosts == 4


# What a gunicorn master hands to its workers


def test_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker starts with the `.env` and the keyring that its master validated last, whatever the files say now."""
    dotenv = f"SECRET_KEY={KEY}\nSECRET_KEY_FALLBACKS={OLDER}\nSECRET_KEY_RETENTION=30d\nTRUSTED_PROXIES=1\n"
    path = tmp_path / ".env"
    path.write_text(dotenv)
    master = Settings.load({}, tmp_path)
    monkeypatch.setattr(inherited, "last_valid", (master.dotenv, tuple(key.text for key in master.keyring.keys)))
    monkeypatch.setenv("MAX_CONTENT_LENGTH", "7")
    for text in ("SECRET_KEY=changeme\nTRUSTED_PROXIES=x\n", ""):
        path.write_text(text)
        worker = Settings.load(root=tmp_path)
        assert worker.keyring == master.keyring
        assert (worker.trusted_proxies, worker.max_content_length) == (1, 7)
        assert repr(worker.keyring_source) == str(path)
        assert worker.keyring_identity == (), "its watcher reads the file at the first look"

    path.write_text(f"SECRET_KEY={KEY}\n")
    assert Settings.load({}, tmp_path).trusted_proxies == 0, "the master itself"
    monkeypatch.setattr(inherited, "last_valid", None)
    assert Settings.load(root=tmp_path).trusted_proxies == 0, "a process without a master"


def test_inherited_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setattr(inherited, "last_valid", (None, (KEY, OLDER)))
    worker = Settings.load(root=tmp_path)

    assert [key.text for key in worker.keyring.keys] == [KEY, OLDER]
    assert [key.activation for key in worker.keyring.keys] == [1_700_000_000, 1_600_000_000]
    assert repr(worker.keyring_source) == "the process environment"


@pytest.mark.parametrize("in_dotenv", [True, False])
def test_store_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_dotenv: bool) -> None:
    """A worker starts also while the session store is away; a master at a reload, if the store is the same."""
    pytest.importorskip("redis")
    store, other = "redis://127.0.0.1:1", "redis://127.0.0.1:2"

    def load(address: str, environ: dict[str, str] | None = None) -> str:
        place = {"SECRET_KEY": KEY, "SESSION_STORE": address}
        if in_dotenv:
            (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in place.items()))
            return str(Settings.load({}, tmp_path).session_store)
        return str(Settings.load({"APP_ENV": "testing", **place}, tmp_path).session_store)

    with pytest.raises(SettingsError, match="does not answer"):
        load(store)
    monkeypatch.setenv("APP_ENV", "testing")
    dotenv = {"SECRET_KEY": KEY, "SESSION_STORE": store} if in_dotenv else {}
    monkeypatch.setattr(inherited, "last_valid", (dotenv, (KEY,)))
    if not in_dotenv:
        monkeypatch.setenv("SECRET_KEY", KEY)
        monkeypatch.setenv("SESSION_STORE", store)
    assert Settings.load(root=tmp_path).session_store == store
    assert load(store) == store
    if in_dotenv:
        with pytest.raises(SettingsError, match="does not answer"):
            load(other)


def test_process_untouched(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("APP_ENV=development\nOTHER=1\n")
    before = dict(os.environ)
    loaded()

    assert dict(os.environ) == before


def test_flask_config() -> None:
    development, production = (
        loaded(APP_ENV="development", TRUSTED_PREFIX="/shop").flask_config(),
        loaded(MAX_CONTENT_LENGTH="9").flask_config(),
    )

    assert (development["TRUSTED_PREFIX"], production["TRUSTED_PREFIX"]) == ("/shop", "")
    assert (development["SESSION_COOKIE_SECURE"], production["SESSION_COOKIE_SECURE"]) == (False, True)
    assert (development["PREFERRED_URL_SCHEME"], production["PREFERRED_URL_SCHEME"]) == ("http", "https")
    assert (development["APP_ENV"], production["APP_ENV"]) == ("development", "production")
    assert [loaded(APP_ENV=name).flask_config()["TESTING"] for name in ("testing", "production")] == [True, False]
    for values in (development, production):
        for kind in ("SESSION", "REMEMBER"):
            assert values[f"{kind}_COOKIE_SECURE"] is (values is production)
            assert values[f"{kind}_COOKIE_HTTPONLY"] is True
            assert values[f"{kind}_COOKIE_SAMESITE"] == "Lax"
        assert values["TRUSTED_HOSTS"] is values["WTF_CSRF_TIME_LIMIT"] is None
        assert values["MAX_FORM_PARTS"] == 200
        assert values["PERMANENT_SESSION_LIFETIME"] == values["SESSION_IDLE_TIMEOUT"] == 7 * DAY
    assert production["MAX_FORM_MEMORY_SIZE"] == production["MAX_CONTENT_LENGTH"] == 9
    assert production["SESSION_STORE"] == "signed"
    store = replace(loaded(), session_store="redis://:hunter2@127.0.0.1").flask_config()["SESSION_STORE"]
    assert store == "redis", "its address may have a password"
