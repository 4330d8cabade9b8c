"""Ten thousand requests that no browser would send: none is a server error, none is taken for another's.

`pytest -rP` shows the counts.
"""

import json
from pathlib import Path

import pytest
from conftest import Bake

SEED = 20261122
FUZZED = Path(__file__).parent / "apps" / "fuzzed.py"
ATTACKS = {"cookie", "signature", "token", "form", "headers", "host", "path"}


@pytest.mark.parametrize(("store", "count"), [("signed", 10_500), ("encrypted", 2_100)])
def test_no_mutated_request_fails_the_app_or_fools_it(shared: Bake, store: str, count: int) -> None:
    older, newer = (shared.flask("secret-key", "generate").stdout.strip() for _ in range(2))

    done = shared.run(
        *(shared.program("python"), str(FUZZED), shared.package.name, str(SEED), str(count)),
        APP_ENV="production",
        SECRET_KEY=newer,
        SECRET_KEY_FALLBACKS=older,
        SESSION_STORE=store,
        TRUSTED_HOSTS="app.example, .example.net",
        TRUSTED_PROXIES="1",
    )

    result = json.loads(done.stdout)
    print(f"{store}: sent {result['requests']}, answered {result['statuses']}")
    assert result["controls"] == ["count 1337\n", "count 1338\n"]
    assert result["requests"] == dict.fromkeys(ATTACKS, count // len(ATTACKS))
    assert result["found"] == []
