"""The ring of a running app: it follows its file and the clock, and Flask's settings follow it."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from pprint import pformat

import pytest
from flask import Config, Flask, current_app
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import URLSafeTimedSerializer
from package import (
    LEAD,
    RETENTION,
    Dotenv,
    Key,
    KeyFile,
    Keyring,
    LiveRing,
    Source,
    Variables,
    as_variables,
    handover,
    init_app,
    live_ring,
    mint,
    read_ring,
)

NOW = 1_800_000_000
OLD, NEW, NEWER = (mint(NOW + start) for start in (-1000, LEAD, 2 * LEAD))
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


def live_from(source: Source, clock: Clock) -> LiveRing:
    ring = read_ring(source, RETENTION)
    return LiveRing(source, ring, INTERVAL, lambda: clock.wall, lambda: clock.steady)


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
    path = tmp_path / "ring"
    write(path, lines(OLD))
    return path


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until the test lets time go by."""
    return Clock()


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
def test_a_changed_key_file_is_followed(
    path: Path, clock: Clock, change: Callable[[Path, str], None]
) -> None:
    live = live_from(KeyFile(str(path)), clock)
    assert live.current().verifying == (OLD,)

    change(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    assert live.current().verifying == (NEW, OLD)


def test_a_kubernetes_secret_volume_is_followed(tmp_path: Path, clock: Clock) -> None:
    def publish(version: str, text: str) -> None:
        (tmp_path / version).mkdir()
        write(tmp_path / version / "ring", text)
        (tmp_path / "..data_tmp").symlink_to(version)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    publish("..2026_11_22", lines(OLD))
    (tmp_path / "ring").symlink_to("..data/ring")
    live = live_from(KeyFile(str(tmp_path / "ring")), clock)
    live.current()
    publish("..2026_11_23", lines(NEW, OLD))
    clock.pass_(INTERVAL)

    assert live.current().verifying == (NEW, OLD)


def test_a_changed_dotenv_is_followed(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / ".env"
    write(path, f"SECRET_KEY={OLD.text}\n")
    live = live_from(Dotenv(str(path)), clock)
    live.current()
    write(path, "".join(f"{name}={value}\n" for name, value in as_variables((NEW, OLD)).items()))
    clock.pass_(INTERVAL)

    assert live.current().verifying == (NEW, OLD)


def test_a_ring_in_variables_changes_with_time_alone(clock: Clock) -> None:
    live = live_from(Variables(as_variables((NEW, OLD))), clock)
    assert live.current().signing == OLD

    clock.pass_(LEAD)
    assert live.current().signing == NEW
    clock.pass_(RETENTION)
    assert live.current().verifying == (NEW,)


def test_the_file_is_looked_at_once_in_an_interval(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat, looks = os.stat, []

    def counting_stat(*arguments: object, **options: object) -> os.stat_result:
        looks.append(arguments)
        return stat(*arguments, **options)  # type: ignore[arg-type]

    live = live_from(KeyFile(str(path)), clock)
    monkeypatch.setattr(os, "stat", counting_stat)
    for _ in range(20):
        for _ in range(50):
            live.current()
            clock.pass_(INTERVAL / 50)

    assert looks == [(str(path),)] * 20


def test_a_change_is_not_seen_before_the_interval_is_over(path: Path, clock: Clock) -> None:
    live = live_from(KeyFile(str(path)), clock)
    live.current()
    rename_over(path, lines(NEW, OLD))
    clock.pass_(INTERVAL - 0.01)
    assert live.current().verifying == (OLD,)

    clock.pass_(0.01)
    assert live.current().verifying == (NEW, OLD)


def test_a_clock_set_back_neither_stops_the_looks_nor_the_turns(path: Path, clock: Clock) -> None:
    write(path, lines(NEW, OLD))
    live = live_from(KeyFile(str(path)), clock)
    clock.pass_(LEAD)
    assert live.current().signing == NEW

    clock.wall -= LEAD
    clock.steady += INTERVAL
    assert live.current().signing == OLD
    clock.wall += LEAD
    assert live.current().signing == NEW


# A file that went bad


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


@pytest.mark.parametrize("spoil", [remove, damage, empty, open_to_all, put_a_folder_there])
def test_a_file_that_went_bad_is_logged_once_and_the_last_good_ring_serves_on(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    live = live_from(KeyFile(str(path)), clock)
    live.current()
    spoil(path)
    for _ in range(10):
        clock.pass_(INTERVAL)
        assert live.current().verifying == (OLD,)

    (error,) = errors(caplog)
    assert error.startswith("The last good secret key serves on, for: ")
    assert str(path) in error
    assert not any(key.text[:40] in caplog.text for key in (OLD, NEW))


def test_a_file_that_was_never_bad_is_not_called_good_again(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    live = live_from(KeyFile(str(path)), clock)
    live.current()
    for keys in ((NEW, OLD), (NEW,)):
        rename_over(path, lines(*keys))
        clock.pass_(INTERVAL)
        live.current()

    assert "has changed" in caplog.text
    assert "good again" not in caplog.text


@pytest.mark.parametrize(("source", "text"), [(KeyFile, lines(OLD)), (Dotenv, f"SECRET_KEY={OLD.text}\n")])
def test_a_file_that_is_gone_is_to_be_put_back(
    path: Path,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    source: Callable[[str], Source],
    text: str,
) -> None:
    path.write_text(text)
    live = live_from(source(str(path)), clock)
    path.unlink()
    live.current()

    (error,) = errors(caplog)
    assert error.endswith(f"for: {path} is gone; put it back, as a new key logs everybody out")


def test_a_file_that_is_good_again_is_followed_again_and_a_new_problem_is_logged_again(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    live = live_from(KeyFile(str(path)), clock)
    for good in ((OLD,), (NEW, OLD), (NEWER, NEW, OLD)):
        write(path, lines(*good))
        clock.pass_(INTERVAL)
        assert live.current().verifying == good
        damage(path)
        clock.pass_(INTERVAL)
        assert live.current().verifying == good

    assert len(errors(caplog)) == 3
    assert caplog.messages.count(f"The secret key in {path} is good again") == 2


def test_the_mode_mended_is_a_change(path: Path, clock: Clock) -> None:
    live = live_from(KeyFile(str(path)), clock)
    live.current()
    write(path, lines(NEW, OLD))
    path.chmod(0o666)
    clock.pass_(INTERVAL)
    assert live.current().verifying == (OLD,)

    path.chmod(0o600)
    clock.pass_(INTERVAL)
    assert live.current().verifying == (NEW, OLD)


@pytest.mark.usefixtures("own_server")
def test_the_last_good_ring_of_the_server_serves_on_with_this_apps_retention(
    path: Path, clock: Clock
) -> None:
    handover.share()
    handover.keep(Keyring((NEW, OLD), 60))
    live = live_from(KeyFile(str(path)), clock)
    handover.keep(Keyring((NEW, OLD), 60))
    damage(path)
    live.current()

    assert live.ring == Keyring((NEW, OLD), RETENTION)


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


def test_a_change_that_could_not_be_read_is_read_later(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    live = live_from(KeyFile(str(path)), clock)
    live.current()
    write(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    with no_descriptor_left():
        assert live.current().verifying == (OLD,)
    assert "too many open files" in caplog.text

    clock.pass_(INTERVAL)
    assert live.current().verifying == (NEW, OLD)


def test_a_change_is_logged_with_fingerprints_alone(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    live = live_from(KeyFile(str(path)), clock)
    write(path, lines(NEW, OLD))
    live.current()

    assert caplog.messages == [
        f"The ring has changed: {NEW.fingerprint} upcoming, {OLD.fingerprint} signing (from {path})"
    ]


def test_a_live_ring_shows_no_key(path: Path, clock: Clock) -> None:
    live = live_from(KeyFile(str(path)), clock)

    assert live.now == NOW
    assert repr(live) == f"<LiveRing from {path}>"
    assert OLD.text not in f"{live.current()} {live.ring}"


# Flask's settings


class SlowConfig(Config):
    """Settings that let other threads run between any two changes of them."""

    def __setitem__(self, name: str, value: object) -> None:
        super().__setitem__(name, value)
        time.sleep(0)


class Adopter(Flask):
    """A bare Flask app: no more than an app is that adopts the folder."""

    config_class = SlowConfig


@pytest.fixture
def app(path: Path, clock: Clock) -> Flask:
    """An app with a live ring."""
    app = Adopter("adopter")
    init_app(app, live_from(KeyFile(str(path)), clock))
    return app


def settings(app: Flask) -> tuple[object, object, object]:
    """What extensions read at request time: the signing key, the fallbacks, Flask-WTF's key."""
    with app.app_context():
        config = current_app.config
        return config["SECRET_KEY"], config["SECRET_KEY_FALLBACKS"], config["WTF_CSRF_SECRET_KEY"]


def test_the_settings_follow_file_and_clock(app: Flask, path: Path, clock: Clock) -> None:
    old, new = OLD.text, NEW.text
    held = settings(app)
    assert held == (old, [old], [old, old])

    write(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    assert settings(app) == (old, [old, new], [old, new, old])
    clock.wall = NOW + LEAD
    assert settings(app) == (new, [old, new], [old, new, new])
    clock.wall = NOW + LEAD + RETENTION
    assert settings(app) == (new, [new], [new, new])
    assert held == (old, [old], [old, old])


def test_the_settings_are_right_before_the_first_request(app: Flask) -> None:
    assert app.config["SECRET_KEY"] == OLD.text
    assert live_ring(app).current().signing == OLD


@pytest.mark.parametrize("dump", [repr, str, pformat, "{0}".format], ids=["repr", "str", "pprint", "format"])
def test_a_dump_of_the_settings_shows_no_key(app: Flask, dump: Callable[[object], str]) -> None:
    assert OLD.text not in dump(app.config)
    assert OLD.fingerprint in dump(app.config)


def test_stock_sessions_and_serializers_follow(app: Flask, path: Path, clock: Clock) -> None:
    def serializers() -> list[URLSafeTimedSerializer]:
        with app.app_context():
            keys = [*app.config["SECRET_KEY_FALLBACKS"], app.config["SECRET_KEY"]]
            stock = SecureCookieSessionInterface().get_signing_serializer(app)
            assert stock is not None
            csrf = URLSafeTimedSerializer(app.config["WTF_CSRF_SECRET_KEY"])
            return [stock, URLSafeTimedSerializer(keys), csrf]

    signed_before = [serializer.dumps("hello") for serializer in serializers()]
    write(path, lines(NEW, OLD))
    for moment in (NOW + INTERVAL, NOW + LEAD, NOW + LEAD + RETENTION - 1):
        clock.steady += INTERVAL
        clock.wall = moment
        for serializer, signed in zip(serializers(), signed_before, strict=True):
            assert serializer.loads(signed) == "hello"
            assert serializer.loads(serializer.dumps("again")) == "again"

    clock.wall = NOW + LEAD + RETENTION
    for serializer, signed in zip(serializers(), signed_before, strict=True):
        assert serializer.loads_unsafe(signed)[0] is False


def test_two_apps_in_one_process_have_a_ring_each(app: Flask, path: Path, clock: Clock) -> None:
    other = Adopter("other")
    init_app(other, live_from(Variables(as_variables((NEWER,))), clock))
    write(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    assert settings(other)[0] == NEWER.text
    assert app.config["SECRET_KEY_FALLBACKS"] == [OLD.text], "its own requests alone make it look"

    assert settings(app)[1] == [OLD.text, NEW.text]


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


@pytest.mark.parametrize(
    "states",
    [
        [((OLD,), NOW), ((NEW, OLD), NOW)],
        [((NEW, OLD), NOW), ((NEW, OLD), NOW + LEAD)],
        [((NEW, OLD), NOW + LEAD), ((NEWER, NEW), NOW + LEAD)],
    ],
    ids=["a key is added", "the next key signs", "an expired key is dropped"],
)
def test_no_thread_sees_half_a_change(
    app: Flask, path: Path, clock: Clock, states: list[tuple[tuple[Key, ...], float]]
) -> None:
    needed = {key.text for key in states[0][0]} & {key.text for key in states[1][0]}

    def request() -> None:
        live_ring(app).current()
        fallbacks = app.config["SECRET_KEY_FALLBACKS"]  # in the order in which Flask reads them
        signing = app.config["SECRET_KEY"]
        assert needed <= {*fallbacks, signing}
        assert signing in needed

    def turn_to(keys: tuple[Key, ...], now: float) -> None:
        if lines(*keys) != path.read_text():
            rename_over(path, lines(*keys))
        clock.wall = now
        clock.steady += INTERVAL
        live_ring(app).current()

    turn_to(*states[0])
    with threads(request) as failures:
        for turn in range(200):
            turn_to(*states[turn % 2])

    assert failures == []


def test_a_thread_does_not_wait_for_another_that_looks(path: Path, clock: Clock) -> None:
    live = live_from(KeyFile(str(path)), clock)
    live.current()
    looking, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            looking.set()
            assert go_on.wait(60)

    live.on_change(slow)
    write(path, lines(NEW, OLD))
    clock.pass_(INTERVAL)
    thread = threading.Thread(target=live.current)
    thread.start()
    try:
        assert looking.wait(60)
        clock.pass_(INTERVAL)
        assert live.current().verifying
    finally:
        go_on.set()
        thread.join()
