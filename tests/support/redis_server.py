"""A real Redis server that is stopped, killed, paused and flushed."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from serving import LIMIT, free_port, wait_until


class RedisServer:
    """A server that writes its data to `folder`, so that a restart loses nothing."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"redis://127.0.0.1:{self.port}/0"
        self._options = options
        folder.mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it has loaded its data."""
        place = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder))
        # Each change is written before its answer, so that a kill loses nothing; no test waits for a slow disk.
        lasting = ("--appendonly", "yes", "--appendfsync", "no", "--save", "")
        command = ("redis-server", *place, *lasting, *self._options)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._answers, "Redis")

    def tell(self, command: str) -> str:
        """Return its answer to a command. Raises OSError if there is none."""
        with socket.create_connection(("127.0.0.1", self.port), LIMIT) as connection:
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(4096).decode().strip()

    def keys(self) -> int:
        """Return how many keys it holds."""
        return int(self.tell("DBSIZE").lstrip(":"))

    def sessions(self) -> int:
        """Return how many sessions it holds."""
        return int(self.tell("""EVAL "return #redis.call('KEYS','*:session:*')" 0""").lstrip(":"))

    def memory(self) -> int:
        """Return the bytes that its memory holds."""
        return int(self.tell("INFO memory").partition("used_memory:")[2].split()[0])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it."""
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(how)
        self._process.wait(LIMIT)

    def pause(self) -> None:
        """Let it accept connections and answer nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # until it has stopped

    def resume(self) -> None:
        """Let it continue."""
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Stop it and remove its data."""
        self.stop()
        shutil.rmtree(self.folder)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            return self.tell("PING").startswith(("+PONG", "-NOAUTH"))
        except OSError:
            return False
