"""The embedded PostgreSQL and Valkey: found again, stopped for good, and nothing accepted is lost."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from controlplane import embedded


@pytest.fixture
def var() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="davy-embedded-", ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        path.chmod(0o755)  # as root, PostgreSQL runs as a user of its own
        yield path
        embedded.stop_postgres(path)
        embedded.stop_valkey(path)


def test_postgres_keeps_its_rows_over_a_stop_and_a_start(var) -> None:
    with psycopg.connect(embedded.start_postgres(var)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    embedded.stop_postgres(var)
    with psycopg.connect(embedded.start_postgres(var)) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)


def test_starting_what_runs_already_changes_nothing(var) -> None:
    url = embedded.start_postgres(var)
    with psycopg.connect(url) as connection:
        begun = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
    assert embedded.start_postgres(var) == url
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT pg_postmaster_start_time()").fetchone() == begun


def test_stopping_what_does_not_run_is_no_error(var) -> None:
    embedded.stop_postgres(var)
    embedded.stop_valkey(var)


def test_a_path_with_a_space_is_refused_in_words(var) -> None:
    with pytest.raises(embedded.EmbeddedError, match="without spaces"):
        embedded.start_postgres(var / "my folder")


def test_queued_work_survives_kill_9_of_the_broker(var) -> None:
    client = broker(embedded.start_valkey(var))
    client.rpush("davy", *range(200))
    deadline = time.monotonic() + 10
    while client.info("persistence")["aof_pending_bio_fsync"] and time.monotonic() < deadline:
        pass  # its log goes to the disk once a second
    pid = int((var / "valkey" / "valkey.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    while embedded.alive(pid):
        assert time.monotonic() < deadline
    assert broker(embedded.start_valkey(var)).llen("davy") == 200


def test_a_long_path_gets_a_socket_that_the_kernel_takes(var) -> None:
    long = var / ("x" * 100)
    long.mkdir()
    try:
        assert broker(embedded.start_valkey(long)).ping()
    finally:
        embedded.stop_valkey(long)


def broker(url: str) -> redis.Redis:
    return redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"))
