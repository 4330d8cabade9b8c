"""Tokens: signed for one purpose, for a limited time, with the keyring."""

import re
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask
from hypothesis import example, given
from hypothesis import strategies as st
from secure import tokens
from secure.keys.key import Key, generate_key
from secure.keys.keyring import ACTIVATION_DELAY, RETENTION, Keyring
from secure.keys.sources import EnvironSource, as_variables
from secure.keys.watcher import KeyringWatcher, init_app
from secure.tokens import InvalidTokenError, Reason

NOW = 1_800_000_000
OLD, NEW = generate_key(NOW - 1000), generate_key(NOW + ACTIVATION_DELAY)
HOUR = 3600


class Instance:
    """A running app whose clock is in the test's hand."""

    def __init__(self, *keys: Key, ahead: float = 0) -> None:
        self.now = NOW + ahead
        keyring = Keyring(keys)
        self._app = Flask(__name__)
        init_app(self._app, KeyringWatcher(EnvironSource(as_variables(keys)), keyring, clock=lambda: self.now))

    def sign(self, value: Any, purpose: str = "reset") -> str:
        """Sign as a page of the app does."""
        with self._app.app_context():
            return tokens.sign(value, purpose)

    def verify(self, token: str | None, purpose: str = "reset", max_age: int = HOUR) -> Any:
        """Verify as a page of the app does."""
        with self._app.app_context():
            return tokens.verify(token, purpose, max_age)

    def refuses(self, token: str | None, purpose: str = "reset", max_age: int = HOUR) -> Reason:
        """Why it refuses a token."""
        with pytest.raises(InvalidTokenError) as refusal:
            self.verify(token, purpose, max_age)
        assert str(refusal.value) == refusal.value.reason
        return refusal.value.reason


@pytest.fixture
def instance() -> Instance:
    """An app with one key."""
    return Instance(OLD)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(value=VALUES, purpose=st.text())
def test_any_value(value: Any, purpose: str) -> None:
    """A token gives back its value and needs no quoting in a URL."""
    instance = Instance(OLD)
    token = instance.sign(value, purpose)

    assert instance.verify(token, purpose) == value
    assert re.fullmatch("[A-Za-z0-9._-]+", token)


@given(purposes=st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_other_purpose(purposes: list[str]) -> None:
    instance = Instance(OLD)

    assert instance.refuses(instance.sign(1, purposes[0]), purposes[1]) is Reason.INVALID


@pytest.mark.parametrize(
    ("age", "outcome"),
    [
        (0, "taken"),
        (HOUR, "taken"),
        (HOUR + 1, Reason.EXPIRED),
        (10 * RETENTION, Reason.EXPIRED),
        (-ACTIVATION_DELAY + 1, "taken"),  # signed where the clock is ahead
        (-ACTIVATION_DELAY, Reason.INVALID),
    ],
)
def test_age(instance: Instance, age: int, outcome: str) -> None:
    token = instance.sign("a")
    instance.now = NOW + age

    assert (instance.verify(token) == "a") if outcome == "taken" else (instance.refuses(token) is outcome)


@pytest.mark.parametrize("max_age", [0, -1, RETENTION + 1])
def test_impossible_max_age(instance: Instance, max_age: int) -> None:
    token = instance.sign("a")

    with pytest.raises(ValueError, match="SECRET_KEY_RETENTION"):
        instance.verify(token, max_age=max_age)


@pytest.mark.parametrize("later", [0, ACTIVATION_DELAY - 1, ACTIVATION_DELAY, RETENTION])
def test_rotation(later: int) -> None:
    token = Instance(OLD).sign("a")

    assert Instance(NEW, OLD, ahead=later).verify(token, max_age=RETENTION) == "a"


def test_last_second_of_a_key() -> None:
    """What it signed then lives as long as a token may."""
    before = Instance(OLD, ahead=ACTIVATION_DELAY - 1)
    after = Instance(NEW, OLD, ahead=ACTIVATION_DELAY - 1 + RETENTION)

    assert after.verify(before.sign("a"), max_age=RETENTION) == "a"


def test_revoked_key() -> None:
    assert Instance(NEW).refuses(Instance(OLD).sign("a")) is Reason.INVALID


@given(data=st.data())
def test_changed_token(data: st.DataObject) -> None:
    instance = Instance(OLD)
    token = instance.sign([1, "reset"])
    at = data.draw(st.integers(0, len(token)))
    changed = token[:at] + data.draw(st.text(max_size=3)) + token[at + data.draw(st.integers(0, 3)) :]

    with suppress(InvalidTokenError):
        assert instance.verify(changed) == [1, "reset"]


@given(st.text())
@example(None)
@example("\ud800")
def test_no_token(text: str | None) -> None:
    assert Instance(OLD).refuses(text) is Reason.INVALID
