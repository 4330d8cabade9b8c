"""Flask's JSON that keeps types, such as a moment or a tuple, with one writer and one reader.

Flask asks the app how to write JSON, and builds a writer, at every use.
"""

import json
from typing import Any

from flask.json.provider import DefaultJSONProvider
from flask.json.tag import TaggedJSONSerializer


class TaggedJSON(TaggedJSONSerializer):
    """Writes and reads what Flask's own class does."""

    def __init__(self) -> None:
        super().__init__()
        self._write = json.JSONEncoder(separators=(",", ":"), default=DefaultJSONProvider.default).encode
        self._read = json.JSONDecoder(object_hook=self.untag).decode

    def dumps(self, value: Any) -> str:
        """The text of a value."""
        return self._write(self.tag(value))

    def loads(self, value: str) -> Any:
        """The value of a text. Raises ValueError."""
        return self._read(value)
