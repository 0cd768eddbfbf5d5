"""Which predictions is the model unsure of? Those whose confidence lies in a band. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from labeling.samplers.base import Candidate, Choice, in_words


@dataclass(frozen=True)
class Band:
    """Takes raw predictions with low <= confidence <= high, and whatever a collector's band sent.

    The product's default routing rule. It needs calibrated confidences, and it is not a good sampler
    where the learner has converged: its tasks never measure accuracy. The least confident come first.
    """

    name: ClassVar[str] = "band"
    low: float = 0.3
    high: float = 0.6

    def choose(self, batch: Sequence[Candidate]) -> Mapping[int, Choice]:
        chosen: dict[int, Choice] = {}
        for index, candidate in enumerate(batch):
            why = self._why(candidate)
            if why and candidate.confidence is not None:
                chosen[index] = Choice(self.name, "improve", 1 - candidate.confidence, why)
        return chosen

    def _why(self, candidate: Candidate) -> str:
        """Why this one; "" when it is not for the band. A NaN lies in no band."""
        confidence = candidate.confidence
        if confidence is None or not 0 <= confidence <= 1 or candidate.drawn_by not in {"", self.name}:
            return ""
        if self.low <= confidence <= self.high:
            return (
                f"confidence {in_words(confidence)} is between {in_words(self.low)} and {in_words(self.high)}"
            )
        if candidate.drawn_by == self.name:
            return f"the collector's band took confidence {in_words(confidence)}"
        return ""
