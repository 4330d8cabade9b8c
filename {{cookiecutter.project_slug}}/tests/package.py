"""What the tests take from the package, whose name this file alone knows."""

from pathlib import Path

from {{ cookiecutter.package_name }} import (
    about,
    config,
    create_app,
    errors,
    logs,
    security,
    sessions,
    tokens,
)
from {{ cookiecutter.package_name }}.about import (
    NAME,
)
from {{ cookiecutter.package_name }}.config import (
    ConfigError,
    Settings,
    load,
)
from {{ cookiecutter.package_name }}.errors import (
    ADVICE,
)
from {{ cookiecutter.package_name }}.redaction import (
    redacted,
)
from {{ cookiecutter.package_name }}.secret_key import (
    cli,
    handover,
    live,
    store,
)
from {{ cookiecutter.package_name }}.secret_key.duration import (
    UNITS,
    format_duration,
    parse_duration,
)
from {{ cookiecutter.package_name }}.secret_key.environment import (
    edited_dotenv,
    project_root,
    read_dotenv,
    read_environment,
)
from {{ cookiecutter.package_name }}.secret_key.key import (
    Key,
    KeyRefused,
    is_leaked,
    judge,
    leaked_hash,
    mint,
)
from {{ cookiecutter.package_name }}.secret_key.keyring import (
    LEAD,
    RETENTION,
    Keyring,
    RingRefused,
    RotationUnderWay,
    State,
    judge_ring,
)
from {{ cookiecutter.package_name }}.secret_key.live import (
    LiveRing,
    init_app,
    live_ring,
)
from {{ cookiecutter.package_name }}.secret_key.minted import (
    MINTED,
)
from {{ cookiecutter.package_name }}.secret_key.scan import (
    ScanError,
    scan,
)
from {{ cookiecutter.package_name }}.secret_key.source import (
    Dotenv,
    KeyFile,
    Source,
    Variables,
    as_variables,
    load_ring,
    locate,
    read_ring,
)
from {{ cookiecutter.package_name }}.secret_key.store import (
    StoreError,
    leaked_hashes,
)
from {{ cookiecutter.package_name }}.session_store import (
    problem_with,
)
from {{ cookiecutter.package_name }}.sessions.redis_store import (
    PAUSE,
)
from {{ cookiecutter.package_name }}.tokens import (
    Reason,
    TokenRefused,
)

PACKAGE = Path(about.__file__).parent
"""Its folder."""
