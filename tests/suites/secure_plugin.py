"""A pytest plugin for another project's suite: every app that it creates has the keyring and our sessions."""

import time
from typing import Any

import flask
from secure import sessions
from secure.keys import watcher
from secure.keys.key import generate_key
from secure.keys.keyring import Keyring
from secure.keys.sources import EnvironSource, as_variables

KEY = generate_key(int(time.time()) - 7200)
_stock_init = flask.Flask.__init__


def _init(app: flask.Flask, *arguments: Any, **options: Any) -> None:
    _stock_init(app, *arguments, **options)
    keyring = watcher.KeyringWatcher(EnvironSource(as_variables((KEY,))), Keyring((KEY,)))
    watcher.init_app(app, keyring)
    sessions.init_app(app, keyring)


flask.Flask.__init__ = _init  # type: ignore[method-assign, assignment]
