"""What did the stable arm look like lately? References come from its past intervals only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

State = dict[str, Any]


def fresh(size: int) -> State:
    """Nothing seen yet, of `size` counters."""
    return {"at": None, "counts": [0.0] * size}


def counts(past: State) -> NDArray[np.float64]:
    """The decayed counts (size,) as of the last interval that was added."""
    return np.asarray(past["counts"], dtype=float)


def add(past: State, seen: Sequence[float] | NDArray[np.float64], at: float, memory_seconds: float) -> State:
    """Add stable's counts of the interval starting at `at`; older counts fade by e every `memory_seconds`."""
    gap = 0.0 if past["at"] is None else max(0.0, at - past["at"])
    faded = counts(past) * math.exp(-gap / memory_seconds) + np.asarray(seen, dtype=float)
    return {"at": at, "counts": faded.tolist()}
