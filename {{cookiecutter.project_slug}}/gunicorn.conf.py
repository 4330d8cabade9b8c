"""How gunicorn serves the app: run `gunicorn` in this folder.

gunicorn itself reads PORT (it then listens on every address, else on 127.0.0.1:8000) and
WEB_CONCURRENCY, the number of worker processes; WEB_THREADS is the number of threads of each. The app
logs one line a request, with its id, so gunicorn keeps no access log of its own.

A name here that is also one of gunicorn's settings sets it.
"""

import gc
import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from importlib.machinery import PathFinder
from types import ModuleType

from gunicorn.glogging import Logger

PACKAGE = "{{ cookiecutter.package_name }}"


def judged():
    """The app's settings, or the end of the start: one line for each thing that is wrong with them.

    The master judges, before it forks: a worker that refuses to start is started again and again. What is
    good it shares with its workers and with its own later self, so that one which starts when the key file
    or `.env` has gone bad, at a reload or after a crash, has what was good last. It leaves no module of the
    app or its dependencies behind: the workers of a reload import what is there then.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    found = PathFinder.find_spec(PACKAGE, [here, *sys.path])
    if found is None:
        sys.exit(f"{PACKAGE} is not installed; run: uv sync")
    before = set(sys.modules)
    startup = ModuleType("startup")  # the package without its __init__, which would import the app
    startup.__path__ = found.submodule_search_locations
    sys.modules["startup"] = startup
    from startup.config import ConfigError, load  # noqa: PLC0415
    from startup.secret_key import handover  # noqa: PLC0415

    handover.share()
    try:
        settings = load(reload=True)
    except ConfigError as error:
        sys.exit(str(error))
    for name in set(sys.modules) - before - {handover.PLACE}:
        if name.partition(".")[0] not in sys.stdlib_module_names:
            del sys.modules[name]
    # What is here now the workers share, as long as no collection of theirs writes to it.
    gc.collect()
    gc.freeze()
    return settings


def number(name, default):
    """A whole number above zero from the environment, or the end of the start."""
    text = os.environ.get(name) or default
    if text.isdecimal() and int(text):
        return int(text)
    return sys.exit(f"{name} must be a whole number above zero, such as {default}")


class JsonLines(logging.Formatter):
    """Writes what gunicorn itself says as the app writes its log: a JSON object a line."""

    def format(self, record):
        """One line."""
        fields = {"level": record.levelname, "logger": record.name, "message": super().format(record)}
        return json.dumps({**fields, "time": datetime.fromtimestamp(record.created, UTC).isoformat()})


class JsonLogger(Logger):
    """gunicorn's logger, writing JSON."""

    def setup(self, cfg):
        """Set the handlers up as gunicorn does, then their form."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(JsonLines())


settings = judged()


def when_ready(server):
    """Say once for the whole server, at its start and at a reload, what an app alone says for itself."""
    for level, line in settings.notices(time.time()):
        server.log.log(level, "%s", line)


on_reload = when_ready


wsgi_app = f"{PACKAGE}:create_app()"
workers = number("WEB_CONCURRENCY", "2")
threads = number("WEB_THREADS", "4")
if settings.production:
    logger_class = JsonLogger

# Seconds that requests have to end when their worker is told to stop, and that a worker may hang.
timeout = graceful_timeout = 30
# An idle connection is kept for longer than a load balancer keeps it (mostly 60 seconds): the one that
# sends has to be the one that hangs up.
keepalive = 75
# The workers' sign of life: in memory, where the root file system is read-only or slow.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
# No way in to steer a running server but its signals.
control_socket_disable = True
# Nothing that a client could have sent is believed here; TRUSTED_PROXIES tells the app what to believe.
forwarded_allow_ips = ""
secure_scheme_headers = {}
forwarder_headers = ""
