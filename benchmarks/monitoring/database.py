"""Where may a benchmark write? Into a PostgreSQL of its own, which is gone afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch() -> Iterator[None]:
    """Django on an empty, migrated database (fsync on, settings of `make up`); import models inside."""
    folder = Path(tempfile.mkdtemp(prefix="davy-bench-"))
    folder.chmod(0o755)  # PostgreSQL does not run as root: its own user has to get there
    os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
    os.environ["DAVY_VAR"] = str(folder)
    from controlplane import embedded

    try:
        os.environ["DATABASE_URL"] = embedded.start_postgres(folder)
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        yield
    finally:
        from django.db import connections

        connections.close_all()
        embedded.stop_postgres(folder)
        shutil.rmtree(folder, ignore_errors=True)
