"""What a detector is: it looks at a version's live counts and its reference, and gives one of three answers. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Protocol

import numpy as np
from davy.reference import Reference
from numpy.typing import NDArray

State = dict[str, Any]  # JSON
Result = dict[str, Any]  # JSON: every number with its n


class Status(StrEnum):
    """Not enough data is not fine, so it has an answer of its own."""

    STABLE = "STABLE"
    DRIFTED = "DRIFTED"
    TOO_FEW = "TOO_FEW"


@dataclass(frozen=True)
class Live:
    """Live counts of closed intervals, added up over [start, end); None where nothing came."""

    start: datetime | None
    end: datetime | None
    n: int
    confidence: NDArray[np.int64]  # (100,)
    embedding: NDArray[np.int64] | None  # (k+1, B), in the reference's bins


@dataclass(frozen=True)
class Answer:
    """`reason` says what was seen, with the numbers, to follow the version's name; `state` comes back next time."""

    status: Status
    reason: str
    result: Result
    state: State


class Detector(Protocol):
    """One question about live output. Pure: the same counts, reference and state give the same answer."""

    name: ClassVar[str]
    subject: ClassVar[str]  # what drifts, in an alert's cause: drift/<subject>/<model>/<version>
    advice: ClassVar[str]  # what a person does about it

    @property
    def hysteresis(self) -> Hysteresis:
        """The distances at which it alarms, and at which that is over."""

    def evaluate(self, live: Live, reference: Reference | None, state: State) -> Answer:
        """Look once. `state` is {} at first, later that of the answer before."""
        ...


@dataclass(frozen=True)
class Hysteresis:
    """When a distance becomes an alarm and when the alarm is over. Effect sizes, not p-values: design/drift.

    Above `drifted_above` `drifted_after` times running is drift; below `stable_below` `stable_after` times running
    ends it; anything between leaves the answer as it is.
    """

    drifted_above: float = 0.2
    drifted_after: int = 2
    stable_below: float = 0.15
    stable_after: int = 3

    def step(self, state: Mapping[str, Any], distance: float, certain: bool, at: datetime | None) -> State:
        """The next state {drifted, above, below, since}. A distance that may be chance (not certain) is not above."""
        above = state.get("above", 0) + 1 if distance > self.drifted_above and certain else 0
        below = state.get("below", 0) + 1 if distance < self.stable_below else 0
        drifted = bool(state.get("drifted", False))
        if drifted:
            drifted = below < self.stable_after
        else:
            drifted = above >= self.drifted_after
        begun = above == 1 and not state.get("drifted")
        since = at.isoformat() if begun and at else state.get("since")
        return {
            "drifted": drifted,
            "above": above,
            "below": below,
            "since": since if drifted or above else None,
        }


def too_few(reason: str, result: Result, state: Mapping[str, Any]) -> Answer:
    """No answer this time: counts in a row start again, and an alarm that was on stays on."""
    kept = {"drifted": bool(state.get("drifted", False)), "since": state.get("since"), "above": 0, "below": 0}
    return Answer(Status.TOO_FEW, reason, result, kept)


def period(live: Live) -> Result:
    """The times of the counts, as JSON."""
    return {
        "from": live.start.isoformat() if live.start else None,
        "to": live.end.isoformat() if live.end else None,
    }
