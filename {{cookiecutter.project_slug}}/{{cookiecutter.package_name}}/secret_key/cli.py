"""The commands: flask secret-key init, generate, status, rotate, revoke, scan.

They are registered as an entry point and build no app, so they work where the app cannot start.
A key is printed by `generate` and `--print` alone.
"""

import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import click

from . import store
from .duration import format_duration, parse_duration
from .environment import Environment, project_root, read_environment
from .key import Key, mint
from .keyring import LEAD, Keyring, RingRefused, RotationUnderWay, State
from .scan import ScanError, scan
from .source import (
    Dotenv,
    KeyFile,
    Source,
    Variables,
    as_variables,
    load_ring,
    locate,
    read_ring,
    retention,
)


class Duration(click.ParamType[int]):
    """A length of time on the command line, such as 30m or 1h, in seconds."""

    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seconds that `value` means."""
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error))


@click.group("secret-key")
def secret_key() -> None:
    """The secret key's life: first key, rotation, leak."""


@secret_key.command()
def init() -> None:
    """Make the first key where there is none; an existing one is never changed."""
    with _one_line_errors():
        environment = _environment()
        source = locate(environment)
        if not isinstance(source, Variables) and _make_first_key(source):
            whose = _others_can_read(source.path) or "Nobody else has it"
            click.echo(f"Made {source.path} with a new key. {whose}; keep it out of git.")
            return
        read_ring(source, retention(environment))
        click.echo(f"There is a key already (from {source!r}): nothing was changed.")


@secret_key.command()
def generate() -> None:
    """Print one new key, and nothing else: for a secret manager."""
    click.echo(mint(_now()).text)


@secret_key.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a monitor.")
@click.option("--max-age", type=Duration(), help="Fail where the signing key is older, e.g. 400d.")
def status(as_json: bool, max_age: int | None) -> None:
    """Show every key: fingerprint, state, since, until, and where it came from."""
    with _one_line_errors():
        source, ring = load_ring(_environment())
    now = _now()
    if as_json:
        rows = [_json_row(ring, key, source, now) for key in ring.keys]
        click.echo(json.dumps({"keys": rows, "retention_seconds": ring.retention}, indent=2))
    else:
        click.echo(_table(ring, source, now))
    signs_from = ring.signing(now).signs_from
    if max_age is not None and (signs_from is None or now - signs_from > max_age):
        age = "of unknown age" if signs_from is None else f"{format_duration(now - signs_from)} old"
        raise click.ClickException(f"the signing key is {age}; run: flask secret-key rotate")


@secret_key.command()
@click.option("--in", "lead", type=Duration(), help="When the new key starts to sign [default: 1h].")
@click.option("--now", "at_once", is_flag=True, help="It signs at once: for a single process.")
@click.option("--print", "to_print", is_flag=True, help="Change nothing; print the variables to set.")
def rotate(lead: int | None, at_once: bool, to_print: bool) -> None:
    """Add a key that signs from an hour ahead, and drop the expired ones. Nobody is logged out."""
    if at_once and lead is not None:
        raise click.UsageError("--in and --now exclude each other")
    seconds = 0 if at_once else LEAD if lead is None else lead
    with _one_line_errors():
        environment = _environment()
        source = locate(environment)
        signs_from = _now() + seconds
        if to_print or isinstance(source, Variables):
            ring = _rotated(read_ring(source, retention(environment)), signs_from)
            _print_variables(ring, to_print, "rotate")
        else:
            with _changing(source):
                before = read_ring(source, retention(environment))
                ring = _rotated(before, signs_from)
                _write(source, ring.keys)
            gone = ", ".join(key.fingerprint for key in before.keys if key not in ring.keys)
            click.echo(f"Added a key to {source.path}." + (f" Dropped, expired: {gone}." if gone else ""))
        click.echo(_rotation_summary(ring, signs_from), err=to_print)


@secret_key.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--print", "to_print", is_flag=True, help="Change nothing; print the variables to set.")
def revoke(yes: bool, to_print: bool) -> None:
    """After a leak: one new key signs at once, all others are gone. Everybody is logged out."""
    with _one_line_errors():
        environment = _environment()
        source = locate(environment)
        keys = (mint(_now()),)
        if to_print or isinstance(source, Variables):
            _print_variables(Keyring(keys), to_print, "revoke")
            return
        if not os.path.exists(source.path):
            raise click.ClickException(f"{source.path} is not there; {source.first_key}")
        if not yes:
            click.confirm(f"All keys in {source.path} go, and everybody is logged out. Go on?", abort=True)
        with _changing(source):
            _write(source, keys)
        click.echo(f"{source.path} has one new key, {keys[0].fingerprint}, and no other.")
        read_ring(source, retention(environment))  # apps that refuse the file would keep the old ring
        click.echo("Running apps that follow the file refuse all that was signed before, in seconds.")


@secret_key.command("scan")
def scan_command() -> None:
    """Look for minted keys, and for a .env, among the files that git tracks."""
    try:
        findings = scan(Path.cwd())
    except ScanError as error:
        raise click.ClickException(str(error)) from None
    for finding in findings:
        click.echo(finding)
    if findings:
        raise click.ClickException("a key in git has leaked; replace it: flask secret-key revoke")


def _environment() -> Environment:
    return read_environment(os.environ, project_root(Path(__file__).parents[1]))


def _now() -> int:
    return int(time.time())


def _others_can_read(path: str) -> str:
    """What to do where others can read the file, which was there before; nothing where they cannot."""
    with suppress(OSError):  # the key is made, whatever happens to the file from now on
        if os.name == "posix" and os.stat(path).st_mode & 0o077:
            return f"Others can read it, run: chmod 600 {shlex.quote(path)}"
    return ""


def _make_first_key(source: Dotenv | KeyFile) -> bool:
    """Make the file, or give a `.env` that has no key one; False where a key stands there."""
    if store.is_absent(source.path):
        with store.locked(source.path):
            return store.create(source.path, source.first_text(_now()))
    if _has_key(source):  # asked without the lock: a file that only others may change is no error
        return False
    with _changing(source):
        if _has_key(source):
            return False
        _write(source, (mint(_now()),))
        return True


def _has_key(source: Dotenv | KeyFile) -> bool:
    return bool(source.entries()[0][1].strip())


def _rotated(ring: Keyring, signs_from: int) -> Keyring:
    now = _now()
    try:
        return ring.rotated(mint(signs_from), now)
    except RotationUnderWay as under_way:
        end = _time_and_wait(under_way.signs_from, now)
        raise click.ClickException(
            f"a rotation is under way: its key signs from {end}; rotate again after that"
        ) from None


def _print_variables(ring: Keyring, to_print: bool, command: str) -> None:
    if not to_print:
        raise click.ClickException(
            f"the ring is in the process environment, which a command cannot change;"
            f" set both variables that this prints: flask secret-key {command} --print"
        )
    for name, value in as_variables(ring.keys).items():
        click.echo(f"{name}={value}")


@contextmanager
def _changing(source: Dotenv | KeyFile) -> Iterator[None]:
    """The lock for a change of the file that `source` names; a link to another folder is told of."""
    target = os.path.realpath(source.path)
    if os.path.dirname(target) != os.path.realpath(os.path.dirname(source.path)):
        click.echo(f"{source.path} is a link: {target} is what changes.", err=True)
    with store.locked(target):
        yield


def _write(source: Dotenv | KeyFile, keys: tuple[Key, ...]) -> None:
    store.replace(os.path.realpath(source.path), source.text_with(keys))


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except RingRefused as refusal:
        raise click.ClickException("\n".join(refusal.problems)) from None
    except store.StoreError as error:
        raise click.ClickException(str(error)) from None


def _rotation_summary(ring: Keyring, signs_from: int) -> str:
    now = _now()
    new, old = ring.keys[:2]
    start, end = (_time_and_wait(at, now) for at in (signs_from, signs_from + ring.retention))
    return (
        f"The new key {new.fingerprint} verifies now and signs from {start}.\n"
        f"The old key {old.fingerprint} signs until then and verifies until {end}.\n"
        "There is nothing more to do, once every instance has the new ring; a file is followed by itself."
    )


def _table(ring: Keyring, source: Source, now: int) -> str:
    rows = [("FINGERPRINT", "STATE", "SIGNS FROM", "VERIFIES UNTIL", "SOURCE")]
    for key in ring.keys:
        state = ring.state(key, now)
        since = "unknown (made elsewhere)" if key.signs_from is None else _time(key.signs_from)
        until = ring.verifies_until(key)
        end = "" if state is State.EXPIRED else "replaced" if until is None else _time(until)
        rows.append((key.fingerprint, state.value, since, end, repr(source)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    change = ring.next_change(now)
    ending = f"\nNext change: {_time_and_wait(change, now)}." if change else ""
    return "\n".join(line.rstrip() for line in lines) + ending


def _json_row(ring: Keyring, key: Key, source: Source, now: int) -> dict[str, str | int | None]:
    return {
        "fingerprint": key.fingerprint,
        "state": ring.state(key, now).value,
        "signs_from": key.signs_from,
        "verifies_until": ring.verifies_until(key),
        "source": repr(source),
    }


def _time_and_wait(at: int, now: int) -> str:
    return f"{_time(at)} (in {format_duration(at - now)})" if at > now else f"{_time(at)} (now)"


def _time(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
