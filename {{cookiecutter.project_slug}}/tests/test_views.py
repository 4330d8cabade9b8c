"""The pages of the app."""

from flask import Flask


def test_pages_answer(app: Flask) -> None:
    """Every page that needs no parameter answers without a server error."""
    client = app.test_client()
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()) and not rule.arguments:
            assert client.get(rule.rule).status_code < 500, rule.rule
