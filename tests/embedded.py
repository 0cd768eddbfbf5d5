"""pytest plugin: an own PostgreSQL and Valkey for the session when no DATABASE_URL / REDIS_URL is given.

Workers of pytest-xdist inherit both from the process that starts them; pytest-django gives each a database of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_folder = Path(tempfile.mkdtemp(prefix="davy-test-"))


def _start() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    _folder.chmod(0o755)  # PostgreSQL does not run as root: its own user has to get there
    os.environ["DAVY_VAR"] = str(_folder)  # each process writes into its own, and never into a real system's
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # as in `make up`: threads that spin take the cores from who works
    from controlplane import embedded

    if not os.environ.get("DATABASE_URL"):
        os.environ["DATABASE_URL"] = embedded.start_postgres(_folder)
    if not os.environ.get("REDIS_URL"):
        os.environ["REDIS_URL"] = embedded.start_valkey(_folder)


_start()


def pytest_unconfigure() -> None:
    """Stop what this process started and remove its folder."""
    from controlplane import embedded

    embedded.stop_postgres(_folder)
    embedded.stop_valkey(_folder)
    shutil.rmtree(_folder, ignore_errors=True)
