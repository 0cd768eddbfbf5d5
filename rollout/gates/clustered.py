"""What do comparison gates have in common whose events come in clusters of one user or one connection?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rollout.gates.base import Arm, State
from rollout.gates.comparison import ComparisonGate
from rollout.judge import dispersion


class ClusteredGate(ComparisonGate):
    """Events of one key: a router that assigns by key puts a whole cluster of them into one arm.

    log e is divided by what stable's past events by hash bucket of the key say, or by what must be assumed
    without them. A user with a bad line, or with pictures that no model is sure of, makes clusters, too.
    """

    events_by_key: ClassVar[str] = (
        ""  # the field of Arm that counts them by bucket; "": nobody does, φ is assumed
    )
    events_in_words: ClassVar[str]

    def fresh(self, settings: Mapping[str, Any]) -> State:
        """The state before any evidence; nobody has said yet what the router assigns: events count one by one."""
        return {**super().fresh(settings), "dispersion": None}

    def assume(self, state: State, assignment: str, history: State) -> State:
        """What the router assigns (dispersion.Assignment), and what past intervals said. Raises ValueError.

        Where requests are assigned one by one, a cluster falls into both arms by their shares: φ is 1 whatever
        the buckets of keys say. Past errors say nothing about other events.
        """
        unit = dispersion.Assignment(assignment)
        one_by_one = unit is dispersion.Assignment.REQUEST
        return _tempered(
            state, unit, history if self.events_by_key and not one_by_one else dispersion.fresh()
        )

    def note_dispersion(self, state: State, stable: Arm, seconds: float) -> State:
        """Learn from the stable arm's events by key bucket, for later intervals. Raises EvidenceError."""
        known = state.get("dispersion")
        if not self.events_by_key or known is None or known["assignment"] == dispersion.Assignment.REQUEST:
            return state
        events = getattr(stable, self.events_by_key)
        history = dispersion.absorb(known["history"], events, n=stable.n, seconds=seconds)
        return _tempered(state, dispersion.Assignment(known["assignment"]), history)

    def remark(self, state: State) -> str:
        """ "; errors come in clusters: φ = 5.0 assumed, evidence is divided by 6.5"."""
        known = state.get("dispersion")
        if known is None or (state["divisor"] == 1 and not known["assumed"]):
            return ""
        if state["divisor"] == 1:  # nothing is guessed: the fleet says what its router draws
            return "; φ = 1 declared: requests are assigned one by one"
        how = "assumed" if known["assumed"] else "measured on stable"
        divided = f"evidence is divided by {state['divisor']:.1f}"
        return f"; {self.events_in_words} come in clusters: φ = {known['phi']:.1f} {how}, {divided}"


def _tempered(state: State, assignment: dispersion.Assignment, history: State) -> State:
    found = dispersion.estimate(history, assignment)
    known = {"assignment": assignment.value, "history": history, "phi": found.phi, "assumed": found.assumed}
    return {**state, "dispersion": known, "divisor": found.divisor}
