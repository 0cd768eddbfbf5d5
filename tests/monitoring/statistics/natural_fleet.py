"""Hourly scores of a fleet that varies by the day and wanders as an AR(1); for tests."""

from __future__ import annotations

import numpy as np

from monitoring.statistics.calibration import Series

FIRST_HOUR = 24 * 20_000


def natural(rng, days, scores=6, *, daily=0.1, wander=0.03, sampling=0.01, n=10_000):
    hours = np.arange(24 * days)
    phase = rng.uniform(0, 2 * np.pi, scores)
    noise = rng.normal(size=(len(hours), scores))
    noise[1:] *= np.sqrt(1 - 0.9**2)
    for hour in range(1, len(hours)):
        noise[hour] += 0.9 * noise[hour - 1]
    values = daily * np.sin(2 * np.pi * hours[:, None] / 24 + phase) + wander * noise
    values += sampling * rng.normal(size=values.shape)
    return Series(FIRST_HOUR + hours, np.full(len(hours), n), values)


def cut(series, start, end=None):
    part = slice(start, end)
    return Series(series.hours[part], series.n[part], series.values[part])
