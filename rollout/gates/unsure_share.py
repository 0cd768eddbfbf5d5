"""Does the canary send more of its images to people than stable does?

Confidences within .3–.6 go to the labeling queue, and people's time is short: a canary that doubles their share
floods the queue though no user sees a fault. One-sided: fewer unsure answers never FAIL. A canary that is sure of
what it gets wrong is not seen here; accuracy is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from davy.counting import CONFIDENCE_BINS

from rollout.gates.base import State
from rollout.gates.share import ShareGate


class UnsureShareGate(ShareGate):
    """The share of predictions from `lower` to below `upper`, in whole bins of .01."""

    name: ClassVar[str] = "unsure_share"
    default_weight: ClassVar[float] = 0.1
    defaults: ClassVar[dict[str, Any]] = {
        "lower": 0.3,
        "upper": 0.6,
        "theta0": 1.5,
        "delta": 0.02,
        "margin_points": {"1": 10.0, "5": 6.0, "25": 4.0, "50": 3.0},
    }

    def fresh(self, settings: Mapping[str, Any]) -> State:
        """The state before any evidence. Raises ValueError("<key>: …") for a bad setting."""
        state = super().fresh(settings)
        chosen = self.bins(state["settings"])
        if chosen.start >= chosen.stop:
            raise ValueError(f"lower: {state['settings']['lower']:g} is not a bin below upper")
        return state

    def bins(self, settings: Mapping[str, Any]) -> slice:
        """The bins from `lower` to `upper`."""
        return slice(round(CONFIDENCE_BINS * settings["lower"]), round(CONFIDENCE_BINS * settings["upper"]))

    def words(self, settings: Mapping[str, Any]) -> str:
        """ "of confidence .30 to .60"."""
        lower, upper = (f"{settings[name]:.2f}".removeprefix("0") for name in ("lower", "upper"))
        return f"of confidence {lower} to {upper}"
