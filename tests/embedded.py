"""pytest plugin: an own PostgreSQL and Valkey for the session when no DATABASE_URL / REDIS_URL is given."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_folder: Path | None = None


def _start() -> None:
    global _folder
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    _folder = Path(tempfile.mkdtemp(prefix="davy-test-"))
    _folder.chmod(0o755)
    os.environ.setdefault("DAVY_VAR", str(_folder))
    from controlplane import embedded

    if not os.environ.get("DATABASE_URL"):
        os.environ["DATABASE_URL"] = embedded.start_postgres(_folder)
    if not os.environ.get("REDIS_URL"):
        os.environ["REDIS_URL"] = embedded.start_valkey(_folder)


_start()


def pytest_unconfigure() -> None:
    """Stop what this session started and remove its folder."""
    from controlplane import embedded

    if _folder is not None:
        embedded.stop_postgres(_folder)
        embedded.stop_valkey(_folder)
        shutil.rmtree(_folder, ignore_errors=True)
