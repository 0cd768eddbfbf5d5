"""What is a hold? A gate that asks somebody (a person, an alert, another system) whether the rollout may go on.

Holds are no evidence and take no share of α: a FAIL holds the rollout, or rolls it back where the plan says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol

from rollout.gates.base import Verdict

REASON_CHARACTERS = 500


@dataclass(frozen=True)
class Question:
    """May this rollout leave its present step?"""

    rollout: int
    model: str
    version: str
    stable: str
    fleet: str
    step: int
    weight_percent: float  # 0: live requests are only mirrored
    next_step: int  # the number of the plan's steps: the promotion
    next_weight_percent: float  # 100: the promotion
    step_entered_at: datetime
    now: datetime
    started_by: str = ""


@dataclass(frozen=True)
class Answer:
    """PASS, FAIL, or INCONCLUSIVE while nobody has answered; the reason is one sentence for 3 a.m."""

    verdict: Verdict
    reason: str
    value: float | None = None
    bound: float | None = None
    asks_people: bool = False  # waits for a person, who may take the time that it takes


NOT_ASKED = Answer(Verdict.PASS, "not asked at this step")


class Hold(Protocol):
    """Asks one question of one source. Safe to ask again; changes nothing."""

    name: ClassVar[str]
    every_seconds: ClassVar[float]  # an answer is kept so long, unless the plan's settings say otherwise

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError("<key>: …") for a setting that cannot be."""
        ...

    def ask(self, settings: Mapping[str, Any], question: Question) -> Answer:
        """The answer now. A source that does not answer is INCONCLUSIVE with the reason, never an exception."""
        ...


def sentence(text: str) -> str:
    """What another system said, as one line that can be stored as JSON and shown."""
    clean = text.replace("\x00", "").encode("utf-8", "replace").decode()
    return " ".join(clean.split())[:REASON_CHARACTERS]
