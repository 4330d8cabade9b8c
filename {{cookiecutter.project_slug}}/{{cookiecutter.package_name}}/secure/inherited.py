"""What a gunicorn master hands to its workers: the last valid `.env` and keyring.

The master alone writes it, in its own memory; a worker gets a copy by fork. So nothing flows from a worker to its
master or to another worker. This is the one module of the project that stays in `sys.modules` when the others
are imported anew after a reload. It holds plain data, which any later version of the code understands.
"""

from collections.abc import Mapping

last_valid: tuple[Mapping[str, str] | None, tuple[str, ...]] | None = None
"""The variables of `.env` (None if it is not read) and the texts of the keys.

None in a process that no gunicorn master has forked.
"""
