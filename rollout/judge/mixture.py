"""How do e-values of many intervals, alternatives and start times become one?

Logs are summed per alternative over the intervals; alternatives are mixed last (mixing inside an interval
loses all power against small shifts).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.judge.counts import EvidenceError

EPOCH_SECONDS = 300.0
START_SHARE = (
    0.75  # of the prior on the start; epoch i ≥ 1 has (1 − .75)/(i·(i + 1)), so that late faults are caught
)

State = dict[str, Any]


def log_mean(log_values: ArrayLike) -> float:
    """Log of the mean of e-values: the mixture of (k,) alternatives with equal weights."""
    values = np.asarray(log_values, dtype=float)
    return float(np.logaddexp.reduce(values)) - math.log(values.size)


def add(sums: list[float], log_e: NDArray[np.float64]) -> list[float]:
    """Add one interval's (k,) log e-values to the sums, refusing what is not finite."""
    total = np.asarray(sums, dtype=float) + log_e
    if not np.isfinite(total).all():
        raise EvidenceError("log e is not finite")
    return list(total.tolist())


def fresh(alternatives: int) -> State:
    """A process over start times, before any interval.

    `log_mass` holds per alternative log Σ_i w_i·exp(suffix sum since start i) over the starts that have
    begun: multiplying the mass by each interval's e, and adding w_i when epoch i begins, is exactly that.
    """
    return {"origin": None, "epoch": 0, "log_mass": [math.log(START_SHARE)] * alternatives}


def absorb(process: State, log_e: NDArray[np.float64], at: float) -> State:
    """Add one interval's (k,) log e-values, the interval starting at `at` (unix seconds)."""
    origin = at if process["origin"] is None else process["origin"]
    epoch = max(process["epoch"], math.floor((at - origin) / EPOCH_SECONDS))
    mass = process["log_mass"]
    if epoch > process["epoch"]:
        begun = _not_begun(process["epoch"]) - _not_begun(epoch)
        mass = np.logaddexp(mass, math.log(begun)).tolist()
    return {"origin": origin, "epoch": epoch, "log_mass": add(mass, log_e)}


def log_e(process: State) -> float:
    """Log e-value of the mixture over start times and alternatives; start times to come count as e = 1."""
    return float(np.logaddexp(log_mean(process["log_mass"]), math.log(_not_begun(process["epoch"]))))


def _not_begun(epoch: int) -> float:
    """Prior share of the starts after `epoch`: Σ_{i > epoch} .25/(i·(i + 1))."""
    return (1 - START_SHARE) / (epoch + 1)
