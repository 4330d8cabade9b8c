"""A real PostgreSQL server."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving import free_port

OTHER_USER = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups") if os.geteuid() == 0 else ()
"""PostgreSQL refuses to run as root."""


def is_installed() -> bool:
    """Whether there is a server to run."""
    return all(shutil.which(name) for name in ("initdb", "pg_ctl", *OTHER_USER[:1]))


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server until the block ends; yield the address of an empty database."""
    folder, port = Path(tempfile.mkdtemp()), free_port()
    data = folder / "data"
    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"

    def run(*command: str) -> None:
        subprocess.run((*OTHER_USER, *command), cwd="/", check=True, capture_output=True)

    try:
        if OTHER_USER:
            shutil.chown(folder, "postgres")
        run("initdb", "--no-sync", "--auth=trust", "--username=app", "--pgdata", str(data))
        run("pg_ctl", "--wait", "--pgdata", str(data), "--log", str(folder / "log"), "--options", settings, "start")
        yield f"postgresql+psycopg://app@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "--mode=immediate", "--pgdata", str(data), "stop")
        shutil.rmtree(folder)
