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
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar, cast, dataclass_transform

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

DEVELOPMENT, TESTING = "development", "testing"
DAY = 86400
T = TypeVar("T")
Parser = Callable[[str], T]
_REQUIRED: Any = MISSING
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def setting(
    default: T = _REQUIRED,
    *,
    secret: bool | None = None,
    required_in_production: bool | None = None,
    parse: Parser[T] | None = None,
    name: str = "",
) -> T:
    """Declare a setting: the variable `name`, by default the attribute's name in capital letters.

    Without a `default` it is required. The text of a `secret` one is hidden in every `repr`, in `app.config` too. The
    annotation tells how the text is read: str, int, float, bool, Path, Literal, an Enum, tuple[X, ...]
    (comma-separated), or X | None. For any other type, `parse` takes the text and raises ValueError with the reason.
    A line that declares a setting of a base class again keeps what it does not say.
    """
    if isinstance(default, list | dict | set):
        raise TypeError("the default of a setting must not change: write a tuple")
    declaration = {"secret": secret, "in_production": required_in_production, "parse": parse, "name": name}
    shown = _hidden(default) if secret else default
    return cast(T, field(default=shown, repr=not secret, metadata={"setting": declaration}))


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting, field))
class Declared:
    """Makes each subclass a frozen dataclass, so that one line declares a setting."""

    def __init_subclass__(cls) -> None:
        """Build the dataclass.

        Raises TypeError for an annotation that needs `parse`, a line without `setting`, a name that is taken, or a
        setting in a class of another kind, where nobody would read it.
        """
        bases = [base for base in cls.__mro__[1:] if is_dataclass(base)]
        known = {each.name: each for base in reversed(bases) for each in fields(base)}
        for base in cls.__mro__[1:]:
            for name in _settings_in(base):
                raise TypeError(f"{name}: declare it in a class derived from Settings, not in {base.__name__}")
        for name, declared in _settings_in(cls).items():
            before = known.get(name)
            if before and "setting" in before.metadata:
                _inherit(declared, before)
            elif before or any(hasattr(base, name) for base in bases if issubclass(base, Declared)):
                raise TypeError(f"{name}: a setting cannot have this name, because its base class uses it")
        made: Any = dataclass(frozen=True, kw_only=True, eq=False)(cls)
        for each in fields(made):
            declaration, before = each.metadata.get("setting"), known.get(each.name)
            if declaration is None:
                if known and each is not before:
                    raise TypeError(f"{each.name}: declare it with setting()")
            elif "read" not in declaration:
                _choose_parser(cls, each, None if each is before else before)


def _settings_in(cls: type[Any]) -> dict[str, Field[Any]]:
    """Return the settings that a class declares itself, if it is no dataclass yet."""
    found = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
    return {name: declared for name, declared in found.items() if "setting" in declared.metadata}


def _inherit(declared: Field[Any], before: Field[Any]) -> None:
    """Keep what a base class says of a setting and the line that declares it again does not."""
    declaration = declared.metadata["setting"]
    for key in ("secret", "in_production", "name"):
        if declaration[key] in (None, ""):
            declaration[key] = before.metadata["setting"][key]
    if declaration["secret"]:
        declared.repr, declared.default = False, _hidden(declared.default)


def _choose_parser(cls: type[Any], declared: Field[Any], before: Field[Any] | None) -> None:
    """Read a setting with its own parser, with that of the same annotation in a base class, or by its annotation."""
    declaration = declared.metadata["setting"]
    # A class with this annotation alone: another one may name what only a type checker imports.
    alone = type(cls.__name__, (), {"__annotations__": {"it": declared.type}, "__module__": cls.__module__})
    try:
        hint = typing.get_type_hints(alone)["it"]
        if before and "hint" not in before.metadata["setting"]:  # of another dataclass
            _choose_parser(cls, before, None)
        if before and before.metadata["setting"]["hint"] == hint:
            declaration["parse"] = declaration["parse"] or before.metadata["setting"]["parse"]
        declaration |= {"hint": hint, "read": declaration["parse"] or _parser(hint)}
    except (NameError, LookupError):
        if not declaration["parse"]:
            raise TypeError(f"{declared.name}: {declared.type} needs setting(parse=...)") from None
        declaration |= {"hint": None, "read": declaration["parse"]}


def declared_settings(cls: type[Any]) -> Iterator[Field[Any]]:
    """Return the settings that `cls` and its bases declare."""
    return (each for each in fields(cls) if "setting" in each.metadata)


def variable(declared: Field[Any]) -> str:
    """Return the name of a setting's variable."""
    return declared.metadata["setting"]["name"] or declared.name.upper()


def _hidden(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_hidden, value))
    return SecretStr(value) if isinstance(value, str) else value


def _parser(hint: Any) -> Parser[Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return partial(_one_of, {str(word): word for word in arguments})
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return partial(_one_of, {str(member.value): member for member in hint})
    if origin is tuple and arguments[1:] == (...,):
        item = _parser(arguments[0])
        return lambda text: tuple(item(part.strip()) for part in text.split(",") if part.strip())
    if origin in (typing.Union, types.UnionType) and type(None) in arguments and len(arguments) == 2:
        return _parser(next(each for each in arguments if each is not type(None)))
    return _SIMPLE[hint]


def _one_of(words: Mapping[str, Any], text: str) -> Any:
    if text not in words:
        raise ValueError(f"must be one of {', '.join(words)}")
    return words[text]


def _number(kind: Parser[Any], reason: str, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(reason) from None


_SIMPLE: Mapping[Any, Parser[Any]] = {
    str: str,
    Any: str,
    Path: Path,
    bool: lambda text: _one_of(_WORDS, text.lower()),
    int: partial(_number, int, "is not a whole number, such as 20"),
    float: partial(_number, float, "is not a number, such as 1.5"),
}


class SettingsError(click.ClickException):
    """Settings with which the app must not start; `problems` has a text for each, which shows no value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


_NOT_IN_HOSTS = {
    "/": "is a URL: write the host name alone, such as example.org",
    ":": "has a port: write the host name without it (IPv6 in brackets: [::1])",
    "*": "has a wildcard: write .example.org for example.org and all names below it",
    # Browsers keep these four characters, Python's codec replaces or drops them (RFC 5894, section 7.2).
    **dict.fromkeys(
        "\u00df\u03c2\u200c\u200d", "has a special character: write the name as your browser sends it (xn--...)"
    ),
}


def host_names(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list as a browser sends them, international ones in ASCII (RFC 3490).

    Raises ValueError with the place of the first one that is not a host name.
    """
    return _each(_host_name, text.lower())


def _each(read: Parser[T], text: str) -> tuple[T, ...]:
    """Return what the parts of a comma-separated list mean. Raises ValueError with the place of the first wrong one."""
    values = []
    for number, part in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        try:
            values.append(read(part))
        except ValueError as error:
            raise ValueError(f"entry {number} {error}") from None
    return tuple(values)


def _host_name(name: str) -> str:
    if name[0] == "[" and re.fullmatch(r"\[[0-9a-f]*:[0-9a-f:.]+\]", name):
        return name
    for character, reason in _NOT_IN_HOSTS.items():
        if character in name:
            raise ValueError(reason)
    _matching(r"\.?[\w-]{1,63}(\.[\w-]{1,63})*", "is not a host name, such as example.org or .example.org", name)
    dot = name[: name[0] == "."]
    try:
        return name if name.isascii() else dot + name.lstrip(".").encode("idna").decode()
    except UnicodeError:
        raise ValueError("is not a host name: it is too long, or no international name has its letters") from None


def _matching(pattern: str, reason: str, text: str) -> str:
    if not re.fullmatch(pattern, text):
        raise ValueError(reason)
    return text


def whole_number(text: str) -> int:
    """Return a number of zero or more. Raises ValueError."""
    return int(_matching("[0-9]{1,12}", "is not a whole number of zero or more", text))


_ORIGIN = (  # a source of a Content-Security-Policy (CSP 3, section 2.3.1)
    r"(?i)([a-z][a-z0-9+.-]*://)?(\*|(\*\.)?[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*)(:([0-9]+|\*))?(/[!-+\--:<-~]*)?"
    r"|[a-z][a-z0-9+.-]*:"
)


def _origins(text: str) -> tuple[str, ...]:
    """Return the origins of a comma-separated list. Raises ValueError for what would end a directive of a policy."""
    return _each(partial(_matching, _ORIGIN, "is not an origin, such as https://pay.example"), text)


def _hsts(text: str) -> str:
    reason = "is not the value of this header, such as max-age=31536000"
    return "" if text == "off" else _matching(r"(?i)([ -~]*;)?\s*max-age *=[ -~]+", reason, text)


_OF_GUNICORN = {"PORT", "WEB_CONCURRENCY", "WEB_THREADS"}  # gunicorn.conf.py reads them
_NO_PREFIX = "is not a path that begins with / and does not end with it, such as /shop"


class Settings(Declared):
    """What the app needs to know; timeouts and intervals are in seconds. Its `repr` shows no secret."""

    environment: Literal["production", "development", "testing"] = setting("production", name=APP_ENV)
    # Between two looks at the key file.
    keyring_interval: int = setting(5, parse=parse_duration, name="SECRET_KEY_INTERVAL")
    # signed, encrypted, or the address of a server, which may contain its password.
    session_store: str = setting("signed", secret=True)
    session_idle_timeout: int = setting(7 * DAY, parse=parse_duration)  # ends an unused session
    session_absolute_timeout: int = setting(30 * DAY, parse=parse_duration)  # ends any session
    session_read_sha1: bool = setting(False)  # whether session cookies of stock Flask are read, to be signed again
    trusted_hosts: tuple[str, ...] = setting((), parse=host_names)  # the host names to serve; empty: all
    trusted_proxies: int = setting(0, parse=whole_number)  # how many proxies in front of the app add to X-Forwarded-For
    # The path below which a proxy serves the app, such as /shop.
    trusted_prefix: str = setting("", parse=partial(_matching, r"(/[\w.~-]+)+", _NO_PREFIX))
    form_action: tuple[str, ...] = setting((), parse=_origins)  # other origins to which a form may lead: a payment, a sign-in
    # Whether a popup of another origin keeps its link to the page that opened it.
    cross_origin_opener_policy: Literal[
        "same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"
    ] = setting("same-origin")
    # The Strict-Transport-Security header in production.
    hsts: str = setting("max-age=31536000", parse=_hsts)
    max_content_length: int = setting(1 << 20, parse=whole_number)  # bytes of a request's body

    keyring: Keyring = field(repr=False)
    keyring_source: Source
    keyring_identity: tuple[int, ...] = field(default=(), repr=False)  # of the key file when the keyring was read
    dotenv: Mapping[str, str] | None = field(default=None, repr=False)  # the variables of `.env`; None: it is not read
    warnings: tuple[str, ...] = ()  # what the log says at the start

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
                return _Loader(cls, Environment(os.environ, dotenv, root), keys).load()
            environment = read_environment(os.environ if environ is None else environ, root)
        except (FileError, ProjectError) as error:
            raise SettingsError([str(error)]) from None
        return _Loader(cls, environment).load()

    @property
    def production(self) -> bool:
        """Whether real users are served."""
        return self.environment == PRODUCTION

    def notices(self, now: float) -> list[tuple[int, str]]:
        """Return what to log at a start: levels and lines; `now` in epoch seconds."""
        keys = f"Secret key: {self.keyring.summary(now)} (from {self.keyring_source!r})"
        return [(logging.INFO, keys), *((logging.WARNING, warning) for warning in self.warnings)]

    def flask_config(self) -> dict[str, Any]:
        """Return each setting under its variable's name, and the settings of Flask and its extensions."""
        values = {variable(declared): getattr(self, declared.name) for declared in declared_settings(type(self))}
        cookie = {"SECURE": self.production, "HTTPONLY": True, "SAMESITE": "Lax"}
        ours = {
            **{f"{kind}_COOKIE_{name}": value for kind in ("SESSION", "REMEMBER") for name, value in cookie.items()},
            "TRUSTED_HOSTS": None,  # Flask's own check has no exception for probes; web.py checks the hosts
            "TESTING": self.environment == TESTING,
            "PREFERRED_URL_SCHEME": "https" if self.production else "http",  # outside a request: in a job's mail
            "MAX_FORM_MEMORY_SIZE": self.max_content_length,
            "MAX_FORM_PARTS": 200,
            "WTF_CSRF_TIME_LIMIT": None,  # a form is valid as long as its session and the key that signed it
            "SESSION_STORE": self.session_store.partition("://")[0],
            "PERMANENT_SESSION_LIFETIME": self.session_idle_timeout,
        }
        computed = {*ours, *KEY_NAMES, "DEBUG"} - set(map(variable, declared_settings(Settings)))
        if taken := sorted(values.keys() & computed):
            reason = "a setting cannot have this name, because the app computes it"
            raise TypeError(message(taken[0], reason, _instead_of(taken[0])))
        return values | ours


def _instead_of(name: str) -> str:
    """Return what to do instead of setting a variable that the app computes."""
    if name in KEY_NAMES:
        return "remove the line: the keyring is read without it"
    instead = {"DEBUG": "remove the line, and run flask run --debug", "PERMANENT_SESSION_LIFETIME": "set SESSION_IDLE_TIMEOUT"}
    return instead.get(name, "to change it, set it in app.config after secure.init_app")


S = TypeVar("S", bound=Settings)


@dataclass(eq=False, repr=False)
class _Loader(Generic[S]):
    """Reads the settings of a class and collects all problems."""

    cls: type[S]
    environment: Environment
    valid: tuple[Key, ...] = ()  # a keyring that was validated before
    problems: list[str] = field(default_factory=list)

    def load(self) -> S:
        """Return the settings. Raises SettingsError."""
        if foreign := foreign_dotenv(self.environment):  # it may be the cause of other problems
            raise SettingsError([foreign])
        keyring, values = self._keyring(), self._values()
        self._check(values, keyring.get("keyring"))
        if self.problems:
            raise SettingsError(self.problems)
        loaded = self.cls(**values, **keyring, dotenv=self.environment.dotenv)
        return replace(loaded, warnings=tuple(self._warnings(loaded)))

    @property
    def _place(self) -> str:
        """Where a setting is read from."""
        return "the process environment" if self.environment.dotenv is None else "the environment or in .env"

    def _refuse(self, name: str, reason: str, hint: str = "") -> None:
        self.problems.append(message(name, reason, hint))

    def _keyring(self) -> dict[str, Any]:
        seen: tuple[int, ...] = ()
        try:
            if self.valid:
                source, keyring = find_source(self.environment), Keyring(self.valid, retention(self.environment))
            else:
                source, keyring, seen = load_keyring(self.environment)
        except InvalidKeyringError as error:
            self.problems += error.problems
            return {}
        return {"keyring": keyring, "keyring_source": source, "keyring_identity": seen}

    def _values(self) -> dict[str, Any]:
        production = self.environment.get(APP_ENV, self.cls.environment) == PRODUCTION
        values = {}
        for declared in declared_settings(self.cls):
            name, declaration = variable(declared), declared.metadata["setting"]
            if text := self.environment.get(name):  # an empty text counts as unset
                try:
                    value = declaration["read"](text)
                    values[declared.name] = _hidden(value) if declaration["secret"] else value
                except Exception as error:  # a team's parser may raise anything; only ValueError has a reason
                    known = isinstance(error, ValueError) and not declaration["secret"]
                    reason = str(error) if known else "is not valid"
                    self._refuse(name, reason, f"correct {name} in {self._place}")
            elif declared.default is MISSING or (production and declaration["in_production"]):
                reason = "missing" if declared.default is MISSING else "missing in production"
                self._refuse(name, reason, f"set {name} in {self._place}")
            else:
                values[declared.name] = declared.default
        return values

    def _check(self, values: dict[str, Any], keyring: Keyring | None) -> None:
        """Check what concerns more than one setting, or more than its text."""
        if values.get("keyring_interval", 0) >= ACTIVATION_DELAY:
            reason = f"must be shorter than {format_duration(ACTIVATION_DELAY)}"
            self._refuse("SECRET_KEY_INTERVAL", reason, "write a shorter one, such as 5s")
        command = click.get_current_context(silent=True)
        debug = (command and command.params.get("debugger")) or (  # of `flask run`, or where Flask looks
            self.environment.process.get("FLASK_DEBUG", "").lower() not in {"", "0", "false", "no"}
        )
        if values.get("environment") == PRODUCTION and debug:
            hint = "unset FLASK_DEBUG and run without --debug"
            if not self.environment.get(APP_ENV):
                hint += f"; on your own machine, set {APP_ENV}={DEVELOPMENT} in .env instead"
            self._refuse("FLASK_DEBUG", "must be off in production", hint)
        if keyring and values.get("session_idle_timeout", 0) > keyring.retention:
            hint = f"set {RETENTION_SETTING} to at least SESSION_IDLE_TIMEOUT"
            self._refuse(RETENTION_SETTING, "is shorter than SESSION_IDLE_TIMEOUT", hint)
        store = values.get("session_store", "signed")
        before = inherited.last_valid
        # A store that this server used before may be away for a moment.
        known = before and (before[0] or self.environment.process).get("SESSION_STORE", store) == store
        if problem := store_address.problem_with(store, ask=not self.valid and not known):
            self._refuse("SESSION_STORE", problem)

    def _warnings(self, settings: Settings) -> Iterator[str]:
        if ignored := self.environment.ignored_key():
            yield ignored
        if settings.production and not settings.trusted_hosts:
            yield "TRUSTED_HOSTS: not set, so every host name is served"
        known = {*map(variable, declared_settings(self.cls)), *KEY_NAMES, RETENTION_SETTING}
        dotenv = self.environment.dotenv or {}
        given = {*dotenv, *(self.environment.process.keys() - {"TESTING"})}  # which many CI systems set
        for name in sorted(given & Settings.flask_config(settings).keys() - known):
            yield message(f"variable {name}", "has no effect, because the app computes it", _instead_of(name))
        for name in sorted(dotenv.keys() & _OF_GUNICORN - known - self.environment.process.keys()):
            yield message(f"variable {name}", "has no effect in .env", "set it in the process environment")
        for name in sorted({*self.environment.process, *(self.environment.dotenv or {})} - known):
            if "_" in name and (similar := get_close_matches(name, known, 1, 0.85)):
                yield message(name, "unknown setting", f"did you mean {similar[0]}?")
