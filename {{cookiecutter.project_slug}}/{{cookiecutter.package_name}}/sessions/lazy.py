"""One browser's session: a dict that is read from its store when it is first used."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from flask.sessions import SessionMixin

User = str | int | UUID
"""What a user is known by."""

USER = "_user"
"""Where a session holds who is signed in."""
VERSION = "_version"
"""Where it holds the session version that this user had at sign-in."""


@dataclass(slots=True)
class Held:
    """What a store holds for one browser."""

    started: int
    """When the session began, in seconds since the epoch: its absolute limit counts from there."""
    content: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    """Under what a server keeps it; empty where none does, or not yet."""
    replaces: str = ""
    """The id that it had before it was renewed."""
    begins: bool = False
    """Whether it is a sign-in's, and so does not end with the session that it replaces."""
    stale: bool = False
    """Whether its cookie is so old that it is made anew."""


class Box(Protocol):
    """Seals a value into a cookie, and opens it again."""

    def seal(self, value: Any) -> str:
        """The cookie that holds `value` and this moment."""

    def open(self, cookie: str) -> tuple[Any, float] | None:
        """What a cookie holds and when it was sealed; None where it was not sealed here."""


class Session(SessionMixin):
    """Flask's session. A page that does not use it asks no store.

    A value that is changed in place (`session["list"].append(1)`) goes unnoticed, as ever: set
    `session.modified`.
    """

    modified = False
    saved = False
    """Whether what it held was given to its store already; a later change is given once more."""

    def __init__(self, load: Callable[[], Held], box: Box) -> None:
        self.box = box
        """What its cookie is made with."""
        self._load = load
        self._held: Held | None = None

    @property
    def used(self) -> bool:
        """Whether anybody has asked for what it holds."""
        return self._held is not None

    @property
    def held(self) -> Held:
        """What its store holds."""
        if self._held is None:
            self._held = self._load()
        return self._held

    def __getitem__(self, name: str) -> Any:
        return self.held.content[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.held.content[name] = value
        self.modified = True

    def __delitem__(self, name: str) -> None:
        del self.held.content[name]
        self.modified = True

    def __iter__(self) -> Iterator[str]:
        return iter(self.held.content)

    def __len__(self) -> int:
        return len(self.held.content)
