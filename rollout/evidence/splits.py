"""Does the router split requests as it was told? A split that is off is biased, and so is what it says of the canary.

A mismatch holds the rollout; it never rolls back. It is lifted when three times as many requests as had proved it, of a
minute at least, no longer show it when they are counted afresh. The state travels in `sources` (see evidence):
split {test, mismatch, proof, since}. PURE.
"""

from __future__ import annotations

import math

from rollout.gates.base import GateVerdict, Interval, State, Verdict
from rollout.judge import dispersion, sample_ratio
from rollout.judge.dispersion import Assignment

NAME = "sample ratio"
#: How many users a fleet whose users stay in an arm is taken to have, all equally busy. With fewer, their chance
#: shares differ from the weight by more than is tolerated, and that is told as a mismatch.
LEAST_KEYS = 1000.0
SIGMAS = 4.0
LIFTED_AFTER_SECONDS = 60.0
LIFTED_AFTER_PROOFS = 3.0
_MOST_TOLERANCE = 0.9


def note(sources: State, interval: Interval, weight_percent: float, assignment: str) -> State:
    """Add one interval of the router's, of requests as they were assigned, before any fallback.

    Raises EvidenceError for counts that cannot be.
    """
    unit, share = Assignment(assignment), weight_percent / 100
    split = sources.get("split", _none(sample_ratio.fresh()))
    test = sample_ratio.absorb(
        split["test"],
        n_c=interval.canary.n,
        n=interval.canary.n + interval.stable.n,
        share=share,
        at=interval.start,
        tolerance=tolerance(share, unit),
        divisor=dispersion.divisor(None, unit),
    )
    if sample_ratio.mismatched(test):
        said, proof = sample_ratio.sentence(test), test["requests"]
        found = {"test": sample_ratio.fresh(), "mismatch": said, "proof": proof, "since": interval.end}
    elif split["mismatch"] and _is_mended(split, test, interval.end):
        found = _none(test)
    else:
        found = {**split, "test": test}
    return {**sources, "split": found}


def _none(test: State) -> State:
    return {"test": test, "mismatch": "", "proof": 0.0, "since": 0.0}


def _is_mended(split: State, test: State, now: float) -> bool:
    """Whether the mismatch would have shown again by now, if it were still there."""
    enough = test["requests"] >= LIFTED_AFTER_PROOFS * split["proof"]
    return bool(enough and now - split["since"] >= LIFTED_AFTER_SECONDS)


def mismatch(sources: State) -> str:
    """The mismatch in words; "" while the split is as wanted, or not yet shown to be otherwise."""
    return str(sources.get("split", {}).get("mismatch", ""))


def verdict(sources: State) -> GateVerdict | None:
    """What holds the rollout while there is a mismatch; None without one."""
    found = mismatch(sources)
    if not found:
        return None
    reason = f"{found}: what it says of the canary cannot be trusted; look at the router and its weights"
    return GateVerdict(NAME, Verdict.INCONCLUSIVE, None, None, 0, reason)


def tolerance(share: float, unit: Assignment) -> float:
    """How far a split may be off, of the smaller arm's share.

    One that draws every request is exact. One by key draws users: with LEAST_KEYS of them the arm's share has a
    relative deviation of √((1 − s)/(s·keys)), for good, however many requests come.
    """
    smaller = min(share, 1 - share)
    if unit is Assignment.REQUEST or smaller <= 0:
        return sample_ratio.TOLERANCE
    deviation = math.sqrt((1 - smaller) / (smaller * LEAST_KEYS))
    return min(_MOST_TOLERANCE, max(sample_ratio.TOLERANCE, SIGMAS * deviation))
