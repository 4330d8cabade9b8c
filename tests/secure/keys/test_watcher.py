"""The keyring of a running app: it follows its file and the clock, and Flask's settings follow it."""

import gc
import logging
import os
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from pprint import pformat
from typing import Any

import pytest
from flask import Config, Flask, current_app
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import URLSafeTimedSerializer
from secure.keys import files
from secure.keys import watcher as module
from secure.keys.key import Key, generate_key
from secure.keys.keyring import ACTIVATION_DELAY, RETENTION
from secure.keys.sources import DotenvSource, EnvironSource, FileSource, Source, as_variables, identity, read_keyring
from secure.keys.watcher import ActiveKeys, KeyringWatcher, get_watcher, init_app

NOW = 1_800_000_000
OLD, NEW, NEWER = (generate_key(NOW + start) for start in (-1000, ACTIVATION_DELAY, 2 * ACTIVATION_DELAY))
INTERVAL = 5.0


class Clock:
    """The clock on the wall and the one that only counts, both in the test's hand."""

    def __init__(self) -> None:
        self.wall = float(NOW)
        self.steady = 0.0

    def pass_(self, seconds: float) -> None:
        """Let time go by."""
        self.wall += seconds
        self.steady += seconds


def watch(source: Source, clock: Clock) -> KeyringWatcher:
    keyring, seen = read_keyring(source, RETENTION), identity(source)
    return KeyringWatcher(source, keyring, INTERVAL, lambda: clock.wall, lambda: clock.steady, seen)


def lines(*keys: Key) -> str:
    return "".join(f"{key.text}\n" for key in keys)


_moments = count(1)


def write(path: Path, text: str) -> None:
    """Write in place, a moment later than any write before."""
    path.write_text(text)
    path.chmod(0o600)
    os.utime(path, (next(_moments), next(_moments)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A key file with one key."""
    path = tmp_path / "keyring"
    write(path, lines(OLD))
    return path


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until the test lets time go by."""
    return Clock()


@pytest.fixture
def watcher(path: Path, clock: Clock) -> KeyringWatcher:
    """A watcher of the key file, after its first look."""
    watcher = watch(FileSource(str(path)), clock)
    watcher.current()
    return watcher


# Following the file


def write_in_place(path: Path, text: str) -> None:
    write(path, text)


def rename_over(path: Path, text: str) -> None:
    write(path.with_name("new"), text)
    path.with_name("new").replace(path)


def point_link_elsewhere(path: Path, text: str) -> None:
    write(path.with_name("other"), text)
    path.unlink()
    path.symlink_to("other")


@pytest.mark.parametrize("change", [write_in_place, rename_over, point_link_elsewhere])
def test_file_changes(watcher: KeyringWatcher, path: Path, clock: Clock, change: Callable[[Path, str], None]) -> None:
    assert watcher.current().verifying == (OLD,)

    change(path, lines(NEW, OLD))
    assert watcher.current().verifying == (OLD,), "before the interval is over"
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (NEW, OLD)


def test_kubernetes_volume(tmp_path: Path, clock: Clock) -> None:
    def publish(version: str, text: str) -> None:
        (tmp_path / version).mkdir()
        write(tmp_path / version / "ring", text)
        (tmp_path / "..data_tmp").symlink_to(version)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    publish("..2026_11_22", lines(OLD))
    (tmp_path / "ring").symlink_to("..data/ring")
    watcher = watch(FileSource(str(tmp_path / "ring")), clock)
    watcher.current()
    publish("..2026_11_23", lines(NEW, OLD))
    clock.pass_(INTERVAL)

    assert watcher.current().verifying == (NEW, OLD)


def test_dotenv_changes(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / ".env"
    write(path, f"SECRET_KEY={OLD.text}\n")
    watcher = watch(DotenvSource(str(path)), clock)
    write(path, "".join(f"{name}={value}\n" for name, value in as_variables((NEW, OLD)).items()))

    assert watcher.current().verifying == (NEW, OLD)


def test_variables(clock: Clock) -> None:
    """A keyring in variables changes with time alone."""
    watcher = watch(EnvironSource(as_variables((NEW, OLD))), clock)
    assert watcher.current().signing == OLD

    clock.pass_(ACTIVATION_DELAY)
    assert watcher.current().signing == NEW
    clock.pass_(RETENTION)
    assert watcher.current().verifying == (NEW,)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The paths that os.stat is asked for, and the files that are read."""
    stat, read, looks = os.stat, files.read_key_file, list[object]()

    def counting_stat(*arguments: Any, **options: Any) -> os.stat_result:
        looks.append(arguments)
        return stat(*arguments, **options)

    def counting_read(path: str) -> list[str]:
        looks.append("read")
        return read(path)

    monkeypatch.setattr(os, "stat", counting_stat)
    monkeypatch.setattr(files, "read_key_file", counting_read)
    return looks


def test_one_stat_per_interval(watcher: KeyringWatcher, path: Path, clock: Clock, looks: list[object]) -> None:
    for _ in range(20 * 40):
        clock.pass_(INTERVAL / 40)
        watcher.current()
    assert looks == [(str(path),)] * 20

    write(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    watcher.current()
    assert "read" in looks, "a control"


def test_refresh(watcher: KeyringWatcher, path: Path, clock: Clock) -> None:
    """It reads at once, and the interval begins anew."""
    rename_over(path, lines(NEW, OLD))
    assert watcher.refresh() is watcher.current()
    assert watcher.current().verifying == (NEW, OLD)

    rename_over(path, lines(NEWER, NEW, OLD))
    clock.pass_(INTERVAL - 0.01)
    assert watcher.current().verifying == (NEW, OLD)
    clock.pass_(0.01)
    assert watcher.current().verifying == (NEWER, NEW, OLD)


def test_clock_set_back(path: Path, clock: Clock) -> None:
    write(path, lines(NEW, OLD))
    watcher = watch(FileSource(str(path)), clock)
    clock.pass_(ACTIVATION_DELAY)
    assert watcher.current().signing == NEW

    clock.wall -= ACTIVATION_DELAY
    clock.steady += INTERVAL
    assert watcher.current().signing == OLD
    clock.wall += ACTIVATION_DELAY
    assert watcher.current().signing == NEW


def test_on_change(watcher: KeyringWatcher, path: Path, clock: Clock) -> None:
    """A listener is told at once, and once per change."""
    told: list[ActiveKeys] = []
    watcher.on_change(told.append)
    rename_over(path, lines(NEW, OLD))
    for _ in range(3):
        clock.pass_(INTERVAL)
        assert watcher.current() is watcher.current()
    clock.wall = NOW + ACTIVATION_DELAY
    watcher.current()

    assert told == [ActiveKeys(OLD, (OLD,)), ActiveKeys(OLD, (NEW, OLD)), ActiveKeys(NEW, (NEW, OLD))]


def test_seen(path: Path, clock: Clock, looks: list[object]) -> None:
    """The file is read again at the first look only if it has changed since the keyring was read."""
    source, keyring = FileSource(str(path)), read_keyring(FileSource(str(path)), RETENTION)
    seen = identity(source)
    looks.clear()
    KeyringWatcher(source, keyring, seen=seen).current()
    assert "read" not in looks
    KeyringWatcher(source, keyring).current()
    assert "read" in looks

    write(path, lines(NEW, OLD))
    assert KeyringWatcher(source, keyring, clock=lambda: NOW, seen=seen).current().verifying == (NEW, OLD)


def test_frozen_clock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that freeze the time of a test replace `time.time`."""
    watcher = KeyringWatcher(FileSource(str(path)), read_keyring(FileSource(str(path)), RETENTION))
    monkeypatch.setattr(time, "time", lambda: NOW + 7.0)

    assert watcher.now == NOW + 7


# A file that is being written


def test_half_written(watcher: KeyringWatcher, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The keys that verified stay at that look; a file that is unchanged at the next one counts."""
    rename_over(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (NEW, OLD)

    write(path, lines(NEWER))
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (NEW, OLD)
    write(path, lines(NEWER, NEW))
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (NEW, OLD), "it has changed again"
    assert errors(caplog) == [
        f"Keeping the last valid secret key: {path}: keys are missing, the file may not be complete yet"
    ]
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (NEWER, NEW)


def test_completed(watcher: KeyringWatcher, path: Path, clock: Clock) -> None:
    write(path, lines(NEW))
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (OLD,)
    write(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (NEW, OLD)


def test_half_written_after_invalid(watcher: KeyringWatcher, path: Path, clock: Clock) -> None:
    """Also where the file was invalid or unreadable in between."""
    for spoil in (damage, open_to_all):
        spoil(path)
        clock.pass_(INTERVAL)
        assert watcher.current().verifying == (OLD,)
    write(path, lines(NEW))
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (OLD,)


def test_reused_inode(watcher: KeyringWatcher, path: Path, clock: Clock) -> None:
    """A new file may get the inode of an older one; only the last one that was there counts."""
    inode = path.stat().st_ino
    kept = path.with_name("kept")
    os.link(path, kept)
    write(path.with_name("new"), "invalid\n")
    path.with_name("new").replace(path)
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (OLD,)
    write(kept, lines(NEW))
    kept.replace(path)
    clock.pass_(INTERVAL)

    assert path.stat().st_ino == inode
    assert watcher.current().verifying == (NEW,)


def test_settled(watcher: KeyringWatcher, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was written some seconds ago is complete, and so is one that was renamed into its place."""
    write(path, lines(NEW))
    now = path.stat().st_ctime
    monkeypatch.setattr(time, "time", lambda: now + module.SETTLED - 0.1)
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (OLD,)
    os.utime(path)
    now = path.stat().st_ctime
    monkeypatch.setattr(time, "time", lambda: now + module.SETTLED + 0.1)
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (NEW,)

    rename_over(path, lines(OLD))
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (OLD,)


def test_expired_key_dropped_in_place(path: Path, clock: Clock) -> None:
    """A key that does not verify any more is not missed."""
    write(path, lines(NEW, OLD))
    watcher = watch(FileSource(str(path)), clock)
    clock.pass_(ACTIVATION_DELAY + RETENTION)
    watcher.current()
    write(path, lines(NEWER, NEW))
    clock.pass_(INTERVAL)

    assert watcher.current().verifying == (NEWER, NEW)


def test_cut_key(path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing tells a cut hexadecimal key from a shorter one, but what was there before."""
    text = os.urandom(32).hex()
    write(path, f"{text}\n")
    watcher = watch(FileSource(str(path)), clock)
    for change in (write_in_place, rename_over):
        change(path, f"{text[:40]}\n")
        for _ in range(3):
            clock.pass_(INTERVAL)
            assert [key.text for key in watcher.current().verifying] == [text]
    cut = Key(text[:40]).fingerprint
    assert errors(caplog) == [
        f"Keeping the last valid secret key: {path}: key {cut} is the beginning of a key that was there before\n"
        "hint: write the whole key"
    ]

    rename_over(path, f"{text[1:41]}\n")
    clock.pass_(INTERVAL)
    assert [key.text for key in watcher.current().verifying] == [text[1:41]], "a control"


# A file that has become invalid


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def remove(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    write(path, lines(NEW, OLD)[:-2])


def empty(path: Path) -> None:
    write(path, "")


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


def put_a_folder_there(path: Path) -> None:
    path.unlink()
    path.mkdir()


def write_a_message(path: Path) -> None:
    write(path, '{"errors":["1 error occurred: permission denied"]}')


@pytest.mark.parametrize("spoil", [remove, damage, empty, open_to_all, put_a_folder_there, write_a_message])
def test_invalid(
    watcher: KeyringWatcher,
    path: Path,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
) -> None:
    """The last valid keyring stays, and the log says so once."""
    spoil(path)
    for _ in range(10):
        clock.pass_(INTERVAL)
        assert watcher.current().verifying == (OLD,)

    (error,) = errors(caplog)
    assert error.startswith("Keeping the last valid secret key: ")
    assert str(path) in error
    assert not any(key.text[:40] in caplog.text for key in (OLD, NEW))


@pytest.mark.parametrize(("source", "text"), [(FileSource, lines(OLD)), (DotenvSource, f"SECRET_KEY={OLD.text}\n")])
def test_removed(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, source: Callable[[str], Source], text: str
) -> None:
    path.write_text(text)
    watcher = watch(source(str(path)), clock)
    path.unlink()
    watcher.current()

    (error,) = errors(caplog)
    assert error.endswith(f": {path}: no such file\nhint: put the file back; a new key would log everyone out")


def test_valid_again(watcher: KeyringWatcher, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for good in ((OLD,), (NEW, OLD), (NEWER, NEW, OLD)):
        write(path, lines(*good))
        clock.pass_(INTERVAL)
        assert watcher.current().verifying == good
        damage(path)
        clock.pass_(INTERVAL)
        assert watcher.current().verifying == good

    assert len(errors(caplog)) == 3
    assert caplog.messages.count(f"The secret key in {path} is valid again") == 2


def test_read_once(
    watcher: KeyringWatcher, path: Path, clock: Clock, looks: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    """A valid file is read once, and once more when it was not valid for a while."""
    caplog.set_level(logging.INFO)
    for make in (partial(write, path, lines(NEW, OLD)), partial(damage, path), partial(write, path, lines(NEW, OLD))):
        make()
        looks.clear()
        for _ in range(10):
            clock.pass_(INTERVAL)
            watcher.current()
        assert looks.count("read") == 1

    assert caplog.messages.count(f"The secret key in {path} is valid again") == 1


def test_back_unchanged(
    watcher: KeyringWatcher, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mount that was away for a moment shows the very same file again."""
    caplog.set_level(logging.INFO)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(watcher, "source", FileSource(f"{path}-gone"))
            clock.pass_(INTERVAL)
            watcher.current()
        clock.pass_(INTERVAL)
        watcher.current()

    assert len(errors(caplog)) == 2
    assert caplog.messages.count(f"The secret key in {path} is valid again") == 2


def test_never_invalid(watcher: KeyringWatcher, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for keys in ((NEW, OLD), (NEW,)):
        rename_over(path, lines(*keys))
        clock.pass_(INTERVAL)
        watcher.current()

    assert "has changed" in caplog.text
    assert "valid again" not in caplog.text


def test_mode_corrected(watcher: KeyringWatcher, path: Path, clock: Clock) -> None:
    write(path, lines(NEW, OLD))
    path.chmod(0o666)
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (OLD,)

    path.chmod(0o600)
    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (NEW, OLD)


JUNK = {
    "1 MB of short lines": "x\n" * 500_000,
    "1 MB in one line": "x" * 1_000_000,
    "more than 1 MiB": "x\n" * 600_000,
    "3,000 keys": "".join(f"{generate_key(NOW - number).text}\n" for number in range(3000)),
    "3,000 damaged keys": "".join(f"{generate_key(NOW - number).text[:-1]}\n" for number in range(3000)),
    "a page": "<!doctype html>\n" + "<p>Sign in</p>\n" * 30_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("source", [FileSource, DotenvSource])
def test_junk(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, source: Callable[[str], Source], junk: str
) -> None:
    """However large it is, the log line is short, and memory is bounded."""
    write(path, lines(OLD) if source is FileSource else f"SECRET_KEY={OLD.text}\n")
    watcher = watch(source(str(path)), clock)
    write(path, junk if source is FileSource else f"SECRET_KEY={junk[:-1].replace(chr(10), ',')}")
    tracemalloc.start()
    try:
        assert watcher.current().verifying == (OLD,)
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    (error,) = errors(caplog)
    assert len(error) < 3000
    assert memory < 150e6


def test_unchanged_junk(
    watcher: KeyringWatcher, path: Path, clock: Clock, looks: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    """The same invalid content is not validated again; another one is."""
    for expected in (1, 2):
        write(path, "x\n" * 100)
        looks.clear()
        for _ in range(10):
            clock.pass_(INTERVAL)
            watcher.current()
        assert looks.count("read") == 1, expected
    assert len(errors(caplog)) == 1


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """No file can be opened."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_unreadable_for_a_moment(
    watcher: KeyringWatcher, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    with no_descriptor_left():
        assert watcher.current().verifying == (OLD,)
    assert "too many open files" in caplog.text

    clock.pass_(INTERVAL)
    assert watcher.current().verifying == (NEW, OLD)


def test_change_is_logged(watcher: KeyringWatcher, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    watcher.current()

    assert caplog.messages == [
        f"The keyring has changed: {NEW.fingerprint} upcoming, {OLD.fingerprint} signing (from {path})"
    ]


def test_retention_is_kept(path: Path, clock: Clock) -> None:
    watcher = KeyringWatcher(FileSource(str(path)), read_keyring(FileSource(str(path)), 60), 0, lambda: clock.wall)
    write(path, lines(NEW, OLD))
    watcher.current()

    assert watcher.keyring.keys == (NEW, OLD)
    assert watcher.keyring.retention == 60


def test_repr(watcher: KeyringWatcher, path: Path) -> None:
    assert watcher.now == NOW
    assert repr(watcher) == f"<KeyringWatcher of {path}>"
    assert OLD.text not in f"{watcher.current()} {watcher.keyring}"


def test_defaults(path: Path) -> None:
    """The real clocks, and a look every five seconds."""
    watcher = KeyringWatcher(FileSource(str(path)), read_keyring(FileSource(str(path)), RETENTION))

    assert abs(watcher.now - time.time()) < 60
    assert module.INTERVAL == 5


# Flask's settings


class SlowConfig(Config):
    """Settings that let other threads run between any two changes of them."""

    def __setitem__(self, name: str, value: object) -> None:
        super().__setitem__(name, value)
        time.sleep(0)


class Adopter(Flask):
    """A bare Flask app."""

    config_class = SlowConfig


@pytest.fixture
def app(watcher: KeyringWatcher) -> Flask:
    """An app that follows the key file."""
    app = Adopter("adopter")
    init_app(app, watcher)
    return app


def settings(app: Flask) -> tuple[object, object, object]:
    """Return what extensions read at request time: the signing key, the fallbacks, Flask-WTF's key."""
    with app.app_context():
        config = current_app.config
        return config["SECRET_KEY"], config["SECRET_KEY_FALLBACKS"], config["WTF_CSRF_SECRET_KEY"]


def test_settings_follow(app: Flask, path: Path, clock: Clock) -> None:
    """The signing key is last in both lists."""
    old, new, newer = OLD.text, NEW.text, NEWER.text
    record = settings(app)
    assert record == (old, [old], [old])

    write(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    assert settings(app) == (old, [new, old], [new, old])
    clock.wall = NOW + ACTIVATION_DELAY
    assert settings(app) == (new, [old, new], [old, new])
    write(path, lines(NEWER, NEW, OLD))
    clock.steady += INTERVAL
    assert settings(app) == (new, [old, newer, new], [old, newer, new])
    clock.wall = NOW + ACTIVATION_DELAY + RETENTION
    assert settings(app) == (newer, [new, newer], [new, newer])
    assert record == (old, [old], [old]), "a list that someone holds does not change"
    assert app.config["SECRET_KEY_FALLBACKS"] is not app.config["WTF_CSRF_SECRET_KEY"]


def test_settings_before_the_first_request(app: Flask) -> None:
    assert app.config["SECRET_KEY"] == OLD.text
    assert get_watcher(app).current().signing == OLD


def test_order_of_settings(watcher: KeyringWatcher) -> None:
    """The signing key is set last: a thread between two settings sees every key that it needs."""
    order: list[str] = []

    class Noting(Config):
        def __setitem__(self, name: str, value: object) -> None:
            order.append(name)
            super().__setitem__(name, value)

    class Noted(Flask):
        config_class = Noting

    app = Noted("noted")
    order.clear()
    init_app(app, watcher)

    assert order == ["SECRET_KEY_FALLBACKS", "WTF_CSRF_SECRET_KEY", "SECRET_KEY"]


@pytest.mark.parametrize("dump", [repr, pformat, "{0}".format], ids=["repr", "pprint", "format"])
def test_dump_of_settings(app: Flask, dump: Callable[[object], str]) -> None:
    assert OLD.text not in dump(app.config)
    assert dump(app.config["SECRET_KEY_FALLBACKS"]) == "['***']"


def test_serializers(app: Flask, path: Path, clock: Clock) -> None:
    """Stock sessions, and libraries that build [SECRET_KEY, *SECRET_KEY_FALLBACKS], sign with the signing key."""

    def serializers() -> list[URLSafeTimedSerializer]:
        with app.app_context():
            keys = [app.config["SECRET_KEY"], *app.config["SECRET_KEY_FALLBACKS"]]
            stock = SecureCookieSessionInterface().get_signing_serializer(app)
            assert stock is not None
            csrf = URLSafeTimedSerializer(app.config["WTF_CSRF_SECRET_KEY"])
            return [stock, URLSafeTimedSerializer(keys), csrf]

    def signed_by(key: Key) -> list[bool]:
        _, library, csrf = serializers()
        plain = URLSafeTimedSerializer(key.text)
        return [each.loads_unsafe(other.dumps("x"))[0] for each, other in ((plain, library), (plain, csrf))]

    signed_before = [serializer.dumps("hello") for serializer in serializers()]
    write(path, lines(NEW, OLD))
    for moment, signing, other in (
        (NOW + INTERVAL, OLD, NEW),
        (NOW + ACTIVATION_DELAY, NEW, OLD),
        (NOW + ACTIVATION_DELAY + RETENTION - 1, NEW, OLD),
    ):
        clock.steady += INTERVAL
        clock.wall = moment
        for serializer, signed in zip(serializers(), signed_before, strict=True):
            assert serializer.loads(signed) == "hello"
            assert serializer.loads(serializer.dumps("again")) == "again"
        assert signed_by(signing) == [True, True]
        assert signed_by(other) == [False, False]

    clock.wall = NOW + ACTIVATION_DELAY + RETENTION
    for serializer, signed in zip(serializers(), signed_before, strict=True):
        assert serializer.loads_unsafe(signed)[0] is False


def test_two_apps(app: Flask, path: Path, clock: Clock) -> None:
    """Each has its own keyring, and only its own requests make it look."""
    other = Adopter("other")
    init_app(other, watch(EnvironSource(as_variables((NEWER,))), clock))
    write(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    assert settings(other)[0] == NEWER.text
    assert app.config["SECRET_KEY_FALLBACKS"] == [OLD.text]

    assert settings(app)[1] == [NEW.text, OLD.text]


# Dropped apps


def make_app(clock: Clock) -> Flask:
    app = Flask("app")
    init_app(app, watch(EnvironSource({"SECRET_KEY": OLD.text}), clock))
    with app.app_context():
        pass
    return app


@pytest.mark.slow
def test_dropped_apps(clock: Clock) -> None:
    """A test suite calls create_app() a thousand times."""
    apps = [weakref.ref(make_app(clock)) for _ in range(1000)]
    gc.collect()

    assert [ref for ref in apps if ref()] == []


def test_freed_on_zero_refcount(clock: Clock) -> None:
    gc.collect()
    gc.disable()
    try:
        app = make_app(clock)
        ref = weakref.ref(app)
        assert ref() is app
        del app
        assert ref() is None
    finally:
        gc.enable()


# Threads


@contextmanager
def threads(work: Callable[[], None], number: int = 3) -> Iterator[list[BaseException]]:
    """Run `work` in threads until the block ends; their failures are in the list then."""
    failures: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            while not done.is_set():
                work()
        except BaseException as failure:
            failures.append(failure)

    running = [threading.Thread(target=run) for _ in range(number)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in running:
        thread.start()
    try:
        yield failures
    finally:
        done.set()
        for thread in running:
            thread.join()
        sys.setswitchinterval(interval)


@pytest.mark.slow
@pytest.mark.parametrize(
    "states",
    [
        [((OLD,), NOW), ((NEW, OLD), NOW)],
        [((NEW, OLD), NOW), ((NEW, OLD), NOW + ACTIVATION_DELAY)],
        [((NEW, OLD), NOW + ACTIVATION_DELAY), ((NEWER, NEW), NOW + ACTIVATION_DELAY)],
    ],
    ids=["a key is added", "the next key signs", "an expired key is dropped"],
)
def test_half_a_change(app: Flask, path: Path, clock: Clock, states: list[tuple[tuple[Key, ...], float]]) -> None:
    """No thread sees one, in the order in which Flask reads the settings."""
    needed = {key.text for key in states[0][0]} & {key.text for key in states[1][0]}

    def request() -> None:
        get_watcher(app).current()
        fallbacks = app.config["SECRET_KEY_FALLBACKS"]
        signing = app.config["SECRET_KEY"]
        assert needed <= {*fallbacks, signing}
        assert signing in needed

    def turn_to(keys: tuple[Key, ...], now: float) -> None:
        if lines(*keys) != path.read_text():
            rename_over(path, lines(*keys))
        clock.wall = now
        clock.steady += INTERVAL
        get_watcher(app).current()

    turn_to(*states[0])
    with threads(request) as failures:
        for turn in range(60):
            turn_to(*states[turn % 2])

    assert failures == []


def test_no_waiting(watcher: KeyringWatcher, path: Path, clock: Clock) -> None:
    """A thread does not wait for another one that looks."""
    looking, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            looking.set()
            assert go_on.wait(60)

    watcher.on_change(slow)
    write(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    thread = threading.Thread(target=watcher.current)
    thread.start()
    try:
        assert looking.wait(60)
        clock.pass_(INTERVAL)
        assert watcher.current().verifying
    finally:
        go_on.set()
        thread.join()
