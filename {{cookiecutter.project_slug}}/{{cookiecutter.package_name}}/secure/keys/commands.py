"""The commands: flask secret-key init, generate, status, rotate, cancel, revoke, scan.

They are an entry point and build no app, so they work when the app cannot start. They act on the project in which they
are run (`project.py`). Only `generate` and `--print` print a key.
"""

import errno
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from . import files, report, sources
from .environment import APP_ENV, Environment, read_environment
from .git import ScanError, scan, untrack, would_track
from .key import Key, generate_key
from .keyring import ACTIVATION_DELAY, InvalidKeyringError, Keyring, NothingToCancelError, RotationInProgressError
from .project import ProjectError, find_project, foreign_dotenv
from .sources import DotenvSource, EnvironSource, FileSource
from .text import format_duration, message, parse_duration

WAIT = 10.0  # seconds for which a command that must not be lost waits for the lock


class _Commands(click.Group):
    """Shows an error of the commands as its message, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with output_errors():
                return super().invoke(ctx)
        except (InvalidKeyringError, files.FileError, ProjectError, ScanError) as error:
            _fail(str(error))


@contextmanager
def output_errors() -> Iterator[None]:
    """Show that the output cannot be written as a message, without a traceback."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:  # click ends quietly
            raise
        with suppress(OSError, ValueError):  # what is still buffered would fail again at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _fail(message("cannot write the output", (error.strerror or "unknown error").lower()))


def _seconds(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


duration_option = partial(click.option, metavar="DURATION", callback=_seconds)
_print = click.option("--print", "to_print", is_flag=True, help="Change nothing; print the variables to set.")


@click.group("secret-key", cls=_Commands)
def secret_key() -> None:
    """Manage the secret key: create, rotate, revoke.

    Exit status: 0 if it is done or there is nothing to do, 1 if it failed or was refused, 2 for wrong options.
    """


@secret_key.command()
def init() -> None:
    """Create the first key; never change an existing one."""
    environment = _environment()
    source = sources.find_source(environment)
    if isinstance(source, EnvironSource) or not _create_first_key(source):
        sources.read_keyring(source, sources.retention(environment))
        click.echo(f"Nothing changed: {source!r} already has a key.")
        return
    click.echo(f"Created a key in {source.path}.")
    with suppress(OSError, files.FileError):  # the key is there, whatever happens to the file from now on
        if os.name == "posix" and os.stat(source.path).st_mode & 0o077:
            click.echo(f"Others can read this file.\nhint: chmod 600 {shlex.quote(source.path)}")
        if isinstance(source, DotenvSource) and not read_environment(os.environ, environment.root).get(APP_ENV):
            hint = f"on your own machine, add {APP_ENV}=development to this file"
            click.echo(f"{APP_ENV} is not set, which means production.\nhint: {hint}")


@secret_key.command()
def generate() -> None:
    """Print one new key and nothing else, for a secret manager."""
    click.echo(generate_key(_now()).text)


@secret_key.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a monitor.")
@duration_option("--max-age", help="Fail if the signing key is older, e.g. 400d.")
def status(as_json: bool, max_age: int | None) -> None:
    """Show each key: fingerprint, state, dates, and where it is kept.

    Fails if an app would not start with this keyring, or if a wrong clock has dated a key far in the future.
    """
    source, keyring, _ = sources.load_keyring(_environment())
    now = _now()
    click.echo((report.as_json if as_json else report.table)(keyring, source, now))
    for key in keyring.far_future(now):
        _fail(message(f"key {key.fingerprint}", *report.far_future(keyring, now)))
    if max_age is not None and (age := report.too_old(keyring, now, max_age)):
        _fail(message(f"signing key {keyring.signing(now).fingerprint}", age, "flask secret-key rotate"))


@secret_key.command()
@duration_option("--in", "delay", help="When the new key starts to sign [default: 1h].")
@click.option("--now", "at_once", is_flag=True, help="Let it sign at once: for a single process.")
@duration_option("--if-older-than", "age", help="Do nothing if the newest key is younger, e.g. 90d.")
@_print
def rotate(delay: int | None, at_once: bool, age: int | None, to_print: bool) -> None:
    """Add a key that signs in one hour, and remove the expired ones. Nobody is logged out."""
    if at_once and delay is not None:
        raise click.UsageError("--in and --now exclude each other")
    environment = _environment()
    path, longest = sources.find_source(environment).path, sources.retention(environment)
    if delay and delay > longest:
        limit = f"{sources.RETENTION_SETTING} ({format_duration(longest)})"
        raise click.UsageError(f"--in: must not be longer than {limit}")

    def rotated(keyring: Keyring) -> Keyring | None:
        if age is not None and _is_young(keyring, age, to_print):
            return None
        if path and not to_print:
            _refuse_tracked(path)
        now = _now()
        try:
            new = generate_key(now if at_once else now + (ACTIVATION_DELAY if delay is None else delay))
            return keyring.with_new_key(new, now)
        except RotationInProgressError as error:
            reason = f"its key signs from {report.time_and_wait(error.activation, now)}"
            hint = "rotate again after that, or remove that key: flask secret-key cancel"
            _fail(message("a rotation is in progress", reason, hint))
        except (OverflowError, ValueError):
            hint = "check the clock of this machine"
            _fail(message("cannot rotate", "the new key would sign after the year 9999", hint))

    if changed := _change(environment, rotated, to_print, wait=WAIT if age is not None else 0):
        click.echo(report.rotation(*changed, _now(), redeploy=to_print), err=to_print)


@secret_key.command()
@_print
def cancel(to_print: bool) -> None:
    """Remove a key that has not signed yet. Nobody is logged out."""
    try:
        _change(_environment(), lambda keyring: keyring.without_upcoming(_now()), to_print)
    except NothingToCancelError as error:
        _fail(message("nothing to cancel", str(error)))


@secret_key.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@_print
def revoke(yes: bool, to_print: bool) -> None:
    """After a leak: replace all keys by one new key, which signs at once. Everyone is logged out."""
    environment = _environment()
    source = sources.find_source(environment)
    keys = (generate_key(_now()),)
    if to_print or isinstance(source, EnvironSource):
        _print_variables(keys, to_print)
        return
    if files.is_absent(source.path):
        _fail(message(source.path, "no such file", source.missing_hint))
    if isinstance(source, FileSource) and source.is_foreign():
        hint = "if it is the right file, copy it, empty it, then run the command again"
        _fail(message(source.path, "it has something else than keys (unchanged)", hint))
    try:
        if not yes:
            click.confirm(f"Replace all keys in {source.path} and log everyone out?", abort=True)
    except (click.Abort, RuntimeError):  # RuntimeError: standard input is closed
        _fail(message("revoke", "not confirmed (nothing changed)", "to do it without a question, add --yes"))
    with _locked(source, WAIT) as target:
        files.replace(target, source.text_with(keys))
    click.echo(f"{source.path} now has one key, {keys[0].fingerprint}.")
    sources.read_keyring(source, sources.retention(environment))  # an app that refuses the file keeps the old keyring
    click.echo("Running apps that read this file refuse the old keys within seconds.")
    if would_track(source.path):
        click.echo(f"warning: {message(source.path, 'git tracks this file', untrack(source.path))}", err=True)


@secret_key.command("scan")
def scan_command() -> None:
    """Search the files that git tracks for generated keys and `.env` files. Fails if there are any."""
    findings = scan(Path.cwd())
    for finding in findings:
        click.echo(finding)
    if findings:
        hint = "if the app uses such a key, everyone who can read the repository has it: flask secret-key revoke"
        _fail(message("scan", f"{len(findings)} found in the files that git tracks", hint))


def _fail(text: str) -> NoReturn:
    raise click.ClickException(text)


def _now() -> int:
    return int(time.time())


def _environment() -> Environment:
    """Return the environment of the project in which the command is run, after a warning if it has a useless key."""
    script_info = click.get_current_context().find_root().obj
    flask_app = getattr(script_info, "app_import_path", None) or os.environ.get("FLASK_APP", "")
    environment = read_environment(os.environ, find_project(flask_app))
    if problem := foreign_dotenv(environment):
        _fail(problem)
    if warning := environment.ignored_key():
        click.echo(f"warning: {warning}", err=True)
    return environment


def _create_first_key(source: DotenvSource | FileSource) -> bool:
    """Create the file, or give a `.env` without a key one; False if there is a key."""
    if files.is_absent(source.path):
        _refuse_tracked(source.path)
        with files.locked(source.path, WAIT):
            return files.create(source.path, source.text_with((generate_key(_now()),)))
    if _has_key(source):  # asked without the lock: a file that only others may change is no error
        return False
    _refuse_tracked(source.path)
    with _locked(source, WAIT) as target:
        if _has_key(source):
            return False
        files.replace(target, source.text_with((generate_key(_now()),), first=True))
        return True


def _has_key(source: DotenvSource | FileSource) -> bool:
    return any(text.strip() for _, text in source.entries())


def _refuse_tracked(path: str) -> None:
    if would_track(path):
        _fail(message(path, "git would track this file (unchanged)", untrack(path)))


def _is_young(keyring: Keyring, age: int, to_print: bool) -> bool:
    """Whether --if-older-than has nothing to do; says why."""
    now, newest = _now(), keyring.keys[0]
    if keyring.far_future(now) or newest.activation is None or now - newest.activation > age:
        return False
    why = f"is {format_duration(now - newest.activation)} old, not more than {format_duration(age)}"
    if newest.activation > now:
        why = f"signs from {report.time_and_wait(newest.activation, now)}"
    click.echo(f"Nothing to do: key {newest.fingerprint} {why}.", err=to_print)
    return True


def _change(
    environment: Environment, change: Callable[[Keyring], Keyring | None], to_print: bool, wait: float = 0
) -> tuple[Keyring, Keyring] | None:
    """Change the keyring, or print the variables to set; return it before and after, None if it is unchanged."""
    source, retention = sources.find_source(environment), sources.retention(environment)
    if to_print or isinstance(source, EnvironSource):
        before = sources.read_keyring(source, retention)
        if after := change(before):
            _print_variables(after.keys, to_print)
    else:
        with _locked(source, wait) as target:
            before = sources.read_keyring(source, retention)
            if after := change(before):
                files.replace(target, source.text_with(after.keys))
        if after:
            gone = ", ".join(key.fingerprint for key in before.keys if key not in after.keys)
            click.echo(f"Changed {source.path}." + (f" Removed: {gone}." if gone else ""))
    return (before, after) if after else None


def _print_variables(keys: tuple[Key, ...], to_print: bool) -> None:
    if not to_print:
        hint = f"set what this prints: flask secret-key {click.get_current_context().info_name} --print"
        _fail(message("the keyring is in the process environment", "a command cannot change it", hint))
    for name, value in sources.as_variables(keys).items():
        click.echo(f"{name}={value}")


@contextmanager
def _locked(source: DotenvSource | FileSource, wait: float = 0) -> Iterator[str]:
    """Hold the lock for a change of the source's file; give the file's path. Say so if it is in another folder."""
    target = files.resolve(source.path)
    if os.path.dirname(target) != os.path.dirname(source.path):
        click.echo(f"{source.path} is a link to {target}.", err=True)
    with files.locked(target, wait):
        yield target
