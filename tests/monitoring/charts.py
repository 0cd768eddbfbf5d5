"""Roll-ups that the tests of control charts start from: one an interval, with a given share of low confidences."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from davy import wire

from controlplane.models import ModelVersion
from monitoring.charting import Place
from monitoring.models import Rollup

T0 = datetime(2026, 11, 3, tzinfo=UTC)  # a multiple of an hour, a day and of five hours since 1970


def at(hours: float) -> datetime:
    return T0 + timedelta(hours=hours)


def hour(of: ModelVersion, number: int, low: int, n: int = 1000, **fields: Any) -> Rollup:
    """One hour of n confidences, `low` of them .5, the others .9."""
    confidence = np.zeros(100, int)
    confidence[50], confidence[90] = low, n - low
    given = {"start": at(number), "seconds": 3600, "n": n, "errors": 0, "confidence": wire.pack(confidence)}
    return Rollup.objects.create(version=of, **{**given, **fields})


def hours(of: ModelVersion, lows: Iterable[int | None], first: int = 0, **fields: Any) -> None:
    """An hour for each number of low confidences of 1,000; None is an hour that nothing came from."""
    for number, low in enumerate(lows, start=first):
        if low is not None:
            hour(of, number, low, **fields)


def steady(count: int = 30) -> list[int]:
    """Numbers of low confidences that vary as chance has it around 100 of 1,000."""
    return np.random.default_rng(7).binomial(1000, 0.1, count).tolist()


def place(of: ModelVersion, kind: str = "p", measure: str = "low_share", **segment: str) -> Place:
    return Place(of, kind, measure, segment)
