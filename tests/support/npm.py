"""Programs that come from npm, at the versions pinned here."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from baking import run

PINS = {"@mdn/mdn-http-observatory": "1.4.8", "axe-core": "4.14.1", "htmx.org": "2.0.11"}

UNUSED = {
    "@mdn/mdn-http-observatory": [
        "@fastify/cors", "@fastify/helmet", "@fastify/postgres", "@fastify/static", "@sentry/node",
        "axios-cookiejar-support", "change-case", "dayjs", "fastify", "fastify-simple-form", "ip",
        "node_extra_ca_certs_mozilla_bundle", "pg", "pg-format", "pg-native", "pg-pool", "postgrator", "postgrator-cli",
    ],
}  # fmt: skip
"""What only other programs of a package need, and most of its files: an empty package replaces each."""


def installed(package: str, folder: Path, environment: Mapping[str, str]) -> Path:
    """The files of `package`, installed below `folder`; no script of any package is run.

    The caller's own cache is used, so that a second run does not download everything again.
    """
    asked = subprocess.run(("npm", "config", "get", "cache"), capture_output=True, text=True, check=True)
    (folder / "empty").mkdir()
    (folder / "empty" / "package.json").write_text('{"name": "empty", "version": "1.0.0"}')
    overrides = {package: dict.fromkeys(UNUSED.get(package, []), "file:./empty")}
    (folder / "package.json").write_text(json.dumps({"overrides": overrides}))
    flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline")
    variables = {**environment, "npm_config_cache": asked.stdout.strip(), "PATH": os.environ["PATH"]}
    run("npm", "install", *flags, f"{package}@{PINS[package]}", cwd=folder, environment=variables)
    return folder / "node_modules" / package
