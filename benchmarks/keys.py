"""What the number of keys costs a request: a cookie of the newest key, of the oldest, a forged one."""

from functools import partial

from .measure import Figure, compared
from .project import Project
from .request_cost import in_process

ROUNDS = 5
RING = """
import time
from my_flask_app.secure.keys.key import generate_key
now = int(time.time())
print(",".join(generate_key(now - 60 * age).text for age in range({count})))
"""
COOKIE = """
from apps import baked
client = baked().test_client()
print(client.get("/count", base_url="https://127.0.0.1/").headers["Set-Cookie"].split(";")[0])
"""


def run(project: Project) -> list[Figure]:
    """Microseconds of CPU a request in one process."""
    figures = []
    keyrings = {count: project.python(RING.format(count=count)).strip().split(",") for count in (1, 3, 10)}
    for who in ("newest", "oldest", "forged"):
        candidates = {}
        for count, keys in keyrings.items():
            variables = {"SECRET_KEY": keys[0], "SECRET_KEY_FALLBACKS": ",".join(keys[1:])}
            signer = keys[-1] if who == "oldest" else keys[0]
            cookie = project.python(COOKIE, SECRET_KEY=signer).strip()
            cookie = cookie[:-4] + "AAAA" if who == "forged" else cookie
            name = f"{count} key" + "s" * (count > 1)
            candidates[name] = partial(in_process, project, "baked", "/peek", cookie, **variables)
        figures += compared(f"{who} cookie", "µs CPU", candidates, ROUNDS)
    return figures
