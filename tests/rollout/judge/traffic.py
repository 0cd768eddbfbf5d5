"""Seeded traffic of two arms, for tests of the judge."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from davy.counting import LATENCY_EDGES_SECONDS

from rollout import judge
from rollout.gates.base import Arm, GateSpec, Interval

GATES = (GateSpec("errors", 0.35), GateSpec("latency", 0.25), GateSpec("confidence", 0.15))


def unsure(share):
    """Confidence probabilities (100,) with a given share below .6."""
    bins = np.zeros(100)
    bins[30:60], bins[60:] = share / 30, (1 - share) / 40
    return bins


def lognormal(median_seconds, sigma=0.3):
    """Latency probabilities (96,) of a log-normal."""
    z = np.log(LATENCY_EDGES_SECONDS[1:-1] / median_seconds) / sigma
    below = [0.0, *(0.5 * (1 + math.erf(x / math.sqrt(2))) for x in z), 1.0]
    return np.diff(below)


@dataclass(frozen=True)
class Behaviour:
    """How one arm answers."""

    error_rate: float = 0.001
    confidence: np.ndarray = field(default_factory=lambda: unsure(0.10))
    latency: np.ndarray = field(default_factory=lambda: lognormal(0.005))

    def answer(self, rng, n):
        return Arm(
            n,
            int(rng.binomial(n, self.error_rate)),
            tuple(rng.multinomial(n, self.confidence).tolist()),
            tuple(rng.multinomial(n, self.latency).tolist()),
        )


def interval(rng, start, seconds, rate, weight_percent, canary, stable):
    """One interval of Poisson traffic at `rate` requests a second."""
    n = rng.poisson(rate * seconds)
    n_c = rng.binomial(n, weight_percent / 100)
    return Interval(start, start + seconds, canary.answer(rng, n_c), stable.answer(rng, n - n_c))


def absorb_all(state, seen):
    """One interval into every gate of the state."""
    for gate in state:
        state = judge.absorb(state, gate, seen)
    return state


def until_failed(rng, canary, stable, *, rate, weight_percent, seconds=1.0, intervals=600, gates=GATES):
    """(canary requests until E ≥ 100, judgement); infinity when it never comes."""
    state, requests, judgement = judge.enter_step(judge.start(gates), weight_percent), 0, None
    for i in range(intervals):
        seen = interval(rng, i * seconds, seconds, rate, weight_percent, canary, stable)
        requests += seen.canary.n
        state = absorb_all(state, seen)
        judgement = judge.conclude(state, 0.01)
        if judgement.failed:
            return requests, judgement
    return math.inf, judgement
