"""Does the canary give the answers that stable gives, as often as its plan asks? For variants of the same weights.

Read from mirrored requests, which both versions answered, and from a golden set that was posted with the version: its
images are absorbed first, as one batch of pairs. Users see none of these answers, so a version below its parity is
rolled back before it gets traffic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from davy.counting import CONFIDENCE_BINS
from numpy.typing import NDArray

from rollout.gates.base import GateSpec, GateVerdict, Interval, Pairs, State, Verdict
from rollout.gates.comparison import PASS_AT
from rollout.gates.settings import merged
from rollout.judge import mixture, one_sample
from rollout.judge.counts import check_events, check_histogram

#: What may differ: the answer (label or boxes), and the embedding.
KINDS = ("answer", "embedding")
#: Rollback's alternatives: odds of a difference beyond the budget's.
FAIL_ODDS = np.array([1.5, 3.0, 10.0, 50.0, 300.0])
#: Promotion's alternatives: shares of the budget's differences.
PASS_SHARES = np.array([1.0, 0.5, 0.1, 0.001])

Array = NDArray[np.float64]


class ParityGate:
    """Two one-sample tests per kind: the share of differing pairs above the budget (FAIL), or not above it (PASS).

    agreement         least share of pairs that agree: same label, or boxes that match one to one
    tolerance_points  PASS excludes an agreement lower than the budget by this much: equality cannot be proven
    least_cosine      of a pair's embeddings, below which they count as different; the same budget holds
    map_drop_points   most that mAP may drop on the golden set: see rollout.parity
    `value` is the agreement in percent, `bound` the budget, n the pairs. It takes no part in comparing weights: the
    evidence goes on over all steps.
    """

    name: ClassVar[str] = "parity"
    source: ClassVar[str] = "pairs"
    needs: ClassVar[tuple[str, ...]] = ()
    default_weight: ClassVar[float] = 0.2
    needs_reference: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {
        "agreement": 0.999,
        "tolerance_points": 0.1,
        "least_cosine": 0.99,
        "map_drop_points": 0.5,
    }

    def fresh(self, settings: Mapping[str, Any]) -> State:
        """The state before any evidence. Raises ValueError("<key>: …") for a bad setting."""
        return {
            "settings": merged(self.defaults, settings),
            "weight_percent": None,
            "fail": mixture.fresh(len(KINDS) * len(FAIL_ODDS)),
            "pass": {kind: [0.0] * len(PASS_SHARES) for kind in KINDS},
            "pairs": dict.fromkeys(KINDS, 0),
            "differ": dict.fromkeys(KINDS, 0),
        }

    def enter_step(self, state: State, weight_percent: float) -> State:
        """Agreement does not depend on the weight: nothing starts anew."""
        return {**state, "weight_percent": float(weight_percent)}

    def absorb(self, state: State, interval: Interval) -> State:
        """Add the pairs that were matched in the interval. Raises EvidenceError."""
        seen = _seen(interval.pairs or Pairs(), state["settings"])
        budget = 1 - state["settings"]["agreement"]
        odds = budget / (1 - budget) * FAIL_ODDS
        harm = [
            one_sample.log_e(n=n, x=x, line=budget, alternatives=odds / (1 + odds), harm=True)
            for n, x in seen.values()
        ]
        new = {
            **state,
            "fail": mixture.absorb(state["fail"], np.concatenate(harm), interval.start),
            "pairs": {kind: state["pairs"][kind] + n for kind, (n, _) in seen.items()},
            "differ": {kind: state["differ"][kind] + x for kind, (_, x) in seen.items()},
        }
        if state["weight_percent"] is not None:
            line = min(0.999, budget + state["settings"]["tolerance_points"] / 100)
            new["pass"] = {
                kind: mixture.add(
                    state["pass"][kind],
                    one_sample.log_e(n=n, x=x, line=line, alternatives=budget * PASS_SHARES, harm=False),
                )
                for kind, (n, x) in seen.items()
            }
        return new

    def verdict(self, state: State, spec: GateSpec) -> GateVerdict:
        """PASS when every kind that there is has e ≥ 20, else INCONCLUSIVE."""
        log_pass = self._log_pass(state)
        passed = log_pass >= math.log(PASS_AT)
        if not any(state["pairs"].values()):
            reason = "no mirrored request that stable and the canary both answered yet"
        else:
            lowest = 100 * state["settings"]["agreement"] - state["settings"]["tolerance_points"]
            said = "is excluded" if passed else "is not excluded yet"
            reason = f"{_sentence(state)}; an agreement below {lowest:g} % {said}"
        return self._answer(state, spec, Verdict.PASS if passed else Verdict.INCONCLUSIVE, reason)

    def failure(self, state: State, spec: GateSpec) -> GateVerdict:
        """The FAIL that the judge gives when E crosses its line."""
        wanted = f"at least {100 * state['settings']['agreement']:g} % is asked for"
        return self._answer(state, spec, Verdict.FAIL, f"{_sentence(state)}; {wanted}")

    def _answer(self, state: State, spec: GateSpec, verdict: Verdict, reason: str) -> GateVerdict:
        kind = _worst(state)
        n = state["pairs"][kind]
        return GateVerdict(
            name=self.name,
            verdict=verdict,
            value=100 * (1 - state["differ"][kind] / n) if n else None,
            bound=100 * state["settings"]["agreement"],
            n=n,
            reason=reason,
            log_e_fail=mixture.log_e(state["fail"]),
            log_e_pass=self._log_pass(state),
            required=spec.required,
            dry_run=spec.dry_run,
        )

    def _log_pass(self, state: State) -> float:
        """The least over the kinds that there are: each must be shown."""
        shown = [mixture.log_mean(state["pass"][kind]) for kind in KINDS if state["pairs"][kind]]
        return min(shown, default=0.0)


def _seen(pairs: Pairs, settings: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Per kind (pairs, those that differ). Raises EvidenceError."""
    check_events("pairs", pairs.agreed, pairs.compared)
    seen = {"answer": (pairs.compared, pairs.compared - pairs.agreed), "embedding": (0, 0)}
    if pairs.cosine is not None:
        check_histogram("cosine", pairs.cosine, CONFIDENCE_BINS)
        least = round(CONFIDENCE_BINS * settings["least_cosine"])
        seen["embedding"] = (sum(pairs.cosine), sum(pairs.cosine[:least]))
    return seen


def _worst(state: State) -> str:
    """The kind with the larger share of differences, among those that there are."""
    return max(
        KINDS, key=lambda kind: state["differ"][kind] / state["pairs"][kind] if state["pairs"][kind] else -1.0
    )


def _sentence(state: State) -> str:
    """ "canary and stable give the same answer to 4,998 of 5,000 images (99.96 %)"."""
    told = []
    for kind, words in (("answer", "give the same answer to"), ("embedding", "agree in the embedding of")):
        n = state["pairs"][kind]
        if n:
            same = n - state["differ"][kind]
            told.append(f"canary and stable {words} {same:,} of {n:,} images ({100 * same / n:.2f} %)")
    return ", ".join(told) or "canary and stable: no pairs"
