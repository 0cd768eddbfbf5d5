"""Hourly roll-ups of a version whose embedding scores vary as a natural fleet's; for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from davy import counting, wire

from monitoring import references
from monitoring.models import Rollup
from monitoring.statistics.calibration import Series
from tests.monitoring.build import version
from tests.monitoring.statistics.natural_fleet import FIRST_HOUR, natural

START = datetime.fromtimestamp(3600 * FIRST_HOUR, UTC)  # a UTC midnight
N = 10_000
SCORES = 8  # of three components and the residual


def watched(days, seed=1):
    """A version with a reference, and its natural course of so many days, not stored yet."""
    rng = np.random.default_rng(seed)
    v1 = version("shelf")
    references.freeze(v1, rng.normal(size=(2000, 4)).astype("f4")[:, :3], rng.beta(8, 2, 2000))
    return v1, natural(rng, days, SCORES)


def shifted(course, start, end, size, score=0):
    """The course with a shift in hours [start, end)."""
    values = course.values.copy()
    values[start:end, score] += size
    return Series(course.hours, course.n, values)


def store(v1, course, start, end, seed=2):
    """Roll-ups of hours [start, end) of the course; confidences are as always."""
    rng = np.random.default_rng([seed, start])
    digest = references.shape_of(v1).digest
    shares = np.random.default_rng(3).dirichlet(np.ones(counting.CONFIDENCE_BINS))
    Rollup.objects.bulk_create(
        Rollup(
            version=v1,
            reference_digest=digest,
            start=START + timedelta(hours=hour),
            seconds=3600,
            n=N,
            errors=0,
            embedded=N,
            score_sums=(N * course.values[hour]).astype("<f8").tobytes(),
            confidence=wire.pack(rng.multinomial(N, shares)),
        )
        for hour in range(start, end)
    )


def at(hour, minutes=1):
    """A minute after `hour` hours have closed."""
    return START + timedelta(hours=hour, minutes=minutes)
