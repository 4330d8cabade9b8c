"""What a gunicorn master gives to its workers by fork, never back: the last valid `.env` and keyring.

This is the one module of the project that stays in `sys.modules` when the others are imported anew after a reload,
so it holds plain data, which any later version of the code understands.
"""

from collections.abc import Mapping

# The variables of `.env` (None if it is not read) and the texts of the keys; None if no master has forked this process.
last_valid: tuple[Mapping[str, str] | None, tuple[str, ...]] | None = None
