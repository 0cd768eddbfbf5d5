"""Does the canary fail more requests than stable?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from rollout.gates.base import Arm, Interval, State
from rollout.gates.comparison import Array, ComparisonGate, Counted, parity_log_e, percent
from rollout.judge import dispersion, past, rare_events
from rollout.judge.counts import check_events

#: Stable's rate before it is known: PRIOR_ERRORS failures in PRIOR_REQUESTS requests.
PRIOR_ERRORS, PRIOR_REQUESTS = 0.5, 500.0
#: Promotion's alternatives: canary equals stable, at these multiples of stable's past rate. A rare rate is
#: known to a factor of two at best, and a bet on a rate too low loses all at the first failure.
BASE_MULTIPLES = np.array([0.5, 1.0, 2.0])


class ErrorsGate(ComparisonGate):
    """Failed first attempts, by form P to roll back and form H to promote.

    Errors come in clusters, and a router that assigns by key puts a whole cluster into one arm: log e is divided
    by what the stable arm's past errors by hash bucket of the key say, or by what must be assumed without them.
    """

    name: ClassVar[str] = "errors"
    source: ClassVar[str] = "router"
    needs: ClassVar[tuple[str, ...]] = ("errors",)
    default_weight: ClassVar[float] = 0.35
    defaults: ClassVar[dict[str, Any]] = {
        "theta0": 1.25,
        "delta": 1e-4,
        "margin_points": {"1": 1.0, "5": 0.5, "25": 0.2, "50": 0.1},
    }
    fail_alternatives: ClassVar[int] = len(rare_events.RHOS)
    fail_events: ClassVar[int] = 1
    pass_alternatives: ClassVar[int] = len(BASE_MULTIPLES)
    past_size: ClassVar[int] = 2
    past_seconds: ClassVar[float] = 600.0  # rare events want a longer memory than histograms

    def fresh(self, settings: Mapping[str, Any]) -> State:
        """The state before any evidence; nobody has said yet what the router assigns: errors count one by one."""
        return {**super().fresh(settings), "dispersion": None}

    def assume(self, state: State, assignment: str, history: State) -> State:
        """What the router assigns (dispersion.Assignment), and what past intervals said. Raises ValueError.

        Where requests are assigned one by one, a cluster falls into both arms by their shares: φ is 1 whatever
        the buckets of keys say.
        """
        unit = dispersion.Assignment(assignment)
        return _tempered(
            state, unit, dispersion.fresh() if unit is dispersion.Assignment.REQUEST else history
        )

    def note_dispersion(self, state: State, stable: Arm, seconds: float) -> State:
        """Learn from the stable arm's errors by key bucket, for later intervals. Raises EvidenceError."""
        known = state.get("dispersion")
        if known is None or known["assignment"] == dispersion.Assignment.REQUEST:
            return state
        history = dispersion.absorb(
            known["history"], stable.errors_by_key_bucket, n=stable.n, seconds=seconds
        )
        return _tempered(state, dispersion.Assignment(known["assignment"]), history)

    def remark(self, state: State) -> str:
        """ "; errors come in clusters: φ = 5.0 assumed, evidence is divided by 6.5"."""
        known = state.get("dispersion")
        if known is None or (state["divisor"] == 1 and not known["assumed"]):
            return ""
        how = "assumed" if known["assumed"] else "measured on stable"
        if state["divisor"] == 1:
            return f"; φ = 1 {how}: requests are assigned one by one"
        divided = f"evidence is divided by {state['divisor']:.1f}"
        return f"; errors come in clusters: φ = {known['phi']:.1f} {how}, {divided}"

    def seen(self, interval: Interval) -> tuple[Array, Array]:
        """(failures, requests) of canary and of stable."""
        for arm_name, arm in (("canary", interval.canary), ("stable", interval.stable)):
            check_events(arm_name, arm.errors, arm.n)
        return (
            np.array([interval.canary.errors, interval.canary.n], dtype=float),
            np.array([interval.stable.errors, interval.stable.n], dtype=float),
        )

    def weigh_harm(self, state: State, canary: Array, stable: Array) -> Counted:
        """Form P over the table of rate ratios."""
        (x_c, n_c), (x_b, n_b) = canary, stable
        settings = state["settings"]
        log_e = rare_events.log_e(
            n_c=n_c, x_c=x_c, n_b=n_b, x_b=x_b, theta0=settings["theta0"], delta=settings["delta"]
        )
        return Counted.of(canary, stable, log_e)

    def weigh_parity(self, state: State, canary: Array, stable: Array) -> Counted:
        """Form H against a loss of the step's margin, betting that canary and stable are equal."""
        past_errors, past_requests = past.counts(state["past"])
        base = (past_errors + PRIOR_ERRORS) / (past_requests + PRIOR_REQUESTS) * BASE_MULTIPLES
        (x_c, n_c), (x_b, n_b) = canary, stable
        log_e = parity_log_e((n_c, x_c, n_b, x_b), base, base, self.margin_points(state))
        return Counted.of(canary, stable, log_e)

    def sentence(self, state: State, tally: State, *, failing: bool) -> str:
        """ "canary 23 of 1,140 requests failed (2.02 %), stable 11 of 21,500 (.05 %)"."""
        (x_c,), (x_b,), n_c, n_b = tally["x_c"], tally["x_b"], tally["n_c"], tally["n_b"]
        return (
            f"canary {x_c:,} of {n_c:,} requests failed ({percent(x_c, n_c)}), "
            f"stable {x_b:,} of {n_b:,} ({percent(x_b, n_b)})"
        )


def _tempered(state: State, assignment: dispersion.Assignment, history: State) -> State:
    found = dispersion.estimate(history, assignment)
    known = {"assignment": assignment.value, "history": history, "phi": found.phi, "assumed": found.assumed}
    return {**state, "dispersion": known, "divisor": found.divisor}
