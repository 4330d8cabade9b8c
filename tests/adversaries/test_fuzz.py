"""Seven thousand requests that no browser would send: none is a server error, none gets another one's session.

`pytest -rP` shows the counts.
"""

import json
import time
from pathlib import Path

import pytest
from baking import Bake
from secure.keys.key_format import generate_text

SEED = 20261122
FUZZED = Path(__file__).parents[1] / "apps" / "fuzzed.py"
ATTACKS = {"cookie", "signature", "token", "form", "headers", "host", "path"}


@pytest.mark.parametrize(("store", "count"), [("signed", 5_600), ("encrypted", 1_400)])
def test_mutated_requests(shared: Bake, store: str, count: int) -> None:
    """No mutated request makes the app fail, or makes it believe a forgery."""
    older, newer = (generate_text(int(time.time()) - age) for age in (1, 0))

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
    print(*result["found"], sep="\n")
    with_the_key = {"signed": "count 666\n", "encrypted": "count 0\n"}[store]
    assert result["controls"] == ["count 1337\n", "count 1338\n", with_the_key]
    assert result["requests"] == dict.fromkeys(ATTACKS, count // len(ATTACKS))
    assert result["found"] == []
