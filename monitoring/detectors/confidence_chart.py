"""Is the model as sure as it was? The shares of unsure images against the reference's, on a p chart. PURE.

The chart's three-sigma limits are shown; by themselves they would fire on nearly every window at large n
(design/drift), so the alarm asks for the limit to be crossed *and* for a large change of the share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from davy.reference import Reference
from numpy.typing import NDArray

from monitoring.detectors.base import Answer, Hysteresis, Live, Result, State, Status, period, too_few
from monitoring.statistics.charts import attributes

SHARES = {"below_0.6": slice(0, 60), "0.3_to_0.6": slice(30, 60)}  # bins of .01
WORDS = {"below_0.6": "confidence below .6", "0.3_to_0.6": "confidence from .3 to .6"}


@dataclass(frozen=True)
class ConfidenceChart:
    """Change of the shares of confidences below .6 and from .3 to .6. Fewer than `minimum_n` decide nothing."""

    name: ClassVar[str] = "confidence_chart"
    subject: ClassVar[str] = "confidence"
    advice: ClassVar[str] = (
        "compare the live images and the preprocessing with those of the reference; label a measure sample to see"
        " whether accuracy changed too"
    )

    minimum_n: int = 500
    hysteresis: Hysteresis = field(default_factory=Hysteresis)

    def evaluate(self, live: Live, reference: Reference | None, state: State) -> Answer:
        """The larger change of the two shares against the thresholds."""
        if reference is None:
            return too_few(
                "has no reference to compare confidences with", {"n": live.n, **period(live)}, state
            )
        result = measure(live, reference)
        n = result["n"]
        if n < self.minimum_n:
            return too_few(f"has {n:,} live confidences, {self.minimum_n:,} are needed", result, state)
        worst = max(result["shares"], key=lambda row: abs(row["change"]))
        after = self.hysteresis.step(state, abs(worst["change"]), worst["outside"], live.end)
        status = Status.DRIFTED if after["drifted"] else Status.STABLE
        verb = "have changed" if status is Status.DRIFTED else "look like the reference"
        reason = (
            f"confidences {verb}: {worst['share']:.1%} have {WORDS[worst['name']]}, in the reference"
            f" {worst['reference']:.1%}, n = {n:,} live and {result['reference_n']:,} reference images"
        )
        return Answer(status, reason, result, after)


def share(counts: NDArray[np.int64], name: str) -> int:
    """How many of the confidences counted in (100,) bins fall into the share `name`."""
    return int(counts[SHARES[name]].sum())


def measure(live: Live, reference: Reference) -> Result:
    """The numbers, as JSON: n, times, and per share its value, the reference's, the limits and the change."""
    n, reference_n = int(live.confidence.sum()), int(reference.confidence_counts.sum())
    return {
        **period(live),
        "n": n,
        "reference_n": reference_n,
        "shares": [_share(live.confidence, reference.confidence_counts, name) for name in SHARES]
        if n
        else [],
    }


def _share(counts: NDArray[np.int64], reference: NDArray[np.int64], name: str) -> Result:
    before = share(reference, name) / int(reference.sum())
    chart = attributes.p([share(counts, name)], [int(counts.sum())], center=before)
    return {
        "name": name,
        "share": float(chart.value[0]),
        "reference": before,
        "lower": float(chart.lower[0]),
        "upper": float(chart.upper[0]),
        "outside": bool(chart.outside[0]),
        "change": float(chart.value[0] - before),
    }
