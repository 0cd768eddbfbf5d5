"""What do both arms suffer alike? Drift, time of day, bursts and incidents, drawn anew for each rollout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Array = NDArray[np.float64]

DAY_SECONDS = 86_400.0
MOST_ERRORS = 0.9  # share of requests that fail in the worst incident


@dataclass(frozen=True)
class Climate:
    """How rough the weather is. Drifts are standard deviations of stationary walks with one memory."""

    memory_seconds: float = 600.0
    error_drift: float = 0.3  # of the log error rate
    latency_drift: float = 0.15  # of the log latency
    unsure_drift: float = 0.2  # of the confidence's tilt (see traffic)
    day_requests: float = 0.4  # share by which the time of day moves the traffic up and down
    day_tilt: float = 0.2
    burst_every_seconds: float = 900.0
    burst_seconds: float = 30.0
    burst_requests: float = 3.0
    burst_slower: float = 1.3
    incident_every_seconds: float = 1800.0
    incident_seconds: float = 30.0
    incident_errors: tuple[float, float] = (0.02, 0.5)
    incident_slower: float = 3.0  # at the worst


ROUGH = Climate()
CALM = Climate(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, burst_every_seconds=math.inf, incident_every_seconds=math.inf)


@dataclass(frozen=True)
class Weather:
    """Both arms' conditions per tick, all (ticks,)."""

    requests: Array  # expected in the tick, both arms together
    error_rate: Array  # of stable
    log_slowness: Array  # added to the log latency
    tilt: Array  # of the confidences towards unsure


def draw(
    rng: np.random.Generator,
    climate: Climate,
    *,
    ticks: int,
    tick_seconds: float,
    requests_per_second: float,
    error_rate: float,
) -> Weather:
    """One rollout's weather: (ticks,) conditions around the given traffic and error rate."""
    errors, latency, unsure = _walks(rng, 3, ticks, tick_seconds, climate.memory_seconds)
    hour = 2 * math.pi * (tick_seconds * np.arange(ticks) / DAY_SECONDS + rng.random())
    burst = _spells(rng, ticks, tick_seconds, climate.burst_every_seconds, climate.burst_seconds) > 0
    incident = _spells(rng, ticks, tick_seconds, climate.incident_every_seconds, climate.incident_seconds)
    least, most = climate.incident_errors
    outage = np.where(incident > 0, least + (most - least) * incident, 0.0)
    return Weather(
        requests=tick_seconds
        * requests_per_second
        * (1 + climate.day_requests * np.sin(hour))
        * np.where(burst, climate.burst_requests, 1.0),
        error_rate=np.minimum(error_rate * np.exp(climate.error_drift * errors) + outage, MOST_ERRORS),
        log_slowness=climate.latency_drift * latency
        + np.where(burst, math.log(climate.burst_slower), 0.0)
        + math.log(climate.incident_slower) * incident,
        tilt=climate.unsure_drift * unsure + climate.day_tilt * np.cos(hour),
    )


def _walks(
    rng: np.random.Generator, count: int, ticks: int, tick_seconds: float, memory_seconds: float
) -> Array:
    """(count, ticks) stationary first-order walks of variance 1."""
    kept = math.exp(-tick_seconds / memory_seconds) if memory_seconds > 0 else 0.0
    news = math.sqrt(1 - kept * kept)
    noise = news * rng.standard_normal((count, ticks))
    noise[:, 0] /= news
    return np.asarray(lfilter([1.0], [1.0, -kept], noise, axis=1))


def _spells(
    rng: np.random.Generator, ticks: int, tick_seconds: float, every_seconds: float, mean_seconds: float
) -> Array:
    """(ticks,) strength of the spell that is under way, uniform on (0, 1], and 0 between spells."""
    strength = np.zeros(ticks)
    for _ in range(rng.poisson(ticks * tick_seconds / every_seconds)):
        start = rng.integers(ticks)
        lasts = math.ceil(rng.exponential(mean_seconds) / tick_seconds)
        strength[start : start + lasts] = 1 - rng.random()
    return strength
