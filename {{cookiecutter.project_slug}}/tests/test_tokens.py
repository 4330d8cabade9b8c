"""Tokens: signed for one purpose, for a limited time, with the ring."""

import re
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask
from hypothesis import example, given
from hypothesis import strategies as st
from package import (
    LEAD,
    RETENTION,
    Key,
    Keyring,
    LiveRing,
    Reason,
    TokenRefused,
    Variables,
    as_variables,
    init_app,
    mint,
    tokens,
)

NOW = 1_800_000_000
OLD, NEW = mint(NOW - 1000), mint(NOW + LEAD)
HOUR = 3600


class Instance:
    """A running app whose clock is in the test's hand."""

    def __init__(self, *keys: Key, ahead: float = 0) -> None:
        self.now = NOW + ahead
        ring = Keyring(keys)
        self._app = Flask(__name__)
        init_app(self._app, LiveRing(Variables(as_variables(keys)), ring, clock=lambda: self.now))

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
        with pytest.raises(TokenRefused) as refusal:
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
def test_a_token_gives_back_its_value_and_fits_a_url(value: Any, purpose: str) -> None:
    instance = Instance(OLD)
    token = instance.sign(value, purpose)

    assert instance.verify(token, purpose) == value
    assert re.fullmatch("[A-Za-z0-9._-]+", token)


@given(purposes=st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_a_token_for_one_purpose_is_refused_for_another(purposes: list[str]) -> None:
    instance = Instance(OLD)

    assert instance.refuses(instance.sign(1, purposes[0]), purposes[1]) is Reason.INVALID


@pytest.mark.parametrize(
    ("age", "outcome"),
    [
        (0, "taken"),
        (HOUR, "taken"),
        (HOUR + 1, Reason.EXPIRED),
        (10 * RETENTION, Reason.EXPIRED),
        (-LEAD + 1, "taken"),  # signed where the clock is ahead
        (-LEAD, Reason.INVALID),
    ],
)
def test_a_token_is_good_for_its_time(instance: Instance, age: int, outcome: str) -> None:
    token = instance.sign("a")
    instance.now = NOW + age

    assert (instance.verify(token) == "a") if outcome == "taken" else (instance.refuses(token) is outcome)


@pytest.mark.parametrize("max_age", [0, -1, RETENTION + 1])
def test_an_age_that_no_key_lives_for_is_a_mistake(instance: Instance, max_age: int) -> None:
    token = instance.sign("a")

    with pytest.raises(ValueError, match="SECRET_KEY_RETENTION"):
        instance.verify(token, max_age=max_age)


@pytest.mark.parametrize("later", [0, LEAD - 1, LEAD, RETENTION])
def test_a_link_that_was_sent_before_a_rotation_works_after_it(later: int) -> None:
    token = Instance(OLD).sign("a")

    assert Instance(NEW, OLD, ahead=later).verify(token, max_age=RETENTION) == "a"


def test_what_the_last_second_of_a_key_signed_lives_as_long_as_a_token_may() -> None:
    before = Instance(OLD, ahead=LEAD - 1)
    after = Instance(NEW, OLD, ahead=LEAD - 1 + RETENTION)

    assert after.verify(before.sign("a"), max_age=RETENTION) == "a"


def test_a_revoked_key_takes_its_tokens_along() -> None:
    assert Instance(NEW).refuses(Instance(OLD).sign("a")) is Reason.INVALID


@given(data=st.data())
def test_a_changed_token_is_refused_or_means_the_same(data: st.DataObject) -> None:
    instance = Instance(OLD)
    token = instance.sign([1, "reset"])
    at = data.draw(st.integers(0, len(token)))
    changed = token[:at] + data.draw(st.text(max_size=3)) + token[at + data.draw(st.integers(0, 3)) :]

    with suppress(TokenRefused):
        assert instance.verify(changed) == [1, "reset"]


@given(st.text())
@example(None)
@example("\ud800")
def test_what_is_no_token_is_refused(text: str | None) -> None:
    assert Instance(OLD).refuses(text) is Reason.INVALID
