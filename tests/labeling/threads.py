"""Several workers at once, and a worker killed in the middle: threads with a database connection each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import OperationalError, connection

T = TypeVar("T")


def together(work: Callable[[int], T], count: int) -> list[T]:
    """The results of work(0) … work(count - 1), all running at the same time; the first error is raised."""
    barrier = threading.Barrier(count)

    def one(index: int) -> T:
        try:
            barrier.wait(timeout=30)
            return work(index)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def kill_when_waiting(work: Callable[[], object]) -> None:
    """Run `work` in a thread and kill its database connection as soon as it waits for a lock.

    Call it while holding what `work` will wait for. Fails when `work` was not cut off.
    """
    pid: list[int] = []
    started = threading.Event()

    def worker() -> bool:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                pid.append(cursor.fetchone()[0])
            started.set()
            work()
        except OperationalError:
            return True
        finally:
            connection.close()
        return False

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(worker)
        assert started.wait(30)
        while not killed.done() and not _terminated(pid[0]):
            pass
        assert killed.result(30)


def _terminated(pid: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid = %s AND wait_event_type = 'Lock'",
            [pid],
        )
        return cursor.fetchone() is not None
