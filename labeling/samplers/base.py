"""What a sampler is: which of a batch of predictions deserve a person's look, and why. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

Budget = Literal["improve", "measure"]


@dataclass(frozen=True)
class Candidate:
    """One live prediction as a sampler sees it."""

    confidence: float | None  # of the suggested label, 0–1; None when the server sent none
    drawn_by: str = ""  # the collector's sampler that sent it; "" for a raw prediction
    inclusion_probability: float | None = None  # with which the collector drew it
    stratum: str = ""


@dataclass(frozen=True)
class Choice:
    """One chosen prediction."""

    sampler: str
    budget: Budget
    priority: float  # finite; the queue hands out the highest first
    why: str  # in words, shown to the annotator
    inclusion_probability: float | None = None  # set exactly when the budget is "measure"
    stratum: str = ""


class Sampler(Protocol):
    """Chooses from a batch. Same batch, same answer: no clock, no database, no global randomness."""

    name: ClassVar[str]

    def choose(self, batch: Sequence[Candidate]) -> Mapping[int, Choice]:
        """The chosen ones by their index in `batch`; what is not in the answer is not chosen."""
        ...


def in_words(fraction: float) -> str:
    """A fraction as the pages print it: .47, .30, 1.00."""
    return f"{fraction:.2f}".removeprefix("0")
