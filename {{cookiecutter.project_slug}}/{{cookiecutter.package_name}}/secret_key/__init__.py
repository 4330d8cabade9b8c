"""The life of the secret key: minted, kept, loaded, refused, used, rotated, expired, revoked.

The folder stands on its own: copy it into another Flask app to adopt it. It is laid out in rings:

    minted.py, key.py, keyring.py, duration.py   pure: no file, no clock
    store.py                                     files, written whole or not at all
    environment.py, source.py                    the variables and `.env`; where the ring is kept
    live.py                                      the ring of a running Flask app
    scan.py, cli.py                              the commands: flask secret-key ...

The pure ones and `store` need the standard library only, and so does this file: the hook that makes the
first key imports `store` where Flask is not installed.
"""
