"""Is the canary unsure (confidence below .6) more often than stable?

One-sided: only a rise of the unsure share can FAIL, so that a better model never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rollout.gates.share import ShareGate

UNSURE_BINS = 60  # bins of .01 below a confidence of .6


class ConfidenceGate(ShareGate):
    """The share of predictions below .6."""

    name: ClassVar[str] = "confidence"
    default_weight: ClassVar[float] = 0.15
    defaults: ClassVar[dict[str, Any]] = {
        "theta0": 1.25,
        "delta": 0.02,
        "margin_points": {"1": 10.0, "5": 5.0, "25": 3.0, "50": 2.0},
    }

    def bins(self, settings: Mapping[str, Any]) -> slice:
        """Below .6."""
        return slice(0, UNSURE_BINS)

    def words(self, settings: Mapping[str, Any]) -> str:
        """ "below .6"."""
        return "below .6"
