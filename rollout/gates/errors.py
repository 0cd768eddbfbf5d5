"""Does the canary fail more requests than stable?"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from rollout.gates.base import Interval, State
from rollout.gates.clustered import ClusteredGate
from rollout.gates.comparison import Array, Counted, parity_log_e, percent
from rollout.judge import past, rare_events
from rollout.judge.counts import check_events

#: Stable's rate before it is known: PRIOR_ERRORS failures in PRIOR_REQUESTS requests.
PRIOR_ERRORS, PRIOR_REQUESTS = 0.5, 500.0


class ErrorsGate(ClusteredGate):
    """Failed first attempts, by form P to roll back and form H to promote."""

    name: ClassVar[str] = "errors"
    source: ClassVar[str] = "router"
    needs: ClassVar[tuple[str, ...]] = ("errors",)
    default_weight: ClassVar[float] = 0.35
    events_by_key: ClassVar[str] = "errors_by_key_bucket"
    events_in_words: ClassVar[str] = "errors"
    defaults: ClassVar[dict[str, Any]] = {
        "theta0": 1.25,
        "delta": 1e-4,
        "margin_points": {"1": 1.0, "5": 0.5, "25": 0.2, "50": 0.1},
    }
    fail_alternatives: ClassVar[int] = len(rare_events.RHOS)
    fail_events: ClassVar[int] = 1
    pass_alternatives: ClassVar[int] = 1
    past_size: ClassVar[int] = 2
    #: An incident of both arms costs a bet on stable's usual rate all that it has won; it must be known at once,
    #: and forgotten as soon as it is over. The prior steadies the rate where traffic is thin.
    past_seconds: ClassVar[float] = 30.0

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
        base = np.array([(past_errors + PRIOR_ERRORS) / (past_requests + PRIOR_REQUESTS)])
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
