"""The settings of this app: one line each, read from the environment and from .env."""

from . import secure


class Settings(secure.Settings):
    """Add your own below, for example: page_size: int = secure.setting(20)."""
