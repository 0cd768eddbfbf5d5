"""Which predictions measure accuracy without bias? Those that were drawn with a known probability. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from labeling.samplers.base import Candidate, Choice, in_words


@dataclass(frozen=True)
class Measure:
    """Passes on what the collector drew by hash(request id) < q; q and stratum travel with the sample.

    Never draws or drops anything itself: a second, unrecorded draw would bias the estimate
    (Horvitz & Thompson 1952). All have the same priority, above every improve task, so that they are
    labelled in the order of arrival and not by how hard they look.
    """

    name: ClassVar[str] = "measure"
    priority: float = 1.0

    def choose(self, batch: Sequence[Candidate]) -> Mapping[int, Choice]:
        return {
            index: self._choice(candidate.inclusion_probability, candidate.stratum)
            for index, candidate in enumerate(batch)
            if candidate.drawn_by == self.name
            and candidate.inclusion_probability is not None
            and 0 < candidate.inclusion_probability <= 1
        }

    def _choice(self, probability: float, stratum: str) -> Choice:
        where = f" from stratum {stratum}" if stratum else ""
        why = f"drawn at random{where} with probability {in_words(probability)}"
        if round(probability, 2) == 0:
            why = f"drawn at random{where}, 1 of {1 / probability:,.0f}"
        return Choice(self.name, "measure", self.priority, why, probability, stratum)
