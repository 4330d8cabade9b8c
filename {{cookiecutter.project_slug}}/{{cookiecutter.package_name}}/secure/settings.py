"""How a setting is declared, in one line, and the settings that `secure` needs; a team's `config.py` adds its own.

    database_url: str = setting(secret=True)                     required: the variable DATABASE_URL
    page_size: int = setting(20)                                 with a default
    sentry_dsn: str = setting("", required_in_production=True)   required in production only

All settings are validated together: each problem names the variable, the reason and a hint, never a value.
Needs no Flask.
"""

import enum
import logging
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, dataclass_transform, overload

import click

from . import inherited, store_address
from .keys.environment import APP_ENV, KEY_NAMES, PRODUCTION, Environment, read_environment
from .keys.files import FileError
from .keys.key import Key
from .keys.key_format import activation_of
from .keys.keyring import ACTIVATION_DELAY, InvalidKeyringError, Keyring
from .keys.project import ProjectError, foreign_dotenv, project_root
from .keys.sources import RETENTION_SETTING, Source, find_source, load_keyring, retention
from .keys.text import SecretStr, format_duration, message, parse_duration

DEVELOPMENT = "development"
TESTING = "testing"
DAY = 86400
_HOST = re.compile(r"\.?[\w-]{1,63}(\.[\w-]{1,63})*")
_IPV6 = re.compile(r"\[[0-9a-f]*:[0-9a-f:.]+\]")
T = TypeVar("T")
Parser = Callable[[str], Any]
WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@overload
def setting(
    default: T,
    *,
    secret: bool = ...,
    required_in_production: bool = ...,
    parse: Callable[[str], T] | None = ...,
    name: str = ...,
) -> T: ...
@overload
def setting(*, secret: bool = ..., parse: Callable[[str], T], name: str = ...) -> T: ...
@overload
def setting(*, secret: bool = ..., name: str = ...) -> Any: ...


def setting(
    default: Any = MISSING,
    *,
    secret: bool = False,
    required_in_production: bool = False,
    parse: Parser | None = None,
    name: str = "",
) -> Any:
    """Declare a setting: the variable `name`, by default the attribute's name in capital letters.

    Without a `default` it is required. The text of a `secret` one is hidden in every `repr`, in `app.config` too. The
    annotation tells how the text is read: str, int, float, bool, Path, Literal, an Enum, tuple[X, ...]
    (comma-separated), or X | None. For any other type, `parse` takes the text and raises ValueError with the reason.
    """
    options = {"secret": secret, "required_in_production": required_in_production, "parse": parse, "name": name}
    return field(default=_hidden(default) if secret else default, repr=not secret, metadata={"setting": True} | options)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting, field))
class Declared:
    """Makes each subclass a frozen dataclass, so that one line declares a setting."""

    _parsers: ClassVar[Mapping[str, Parser]]

    def __init_subclass__(cls) -> None:
        """Build the dataclass. Raises TypeError for an annotation that needs `parse`, or a line without `setting`."""
        made: Any = dataclass(frozen=True, kw_only=True)(cls)
        bases: list[Any] = [base for base in reversed(made.__mro__[1:]) if is_dataclass(base)]
        inherited = {each.name: each for base in bases for each in fields(base)}
        parsers = {name: parser for base in bases for name, parser in base._parsers.items()}
        for each in fields(made):
            if "setting" in each.metadata and each is not inherited.get(each.name):
                parsers[each.name] = each.metadata["parse"] or _parser_for(cls, each)
            elif inherited and each.name not in inherited:
                raise TypeError(f"{each.name}: declare it with setting()")
        cls._parsers = parsers

    @classmethod
    def read(cls, declared: Field[Any], text: str, production: bool) -> Any:
        """Return the value that `text` gives a setting; an empty text counts as unset.

        Raises ValueError with a message. It shows no value of a secret.
        """
        name, metadata = variable(declared), declared.metadata
        if text:
            try:
                value = cls._parsers[declared.name](text)
            except ValueError as error:
                reason = "is not valid" if metadata["secret"] else str(error)
                raise ValueError(message(name, reason, f"correct {name} in the environment or in .env")) from None
            return _hidden(value) if metadata["secret"] else value
        if declared.default is MISSING or (production and metadata["required_in_production"]):
            reason = "missing" if declared.default is MISSING else "missing in production"
            raise ValueError(message(name, reason, f"set {name} in the environment or in .env"))
        return declared.default


def declared_settings(cls: type[Any]) -> Iterator[Field[Any]]:
    """Return the settings that `cls` and its bases declare."""
    return (each for each in fields(cls) if "setting" in each.metadata)


def variable(declared: Field[Any]) -> str:
    """Return the name of a setting's variable."""
    return declared.metadata["name"] or declared.name.upper()


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return SecretStr(value)
    return tuple(map(_hidden, value)) if isinstance(value, tuple) else value


def _parser_for(cls: type[Any], declared: Field[Any]) -> Parser:
    # A class with this annotation alone: another one may name what only a type checker imports.
    alone = type(cls.__name__, (), {"__annotations__": {"it": declared.type}, "__module__": cls.__module__})
    try:
        return _parser(typing.get_type_hints(alone)["it"])
    except (NameError, LookupError):
        raise TypeError(f"{declared.name}: {declared.type} needs setting(parse=...)") from None


def _parser(hint: Any) -> Parser:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return lambda text: _one_of(text, {str(word): word for word in arguments})
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return lambda text: _one_of(text, {str(member.value): member for member in hint})
    if origin is tuple and arguments[1:] == (...,):
        item = _parser(arguments[0])
        return lambda text: tuple(item(part.strip()) for part in text.split(",") if part.strip())
    if origin in (typing.Union, types.UnionType) and type(None) in arguments and len(arguments) == 2:
        return _parser(next(each for each in arguments if each is not type(None)))
    return _SIMPLE[hint]


def _one_of(text: str, words: Mapping[str, Any]) -> Any:
    if text not in words:
        raise ValueError(f"must be one of {', '.join(words)}")
    return words[text]


def _number(kind: Parser, reason: str) -> Parser:
    def parse(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(reason) from None

    return parse


_SIMPLE: Mapping[Any, Parser] = {
    str: str,
    Any: str,
    Path: Path,
    bool: lambda text: _one_of(text.lower(), WORDS),
    int: _number(int, "is not a whole number, such as 20"),
    float: _number(float, "is not a number, such as 1.5"),
}


class SettingsError(click.ClickException):
    """Settings with which the app must not start; `problems` has a text for each, which shows no value."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def host_names(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list as a browser sends them, international ones in ASCII (RFC 3490).

    Raises ValueError with the first one that is not a host name.
    """
    return tuple(map(_host_name, filter(None, (name.strip().lower() for name in text.split(",")))))


def _host_name(name: str) -> str:
    if "/" in name:
        raise ValueError(f"{name!r} is a URL: write the host name alone, such as example.org")
    if _IPV6.fullmatch(name):
        return name
    if ":" in name:
        raise ValueError(f"{name!r} has a port: write the host name without it (IPv6 in brackets: [::1])")
    if name.startswith("*"):
        raise ValueError(f"{name!r} has a wildcard: write .example.org for example.org and all names below it")
    if not _HOST.fullmatch(name):
        raise ValueError(f"{name!r} is not a host name, such as example.org or .example.org")
    dot, bare = name[: name[0] == "."], name.lstrip(".")
    # Browsers keep these four characters, Python's codec replaces or drops them (RFC 5894, section 7.2).
    if re.search("[\u00df\u03c2\u200c\u200d]", bare):
        raise ValueError(f"{name!r} has a special character: write the name as your browser sends it (xn--...)")
    return name if name.isascii() else dot + bare.encode("idna").decode()


def url_prefix(text: str) -> str:
    """Return a path such as /shop. Raises ValueError."""
    if not re.fullmatch(r"(/[\w.~-]+)+", text):
        raise ValueError("is not a path that begins with / and does not end with it, such as /shop")
    return text


def whole_number(text: str) -> int:
    """Return a number of zero or more. Raises ValueError."""
    if not re.fullmatch("[0-9]{1,12}", text):
        raise ValueError("is not a whole number of zero or more")
    return int(text)


class Settings(Declared):
    """What the app needs to know. Its `repr` shows no secret."""

    environment: Literal["production", "development", "testing"] = setting("production", name=APP_ENV)
    keyring_interval: int = setting(5, parse=parse_duration, name="SECRET_KEY_INTERVAL")
    """Seconds between two looks at the key file."""
    session_store: str = setting("signed", secret=True)
    """signed, encrypted, or the address of a server, which may contain its password."""
    session_idle_timeout: int = setting(7 * DAY, parse=parse_duration)
    """Seconds after which an unused session ends."""
    session_absolute_timeout: int = setting(30 * DAY, parse=parse_duration)
    """Seconds after which any session ends."""
    session_read_sha1: bool = setting(False)
    """Whether session cookies of stock Flask are read, to be signed again."""
    trusted_hosts: tuple[str, ...] = setting((), parse=host_names)
    """The host names to serve; empty: all."""
    trusted_proxies: int = setting(0, parse=whole_number)
    """How many proxies in front of the app add to X-Forwarded-For."""
    trusted_prefix: str = setting("", parse=url_prefix)
    """The path under which a proxy serves the app, sent in X-Forwarded-Prefix."""
    form_action: tuple[str, ...] = setting(())
    """Origins besides this one to which a form may lead: a payment or a sign-in elsewhere."""
    cross_origin_opener_policy: Literal[
        "same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"
    ] = setting("same-origin")
    """Whether a popup of another origin keeps its link to the page that opened it."""
    hsts: str = setting("max-age=31536000", parse=lambda text: "" if text == "off" else text)
    """The Strict-Transport-Security header in production."""
    max_content_length: int = setting(1 << 20, parse=whole_number)
    """Bytes of a request's body."""

    keyring: Keyring = field(repr=False)
    keyring_source: Source
    keyring_identity: tuple[int, ...] = field(default=(), repr=False)
    """The state of the key file when the keyring was read."""
    dotenv: Mapping[str, str] | None = field(default=None, repr=False)
    """The variables of `.env`; None if it is not read."""
    warnings: tuple[str, ...] = ()
    """What the log says at the start."""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, root: Path | None = None) -> Self:
        """Read and validate all settings from `environ` and the `.env` in the folder `root`.

        Without `environ`, they come from this process; a gunicorn worker then takes what its master validated last.
        Raises SettingsError with every problem.
        """
        try:
            root = root or project_root()
            if environ is None and inherited.last_valid:
                dotenv, texts = inherited.last_valid
                keys = tuple(Key(text, activation_of(text)) for text in texts)
                return _Loader(cls, Environment(os.environ, dotenv, root)).load(keys)
            environment = read_environment(os.environ if environ is None else environ, root)
        except (FileError, ProjectError) as error:
            raise SettingsError([str(error)]) from None
        return _Loader(cls, environment).load()

    @property
    def production(self) -> bool:
        """Whether real users are served."""
        return self.environment == PRODUCTION

    def notices(self, now: float) -> list[tuple[int, str]]:
        """Return pairs of a level and a line for the log at a start; `now` in epoch seconds."""
        keys = f"Secret key: {self.keyring.summary(now)} (from {self.keyring_source!r})"
        return [(logging.INFO, keys), *((logging.WARNING, warning) for warning in self.warnings)]

    def flask_config(self) -> dict[str, Any]:
        """Return each setting under its variable's name, and the settings of Flask and its extensions."""
        values = {variable(declared): getattr(self, declared.name) for declared in declared_settings(type(self))}
        return values | {
            # Flask's own check has no exception for probes; web.py checks the hosts.
            "TRUSTED_HOSTS": None,
            "TESTING": self.environment == TESTING,
            "SESSION_COOKIE_SECURE": self.production,
            "SESSION_COOKIE_HTTPONLY": True,
            "SESSION_COOKIE_SAMESITE": "Lax",
            # For addresses made outside a request: in a mail that a job sends.
            "PREFERRED_URL_SCHEME": "https" if self.production else "http",
            "MAX_FORM_MEMORY_SIZE": self.max_content_length,
            "MAX_FORM_PARTS": 200,
            # A form is valid as long as its session and the key that signed it.
            "WTF_CSRF_TIME_LIMIT": None,
            "SESSION_STORE": self.session_store.partition("://")[0],
            "PERMANENT_SESSION_LIFETIME": self.session_idle_timeout,
            "REMEMBER_COOKIE_SECURE": self.production,
            "REMEMBER_COOKIE_HTTPONLY": True,
            "REMEMBER_COOKIE_SAMESITE": "Lax",
        }


S = TypeVar("S", bound=Settings)
_Found = tuple[Source, Keyring, tuple[int, ...]]


class _Loader(Generic[S]):
    """Reads the settings of a class and collects all problems."""

    def __init__(self, cls: type[S], environment: Environment) -> None:
        self._class = cls
        self._environment = environment
        self._problems: list[str] = []

    def load(self, valid: tuple[Key, ...] = ()) -> S:
        """Return the settings; `valid` is a keyring that was validated before. Raises SettingsError."""
        foreign = foreign_dotenv(self._environment)
        if foreign:  # it may be the cause of other problems
            raise SettingsError([foreign])
        found, values = self._keyring(valid), self._values()
        self._check(values, found, ask_store=not valid)
        if self._problems or not found:
            raise SettingsError(self._problems)
        source, keyring, seen = found
        loaded = self._class(
            **values,
            keyring=keyring,
            keyring_source=source,
            keyring_identity=seen,
            dotenv=self._environment.dotenv,
        )
        return replace(loaded, warnings=tuple(self._warnings(loaded)))

    def _keyring(self, valid: tuple[Key, ...]) -> _Found | None:
        try:
            if valid:
                return find_source(self._environment), Keyring(valid, retention(self._environment)), ()
            return load_keyring(self._environment)
        except InvalidKeyringError as error:
            self._problems += error.problems
            return None

    def _values(self) -> dict[str, Any]:
        production = self._environment.get(APP_ENV, PRODUCTION) == PRODUCTION
        values = {}
        for declared in declared_settings(self._class):
            try:
                text = self._environment.get(variable(declared))
                values[declared.name] = self._class.read(declared, text, production)
            except ValueError as error:
                self._problems.append(str(error))
        return values

    def _check(self, values: dict[str, Any], found: _Found | None, ask_store: bool) -> None:
        """Check what concerns more than one setting, or more than its text."""
        if values.get("keyring_interval", 0) >= ACTIVATION_DELAY:
            reason = f"must be shorter than {format_duration(ACTIVATION_DELAY)}"
            self._problems.append(message("SECRET_KEY_INTERVAL", reason, "write a shorter one, such as 5s"))
        if values.get("environment") == PRODUCTION and _debug_is_on(self._environment.process):
            hint = "unset FLASK_DEBUG and run without --debug"
            self._problems.append(message("FLASK_DEBUG", "must be off in production", hint))
        if found and values.get("session_idle_timeout", 0) > found[1].retention:
            hint = f"set {RETENTION_SETTING} to at least SESSION_IDLE_TIMEOUT"
            self._problems.append(message(RETENTION_SETTING, "is shorter than SESSION_IDLE_TIMEOUT", hint))
        store = values.get("session_store", "signed")
        problem = store_address.problem_with(store, ask=ask_store and not self._knows_store(store))
        if problem:
            self._problems.append(message("SESSION_STORE", problem))

    def _knows_store(self, store: str) -> bool:
        """Whether this server used the same store before: it may be away for a moment."""
        dotenv = inherited.last_valid[0] if inherited.last_valid else None
        return (dotenv or self._environment.process).get("SESSION_STORE", store) == store and bool(inherited.last_valid)

    def _warnings(self, settings: Settings) -> Iterator[str]:
        ignored = self._environment.ignored_key()
        if ignored:
            yield ignored
        if settings.production and not settings.trusted_hosts:
            yield "TRUSTED_HOSTS is not set: every host name is served"
        known = {*map(variable, declared_settings(self._class)), *KEY_NAMES, RETENTION_SETTING}
        for name in sorted({*self._environment.process, *(self._environment.dotenv or {})} - known):
            similar = get_close_matches(name, known, 1, 0.85) if "_" in name else ()
            if similar:
                yield message(name, "unknown setting", f"did you mean {similar[0]}?")


def _debug_is_on(environ: Mapping[str, str]) -> bool:
    """Whether `flask run` got --debugger, or Flask would find debug on in `environ`."""
    command = click.get_current_context(silent=True)
    with_debugger = bool(command and command.params.get("debugger"))
    return with_debugger or environ.get("FLASK_DEBUG", "").lower() not in {"", "0", "false", "no"}
