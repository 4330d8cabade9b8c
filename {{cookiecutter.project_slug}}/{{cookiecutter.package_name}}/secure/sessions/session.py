"""One browser's session: Flask's own class, filled when a page first uses it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from flask import Flask
from flask.sessions import SecureCookieSession

User = str | int | UUID
"""What identifies a user."""

USER = "_user"  # under which `sign_in` puts the user into the session
VERSION = "_version"  # the user's session version at sign-in
VERSIONED = (USER, "_user_id", "user_id")
"""The usual names of a user's ID: ours, Flask-Login's, by hand. `load_session_version` gets the value."""
USER_KEYS = (*VERSIONED, "userid", "uid", "user", "username", "account_id", "identity.id", "logged_in")
"""The names that identify a user; SESSION_USER_KEYS adds more. The first one that a session has is its user."""


@dataclass(slots=True)
class SessionRecord:
    """What a store holds for one browser, and what to do with it at the end of the request."""

    started: int  # seconds since the epoch: the absolute limit counts from there
    content: dict[str, Any] = field(default_factory=dict)
    user: tuple[str, Any] | None = None  # the name and the value that identify the user
    id: str = ""  # under which a server keeps the session
    generation: str = ""  # on a server: the copy of what `revoke_all` deletes
    begins: bool = False  # a user signs in or out: the session does not continue the one that was loaded
    rotates: bool = False  # the session continues under a new ID
    stale: bool = False  # the cookie is so old that it is sent again


class Session(SecureCookieSession):
    """Flask's session, a dict. A page that does not use it asks no store.

    Flask sets `accessed` whenever `flask.session` is used (since 3.1.3). That loads it.
    A value changed in place (`session["list"].append(1)`) is not noticed, as in stock Flask: set `session.modified`.
    """

    def __init__(
        self, initial: Mapping[str, Any] | None = None, load: Callable[[], SessionRecord] | None = None
    ) -> None:
        super().__init__(initial)
        self.record = SessionRecord(0)
        self.lost = False  # whether it could not be loaded; only the first use in a request raises the error
        self._load, self._accessed = load, False

    @property
    def accessed(self) -> bool:
        """Whether the session was used in this request."""
        return self._accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self._accessed = value
        if value and self._load:
            load, self._load, self.lost = self._load, None, True
            self.record = load()
            self.lost = False
            dict.update(self, self.record.content)


def user_of(app: Flask, content: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Return the name and the value that identify the user of a session; None for a visitor."""
    for name in (*USER_KEYS, *app.config.get("SESSION_USER_KEYS", ())):
        value = content.get(name)
        if value is not None and value is not False and value != "":
            return name, value
    return None
