"""The secret key for its whole life: generate, store, validate, rotate, expire, revoke.

This folder can be used alone: copy it into another Flask app. It imports nothing from outside. Its layers:

    key_format.py, key.py, foreign.py, keyring.py, text.py       pure: no file, no clock
    files.py                                                     files, written whole or not at all
    environment.py, project.py, sources.py                       where the keyring is kept
    watcher.py                                                   the keyring of a running Flask app
    git.py, report.py, commands.py                               the commands: flask secret-key ...

The pure modules and `files` need the standard library only: the hook that creates the first key imports `files`
where Flask is not installed.
"""
