"""A project that runs under its own gunicorn.conf.py, as a deploy runs it, and one visitor of it."""

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from baking import Bake, run
from secure.keys.key_format import generate_text
from serving import LIMIT, free_port, wait_until

APPS = Path(__file__).parents[1] / "apps"
KEEPING = "Keeping the last valid secret key"


class Server:
    """A gunicorn in a process group of its own.

    `app` is what it serves, the project's own by default; `under` is a command that starts it; `by_port` has
    PORT say where it listens.
    """

    def __init__(
        self,
        bake: Bake,
        log: Path,
        variables: Mapping[str, str],
        *flags: str,
        app: str = "",
        under: Sequence[str] = (),
        by_port: bool = False,
    ) -> None:
        self.port = free_port()
        self.log = log
        self._bake = bake
        self._environment = {
            **bake.environment,
            "APP_ENV": "production",
            "PROJECT": bake.package.name,
            "PYTHONPATH": str(APPS),
            **({"PORT": str(self.port)} if by_port else {}),
            **variables,
        }
        address = () if by_port else ("--bind", f"127.0.0.1:{self.port}")
        command = [*under, bake.program("gunicorn"), *address, *flags]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, app] if app else command,
                cwd=bake.path,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.master = self._process.pid
        wait_until(self._answers, "the first answer")

    def get(self, path: str, **headers: str) -> tuple[str, http.client.HTTPMessage]:
        """The body and the headers of an answer. Raises OSError where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            connection.request("GET", path, headers={"Connection": "close", **headers})
            response = connection.getresponse()
            return response.read().decode(), response.headers
        finally:
            connection.close()

    def shows(self, text: str) -> bool:
        """Whether the start page has `text`."""
        return text in self.get("/")[0]

    def reload(self) -> None:
        """Have the master replace its workers."""
        os.kill(self.master, signal.SIGHUP)

    def stop(self) -> None:
        """End it, and a second master that an upgrade has made; kill what does not end."""
        with suppress(ProcessLookupError):
            os.killpg(self.master, signal.SIGTERM)
        try:
            wait_until(self._is_gone, "the end of gunicorn")
        except AssertionError:
            os.killpg(self.master, signal.SIGKILL)
            self._process.wait()
            raise

    def flask(self, *arguments: str) -> None:
        """Run a secret-key command with the server's own variables."""
        command = (self._bake.program("flask"), "secret-key", *arguments)
        run(*command, cwd=self._bake.path, environment=self._environment)

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"gunicorn ended:\n{self.log.read_text()}"
        try:
            return bool(self.get("/healthz"))
        except OSError:
            return False

    def _is_gone(self) -> bool:
        self._process.poll()
        try:
            os.killpg(self.master, 0)
        except ProcessLookupError:
            return True
        return False


class Site(Server):
    """A site that follows a key file, and a visitor who notices a logout."""

    def __init__(self, bake: Bake, folder: Path, *flags: str) -> None:
        self.keys = folder / "keys"
        self._cookies: dict[str, str] = {}
        self._count = 0
        variables = {"SECRET_KEY_FILE": str(self.keys), "SECRET_KEY_INTERVAL": "1s"}
        self.keys.write_text(f"{generate_text(int(time.time()))}\n")
        super().__init__(bake, folder / "gunicorn.log", variables, *flags, app="visited:app()")

    def visit(self) -> tuple[int, str]:
        """Who answered and which key signs; fails where the visitor was logged out."""
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        counts, headers = self.get("/count", Cookie=cookies)
        self._count += 1
        assert counts == f"{self._count} {self._count}", "the visitor was logged out"
        self._cookies |= dict(line.split(";")[0].split("=", 1) for line in headers.get_all("Set-Cookie", []))
        return int(headers["Worker"]), headers["Signer"]

    def other_worker(self, old: int) -> int:
        """The worker that answers once `old` does no more."""
        wait_until(lambda: self.visit()[0] != old, "another worker")
        return self.visit()[0]

    def rotate(self) -> None:
        """A rotation that the workers have followed."""
        signer = self.visit()[1]
        self.flask("rotate", "--in", "2s")  # longer than the interval, so that no worker is behind
        wait_until(lambda: self.visit()[1] != signer, "the new key signs")

    def spoil(self) -> None:
        """Cut the key file off in the middle of a key, and wait until a worker says so."""
        complaints = self.complaints()
        self.keys.write_text(self.keys.read_text()[:50])
        wait_until(lambda: self.visit() and self.complaints() > complaints, "a complaint")

    def complaints(self) -> int:
        """How often the log says that the last good key serves on."""
        return self.log.read_text().count(KEEPING)
