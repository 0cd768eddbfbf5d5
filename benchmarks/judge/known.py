"""What are the gates told about clusters before a simulated rollout, where users stay in an arm?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.judge.traffic import World
from rollout.judge import dispersion
from rollout.judge.dispersion import Assignment

Known = Mapping[str, Any]  # {"assignment", "history"}, see gates.base.Dispersed


def nothing(_rng: np.random.Generator, _world: World) -> Known:
    """No history: φ is assumed."""
    return {"assignment": Assignment.KEY.value, "history": dispersion.fresh()}


def believed(phi: float, _rng: np.random.Generator, _world: World) -> Known:
    """A history of errors that speaks for this φ; that of other events is assumed all the same."""
    history = {"seconds": dispersion.LEAST_SECONDS, "errors": 1000.0, "weight": 1.0, "weighted_phi": phi}
    return {"assignment": Assignment.KEY.value, "history": history}
