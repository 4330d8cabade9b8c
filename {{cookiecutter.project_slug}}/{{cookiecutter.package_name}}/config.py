"""The environment becomes settings; whatever is wrong with it is listed at once, and the start stops.

Needs no Flask: a server's master process can judge the environment without importing the app.
"""

import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from . import session_store
from .secret_key import handover
from .secret_key.duration import format_duration, parse_duration
from .secret_key.environment import PRODUCTION, Environment, parted, project_root, read_environment
from .secret_key.keyring import LEAD, Keyring, RingRefused
from .secret_key.source import Source, load_ring
from .secret_key.store import StoreError

DEVELOPMENT = "development"
TESTING = "testing"
MAX_CONTENT_LENGTH = 1 << 20
"""Bytes of a request's body, by default; raise it for uploads."""
MAX_FORM_PARTS = 200
_HOST = re.compile(r"\.?[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*")


class ConfigError(click.ClickException):
    """Settings that the app must not start with: a line for each problem, none showing a value."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the app needs to know. Its `repr` shows no secret."""

    environment: str
    """production, development or testing."""
    ring: Keyring
    ring_source: Source
    ring_interval: int
    """Seconds between two looks at the file that holds the ring."""
    session_store: str = field(repr=False)
    """signed, encrypted, or the address of a server, which may hold its password."""
    session_lifetime: int
    """Seconds after which an unused session is dead."""
    session_absolute_lifetime: int
    """Seconds after which any session is dead, used or not."""
    session_read_sha1: bool
    """Whether session cookies of stock Flask are read, to be signed anew."""
    trusted_hosts: tuple[str, ...]
    """Host names that are served; none named, every one is."""
    trusted_proxies: int
    """How many proxies in front of the app add to X-Forwarded-For."""
    max_content_length: int
    """Bytes of a request's body."""
    refused: str = ""
    """What is wrong with `.env` by now, where the last good one stands in for it."""

    @property
    def production(self) -> bool:
        """Whether real users are served."""
        return self.environment == PRODUCTION

    def notices(self, now: float) -> list[tuple[int, str]]:
        """What the log is to say at a start: pairs of a level and a line; `now` in epoch seconds."""
        lines = [(logging.INFO, f"Secret key: {self.ring.described(now)} (from {self.ring_source!r})")]
        if self.production and not self.trusted_hosts:
            lines.append((logging.WARNING, "TRUSTED_HOSTS is not set: every host name is served"))
        if self.refused:
            problems = self.refused.replace("\n", "; ")
            lines.append((logging.ERROR, f"The last good settings serve on, for: {problems}"))
        return lines

    def flask_config(self) -> dict[str, Any]:
        """The settings that Flask and its extensions read from `app.config`; the live ring adds the key."""
        return {
            "APP_ENV": self.environment,
            "TESTING": self.environment == TESTING,
            # The prefix binds the cookie to this host and to https (RFC 6265bis, section 4.1.3.2).
            "SESSION_COOKIE_NAME": "__Host-session" if self.production else "session",
            "SESSION_COOKIE_SECURE": self.production,
            "SESSION_COOKIE_HTTPONLY": True,
            "SESSION_COOKIE_SAMESITE": "Lax",
            "SESSION_COOKIE_PATH": "/",
            # For addresses that are made where no request is: in a mail that a job sends.
            "PREFERRED_URL_SCHEME": "https" if self.production else "http",
            "MAX_CONTENT_LENGTH": self.max_content_length,
            "MAX_FORM_MEMORY_SIZE": self.max_content_length,
            "MAX_FORM_PARTS": MAX_FORM_PARTS,
            # A form posts as long as its session lives, and the key that signed it.
            "WTF_CSRF_TIME_LIMIT": None,
            "SESSION_STORE": self.session_store.partition("://")[0],
            "PERMANENT_SESSION_LIFETIME": self.session_lifetime,
            "SESSION_ABSOLUTE_LIFETIME": self.session_absolute_lifetime,
            "SESSION_READ_SHA1": self.session_read_sha1,
        }


def load(environ: Mapping[str, str] = os.environ, root: Path | None = None, reload: bool = False) -> Settings:
    """The settings that `environ` and the `.env` in the folder `root` give.

    A worker has what the first process of its server read, so that all of them serve alike. That process
    reads again at a `reload`; the last good `.env` then stands in for one that is refused.
    Raises ConfigError with every problem and what mends it.
    """
    root = root or project_root(Path(__file__).parent)
    kept = handover.last_variables()
    variables, copied = kept or ({}, [])
    last_good = replace(parted(environ, variables, root, copied), stands_in=True) if kept else None
    if last_good and not reload:
        return _judged(last_good, environ)
    try:
        environment = read_environment(environ, root, copied)
        if variables and not environment.file:
            raise StoreError(f"{environment.dotenv_path} is gone or says nothing; restart, if that is meant")
        settings = _judged(environment, environ)
    except (ConfigError, StoreError) as error:
        refusal = error if isinstance(error, ConfigError) else ConfigError([str(error)])
        if last_good:
            with suppress(ConfigError):
                return replace(_judged(last_good, environ), refused=refusal.message)
        raise refusal from None
    handover.keep(settings.ring)
    handover.keep_variables(environment.file, environment.copied)
    return settings


def _judged(environment: Environment, environ: Mapping[str, str]) -> Settings:
    reader = _Reader(environment)
    name = reader.one_of("APP_ENV", (PRODUCTION, DEVELOPMENT, TESTING))
    ring_interval = reader.duration("SECRET_KEY_INTERVAL", "5s")
    store = reader.session_store()
    session_lifetime = reader.duration("SESSION_LIFETIME", "7d")
    session_absolute_lifetime = reader.duration("SESSION_ABSOLUTE_LIFETIME", "30d")
    session_read_sha1 = reader.one_of("SESSION_READ_SHA1", ("0", "1")) == "1"
    trusted_hosts = reader.hosts("TRUSTED_HOSTS")
    trusted_proxies = reader.count("TRUSTED_PROXIES", 0)
    max_content_length = reader.count("MAX_CONTENT_LENGTH", MAX_CONTENT_LENGTH)
    if ring_interval >= LEAD:
        reader.problems.append(f"SECRET_KEY_INTERVAL must be shorter than {format_duration(LEAD)}")
    if name == PRODUCTION and _debugs(environ):
        reader.problems.append("FLASK_DEBUG must be off in production; unset it, and run without --debug")
    try:
        ring_source, ring = load_ring(environment)
    except RingRefused as refusal:
        raise ConfigError([*refusal.problems, *reader.problems]) from None
    if session_lifetime > ring.retention:
        reader.problems.append("SECRET_KEY_RETENTION is shorter than SESSION_LIFETIME; raise it to that")
    if reader.problems:
        raise ConfigError(reader.problems)
    return Settings(
        environment=name,
        ring=ring,
        ring_source=ring_source,
        ring_interval=ring_interval,
        session_store=store,
        session_lifetime=session_lifetime,
        session_absolute_lifetime=session_absolute_lifetime,
        session_read_sha1=session_read_sha1,
        trusted_hosts=trusted_hosts,
        trusted_proxies=trusted_proxies,
        max_content_length=max_content_length,
    )


def _debugs(environ: Mapping[str, str]) -> bool:
    """Whether `flask run` got --debugger, or Flask would find debug on: in `environ`, wherever it was set."""
    command = click.get_current_context(silent=True)
    with_debugger = bool(command and command.params.get("debugger"))
    return with_debugger or environ.get("FLASK_DEBUG", "").lower() not in {"", "0", "false", "no"}


class _Reader:
    """Reads one variable after the other, and collects what is wrong with them."""

    def __init__(self, environment: Environment) -> None:
        self.problems: list[str] = []
        self._environment = environment

    def one_of(self, name: str, words: tuple[str, ...]) -> str:
        """One of `words`; the first where the variable is not set."""
        word = self._environment.get(name, words[0])
        if word not in words:
            self.problems.append(f"{name} must be one of {', '.join(words)}")
        return word

    def hosts(self, name: str) -> tuple[str, ...]:
        """A comma-separated list of host names."""
        words = tuple(word.strip().lower() for word in self._environment.get(name).split(",") if word.strip())
        if not all(map(_HOST.fullmatch, words)):
            self.problems.append(f"{name} must be host names without port, such as example.org, .example.net")
        return words

    def session_store(self) -> str:
        """A store that can be used.

        A server is asked at the start only, and where `.env` names another one than before: a worker may
        begin later, while it is gone for a moment.
        """
        store = self._environment.get("SESSION_STORE", session_store.SIGNED)
        before = handover.last_variables()
        is_new = not before or before[0].get("SESSION_STORE") != self._environment.file.get("SESSION_STORE")
        problem = session_store.problem_with(store, ask=is_new)
        if problem:
            self.problems.append(f"SESSION_STORE {problem}")
        return store

    def count(self, name: str, default: int) -> int:
        """A whole number, zero or more."""
        text = self._environment.get(name, str(default))
        if not re.fullmatch("[0-9]{1,12}", text):
            self.problems.append(f"{name} must be a whole number, such as {default}")
            return default
        return int(text)

    def duration(self, name: str, default: str) -> int:
        """A length of time in seconds."""
        try:
            return parse_duration(self._environment.get(name, default))
        except ValueError as error:
            self.problems.append(f"{name} {error}")
            return parse_duration(default)
