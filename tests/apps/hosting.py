"""Stand-ins for the commands of four platforms: hosting.py FOLDER PROGRAM ARGUMENT...

They accept the arguments that docs/deploy.md uses, and refuse what the real commands refuse. Each reads, prints and
stores what the real one does (heroku/cli 10, superfly/flyctl 0.3, the references of gcloud and aws). `variables` in
FOLDER has the variables of the app, and `versions` each version of the one secret. They are no platform.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

FOLDER, PROGRAM, *ARGUMENTS = sys.argv[1:]
VARIABLES, VERSIONS = Path(FOLDER, "variables"), Path(FOLDER, "versions")


def variables() -> dict[str, str]:
    """Return the variables of the app."""
    stored: dict[str, str] = json.loads(VARIABLES.read_text()) if VARIABLES.exists() else {}
    return stored


def store(changes: dict[str, str]) -> None:
    """Set variables, all in one change."""
    VARIABLES.write_text(json.dumps(variables() | changes))


def environment() -> dict[str, str]:
    """Return what a command in a running instance has."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH")} | variables()


def heroku(command: str, *arguments: str) -> int:
    """Set variables and show them, or run a line of shell in a one-off dyno, whose two outputs are one stream."""
    if command == "config:set":
        if not arguments or not all("=" in each for each in arguments):
            print("Must specify KEY and VALUE to set.", file=sys.stderr)
            return 1
        store(dict(each.split("=", 1) for each in arguments))
        print("Setting config vars and restarting app... done", file=sys.stderr)
        for each in arguments:
            print(each.replace("=", ": ", 1))
        return 0
    *flags, line = arguments
    assert (command, flags) == ("run", ["--no-tty", "--"])
    print("Running the command on app... up", file=sys.stderr)
    # Without --exit-code, the status is lost.
    subprocess.run(["bash", "-c", line], env=environment(), stderr=subprocess.STDOUT, check=False)
    return 0


def fly(*arguments: str) -> int:
    """Set the secrets that standard input has, or run a command, without a shell, in a running machine."""
    if arguments == ("secrets", "import"):
        lines = [line for line in sys.stdin.read().splitlines() if line.strip() and not line.startswith("#")]
        if wrong := [line for line in lines if "=" not in line]:
            print("Error: Secrets must be provided as NAME=VALUE pairs", len(wrong), file=sys.stderr)
            return 1
        if not lines:
            print("Error: requires at least one SECRET=VALUE pair", file=sys.stderr)
            return 1
        store(dict(line.split("=", 1) for line in lines))
        return 0
    *command, line = arguments
    assert command == ["ssh", "console", "-C"]
    of_image = {"APP_ENV": "production", "FLASK_APP": os.environ["FLASK_APP"]}
    return subprocess.run(shlex.split(line), env=of_image | environment(), cwd="/", check=False).returncode


def gcloud(*arguments: str) -> int:
    """Create the secret, print its newest version, or add one."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    commands = parser.add_subparsers(required=True).add_parser("secrets").add_subparsers(dest="command", required=True)
    versions = commands.add_parser("versions").add_subparsers(dest="command", required=True)
    for command in (commands.add_parser("create"), versions.add_parser("add")):
        command.add_argument("secret")
        command.add_argument("--data-file", required=True)
    access = versions.add_parser("access")
    access.add_argument("version", choices=["latest"])
    access.add_argument("--secret", required=True)
    given = parser.parse_args(arguments)
    assert given.secret == "keyring"
    kept: list[str] = json.loads(VERSIONS.read_text()) if VERSIONS.exists() else []
    if given.command == "access":
        print(kept[-1], end="")
        return 0
    if (given.command == "create") == bool(kept):
        print("ERROR: (gcloud.secrets) ALREADY_EXISTS or NOT_FOUND", file=sys.stderr)
        return 1
    text = sys.stdin.read() if given.data_file == "-" else Path(given.data_file).read_text()
    VERSIONS.write_text(json.dumps([*kept, text]))
    return 0


def aws(*arguments: str) -> int:
    """Let a service start new tasks."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    service = parser.add_subparsers(required=True).add_parser("ecs").add_subparsers(required=True)
    update = service.add_parser("update-service")
    update.add_argument("--service", required=True)
    update.add_argument("--cluster")
    update.add_argument("--force-new-deployment", action="store_true", required=True)
    parser.parse_args(arguments)
    return 0


STAND_INS: dict[str, Callable[..., int]] = {"heroku": heroku, "fly": fly, "gcloud": gcloud, "aws": aws}
sys.exit(STAND_INS[PROGRAM](*ARGUMENTS))
