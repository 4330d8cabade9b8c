"""Programs that come from npm, at the versions pinned here."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from baking import run

PINS = {"@mdn/mdn-http-observatory": "1.4.8", "axe-core": "4.14.1", "htmx.org": "2.0.11"}


def installed(package: str, folder: Path, environment: Mapping[str, str]) -> Path:
    """The files of `package`, installed below `folder`; no script of any package is run.

    The caller's own cache is used, so that a second run does not download everything again.
    """
    asked = subprocess.run(("npm", "config", "get", "cache"), capture_output=True, text=True, check=True)
    (folder / "package.json").write_text("{}")
    flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline")
    variables = {**environment, "npm_config_cache": asked.stdout.strip(), "PATH": os.environ["PATH"]}
    run("npm", "install", *flags, f"{package}@{PINS[package]}", cwd=folder, environment=variables)
    return folder / "node_modules" / package
