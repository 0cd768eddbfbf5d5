"""What do the two arms of a simulated rollout count, tick by tick?

An interval's counts are drawn for the weight that it was sent at: nothing is drawn before the judge has decided
on that weight, except what is thrown away when it decides otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from davy.counting import CONFIDENCE_BINS, LATENCY_EDGES_SECONDS
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from benchmarks.judge.weather import ROUGH, Climate, Weather, draw

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

MEDIAN_SECONDS, SIGMA = 0.020, 0.35  # of most requests' log-normal latency
STUCK_SHARE, STUCK_SLOWER = 0.02, 4.0  # the others: caught by a pause
TAIL_FROM = 0.95  # the quantile at which a slower tail begins
FAR_SLOWER = 10.0  # what `tail_added` requests suffer
UNSURE_BINS = 60

_LOG_GRID = np.linspace(math.log(1e-5), math.log(1e4), 6000)
_MIDDLE = (np.arange(CONFIDENCE_BINS) + 0.5) / CONFIDENCE_BINS
_CONFIDENCE = _MIDDLE**5 * (1 - _MIDDLE) ** 0.5  # Beta(6, 1.5): about a tenth below .6
_CONFIDENCE /= _CONFIDENCE.sum()
_TILT_SCALE = (0.8 - _MIDDLE) / 0.35


@dataclass(frozen=True)
class Fault:
    """How the canary differs from stable. By default it does not."""

    error_factor: float = 1.0
    error_added: float = 0.0  # share of requests
    slower: float = 1.0  # every latency, times
    later_seconds: float = 0.0  # every latency, plus
    tail_slower: float = 1.0  # what is beyond the quantile tail_full, times; from the p95 on in between
    tail_full: float = 0.99
    tail_added: float = 0.0  # share of requests that become FAR_SLOWER
    tilt: float = 0.0  # of the confidences towards unsure; see tilt_of_ks
    unsure_added: float = 0.0  # share of predictions that fall below .6
    cold_slower: float = 1.0  # just after each change of weight, times; fades with cold_seconds
    cold_seconds: float = 10.0


@dataclass(frozen=True)
class Clusters:
    """Sizes in which failures come together (one client, one retry storm), and their shares of the clusters."""

    sizes: tuple[int, ...] = (1,)
    shares: tuple[float, ...] = (1.0,)

    @property
    def dispersion(self) -> float:
        """φ: mean of the squared size over mean size."""
        sizes, shares = np.array(self.sizes), np.array(self.shares)
        return float((shares * sizes**2).sum() / (shares * sizes).sum())


@dataclass(frozen=True)
class World:
    """Everything that a simulated rollout does not decide itself."""

    requests_per_second: float
    error_rate: float = 0.001
    fault: Fault = field(default_factory=Fault)
    error_clusters: Clusters = field(default_factory=Clusters)
    stuck_share: float = STUCK_SHARE
    alike: int = 1  # requests in a row with the same latency and the same confidence
    climate: Climate = ROUGH


@dataclass(frozen=True)
class ArmCounts:
    """One arm over a block: (ticks,) requests and failures; (windows, bins) histograms, empty where not asked for."""

    n: Counts
    errors: Counts
    latency: Counts
    confidence: Counts


@dataclass(frozen=True)
class Block:
    """Some ticks in a row at one weight; the windows are those that lie wholly in it."""

    first: int
    canary: ArmCounts
    stable: ArmCounts

    @property
    def end(self) -> int:
        """The first tick after it."""
        return self.first + len(self.canary.n)


class Traffic:
    """One rollout's traffic: weather drawn at once, counts drawn block by block."""

    def __init__(
        self,
        rng: np.random.Generator,
        world: World,
        *,
        ticks: int,
        tick_seconds: float,
        window_ticks: int,
        histograms: bool = True,
    ) -> None:
        self.tick_seconds, self.window_ticks, self.histograms = tick_seconds, window_ticks, histograms
        self.ticks = ticks
        self._rng, self._world = rng, world
        self._weather: Weather = draw(
            rng,
            world.climate,
            ticks=ticks,
            tick_seconds=tick_seconds,
            requests_per_second=world.requests_per_second,
            error_rate=world.error_rate,
        )

    def block(self, first: int, ticks: int, weight_percent: float, weight_since: int) -> Block:
        """Counts of the ticks from `first`, up to a window's end, at a weight that holds since tick `weight_since`."""
        end = min((first + ticks) // self.window_ticks * self.window_ticks, self.ticks)
        end = end if end > first else min(first + ticks, self.ticks)
        at = slice(first, end)
        n = self._rng.poisson(self._weather.requests[at])
        n_c = self._rng.binomial(n, weight_percent / 100)
        age = self.tick_seconds * np.arange(first - weight_since, end - weight_since, dtype=np.float64)
        stable, canary = Fault(), self._world.fault
        return Block(first, self._arm(n_c, at, canary, age), self._arm(n - n_c, at, stable, age))

    def _arm(self, n: Counts, at: slice, fault: Fault, age: Array) -> ArmCounts:
        rate = self._weather.error_rate[at] * fault.error_factor + fault.error_added
        errors = _failures(self._rng, n, np.minimum(rate, 1.0), self._world.error_clusters)
        empty = np.zeros((0, 0), dtype=np.int64)
        windows = self._windows(at)
        if not self.histograms or not windows.size:
            return ArmCounts(n, errors, empty, empty)
        cold = math.log(fault.cold_slower) * np.exp(-age / fault.cold_seconds)
        slowness = (self._weather.log_slowness[at] + cold)[windows].mean(axis=1)
        tilt = self._weather.tilt[at][windows].mean(axis=1)
        seen = n[windows].sum(axis=1)
        return ArmCounts(
            n,
            errors,
            _histograms(
                self._rng, seen, latency_shares(slowness, fault, self._world.stuck_share), self._world.alike
            ),
            _histograms(self._rng, seen, confidence_shares(tilt, fault), self._world.alike),
        )

    def _windows(self, at: slice) -> Counts:
        """(windows, window_ticks) places in the block of the ticks of every whole window."""
        first = -(-at.start // self.window_ticks) * self.window_ticks
        count = max(0, (at.stop - first) // self.window_ticks)
        places = first - at.start + np.arange(count * self.window_ticks)
        return np.asarray(places.reshape(count, self.window_ticks))


def latency_shares(log_slowness: Array, fault: Fault, stuck_share: float = STUCK_SHARE) -> Array:
    """(windows, 96) probabilities of the latency bins."""
    edges = np.maximum(LATENCY_EDGES_SECONDS[1:-1] - fault.later_seconds, 1e-9) / fault.slower
    at = np.log(edges) - log_slowness[:, None]
    usual = _usual(stuck_share)
    ramp = np.clip((usual - TAIL_FROM) / (fault.tail_full - TAIL_FROM), 0.0, 1.0)
    grid = _LOG_GRID + math.log(fault.tail_slower) * ramp
    below = np.interp(at, grid, usual)
    if fault.tail_added:
        far = np.interp(at - math.log(FAR_SLOWER), grid, usual)
        below = (1 - fault.tail_added) * below + fault.tail_added * far
    shares = np.diff(below, axis=1, prepend=0.0, append=1.0)
    return np.asarray(np.maximum(shares, 0.0))  # rounding leaves −1e-17


@cache
def _usual(stuck_share: float) -> Array:
    """Share of stable's requests below each latency of the grid, in calm weather."""
    quick = ndtr((_LOG_GRID - math.log(MEDIAN_SECONDS)) / SIGMA)
    stuck = ndtr((_LOG_GRID - math.log(MEDIAN_SECONDS * STUCK_SLOWER)) / SIGMA)
    return np.asarray((1 - stuck_share) * quick + stuck_share * stuck)


def confidence_shares(tilt: Array, fault: Fault) -> Array:
    """(windows, 100) probabilities of the confidence bins."""
    shares = _CONFIDENCE * np.exp((tilt + fault.tilt)[:, None] * _TILT_SCALE)
    shares /= shares.sum(axis=1, keepdims=True)
    if fault.unsure_added:
        unsure = shares[:, :UNSURE_BINS].sum(axis=1, keepdims=True)
        more = np.minimum(unsure + fault.unsure_added, 1.0)
        shares[:, :UNSURE_BINS] *= more / unsure
        shares[:, UNSURE_BINS:] *= (1 - more) / (1 - unsure)
    return np.asarray(shares)


def ks(fault: Fault) -> float:
    """Largest distance between the canary's and stable's cumulative confidences, in calm weather."""
    calm = np.zeros(1)
    both = (confidence_shares(calm, fault), confidence_shares(calm, Fault()))
    return float(np.abs(np.cumsum(both[0] - both[1])).max())


def tilt_of_ks(distance: float) -> float:
    """The tilt towards unsure that moves the confidences by this Kolmogorov–Smirnov distance."""
    return float(brentq(lambda tilt: ks(Fault(tilt=tilt)) - distance, 0.0, 5.0))


def _failures(rng: np.random.Generator, n: Counts, rate: Array, clusters: Clusters) -> Counts:
    """(ticks,) failures at that mean rate; a cluster's failures are all of one arm, for it is one client's."""
    if clusters.sizes == (1,):
        return np.asarray(rng.binomial(n, rate))
    mean = float(np.dot(clusters.sizes, clusters.shares))
    failures = sum(
        size * rng.poisson(n * rate * share / mean)
        for size, share in zip(clusters.sizes, clusters.shares, strict=True)
    )
    return np.asarray(np.minimum(n, failures))


def _histograms(rng: np.random.Generator, n: Counts, shares: Array, alike: int) -> Counts:
    """(windows, bins) counts of n requests, `alike` in a row in the same bin."""
    whole = alike * rng.multinomial(n // alike, shares)
    return np.asarray(whole if alike == 1 else whole + rng.multinomial(n % alike, shares))
