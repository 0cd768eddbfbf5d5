"""Can the database, broker and MLflow that the environment names be reached? Else the start stops."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping

import psycopg
import redis

TIMEOUT_SECONDS = 5


class GivenError(RuntimeError):
    """A part named in the environment cannot be reached."""


def check(environment: Mapping[str, str]) -> None:
    """Raise GivenError for the first of DATABASE_URL, REDIS_URL, MLFLOW_TRACKING_URI that does not answer."""
    for name, probe in (
        ("DATABASE_URL", _database),
        ("REDIS_URL", _broker),
        ("MLFLOW_TRACKING_URI", _mlflow),
    ):
        url = environment.get(name, "").strip()
        if not url:
            continue
        try:
            probe(url)
        except (OSError, ValueError, psycopg.Error, redis.RedisError) as error:
            raise GivenError(
                f"{name} is given, but cannot be reached: {error}\nunset it to run the embedded part"
            ) from error


def _database(url: str) -> None:
    psycopg.connect(url, connect_timeout=TIMEOUT_SECONDS).close()


def _broker(url: str) -> None:
    redis.Redis.from_url(url.replace("redis+socket://", "unix://"), socket_timeout=TIMEOUT_SECONDS).ping()


def _mlflow(url: str) -> None:
    with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=TIMEOUT_SECONDS):
        pass
