"""Does the canary get the share of requests that it should? If not, its evidence cannot be trusted.

A mismatch (a proxy with an old weight, a retry that counts twice, a cache before one arm) is INCONCLUSIVE with
its own alert, never a FAIL. Tested on *assigned* requests, before any fallback.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollout.judge import mixture
from rollout.judge.counts import EvidenceError, check_events

ALPHA = 1e-4  # chance of ever alarming on a split within the tolerance
TOLERANCE = 0.1  # of the smaller share: splits this far off harm nobody (hashing by key is never exact)
#: Odds of the alternatives relative to the tolerated boundary's, on either side of it.
ODDS_RATIOS = np.array([1.05, 1.2, 1.6, 3.0, 10.0, 100.0])

State = dict[str, Any]
Array = NDArray[np.float64]


def fresh() -> State:
    """Nothing seen yet. The process over start times finds a mismatch that begins late."""
    return {
        "process": mixture.fresh(2 * len(ODDS_RATIOS)),
        "canary": 0.0,
        "requests": 0.0,
        "expected": 0.0,
    }


def absorb(
    state: State,
    *,
    n_c: float,
    n: float,
    share: float,
    at: float,
    tolerance: float = TOLERANCE,
    divisor: float = 1.0,
) -> State:
    """Add one interval, starting at `at` (unix seconds), in which the weight did not change.

    n_c, n     requests assigned to the canary, and to both arms
    share      the canary's share as the router was told, in [0, 1]; at 0 and 1 there is no split to test
    tolerance  in [0, 1), of the smaller of both arms' shares
    divisor    ≥ 1, of log e where assignment units are clusters of requests (see dispersion); of past intervals
    Raises EvidenceError.
    """
    check_events("assigned to the canary", n_c, n)
    if not 0 <= share <= 1:
        raise EvidenceError(f"share: {share} is not a share")
    if not (0 <= tolerance < 1 and 1 <= divisor < math.inf and math.isfinite(at)):
        raise EvidenceError(f"tolerance {tolerance}, divisor {divisor}, at {at}: not a test")
    evidence = interval_log_e(n_c=n_c, n=n, share=share, tolerance=tolerance) / divisor
    tested = n if 0 < share < 1 else 0.0
    return {
        "process": mixture.absorb(state["process"], evidence, at),
        "canary": state["canary"] + (n_c if tested else 0.0),
        "requests": state["requests"] + tested,
        "expected": state["expected"] + share * tested,
    }


def interval_log_e(*, n_c: float, n: float, share: float, tolerance: float) -> Array:
    """(12,) log e-values of one interval against |true share − share| ≤ tolerance·min(share, 1 − share).

    The first half bets on too many canary requests, the second on too few, each by the likelihood ratio of an
    alternative to *its* end of the tolerated range. A request's mean factor is linear in the true share and 1 at
    that end, so it is ≤ 1 on the whole range: each is an e-value, and so is their mixture, even when the true
    share wanders within the range. After Lindon & Malek (NeurIPS 2022), for shares that change.
    """
    if n == 0 or not 0 < share < 1:
        return np.zeros(2 * len(ODDS_RATIOS))
    margin = tolerance * min(share, 1 - share)
    return np.concatenate(
        [_ratios(n_c, n, share + margin, ODDS_RATIOS), _ratios(n_c, n, share - margin, 1 / ODDS_RATIOS)]
    )


def log_e(state: State) -> float:
    """Log e-value so far, against a split that was always within its tolerance."""
    return mixture.log_e(state["process"])


def mismatched(state: State, alpha: float = ALPHA) -> bool:
    """Is the evidence e ≥ 1/α now? On tolerated splits it ever is with probability ≤ α, however often one asks."""
    return log_e(state) >= -math.log(alpha)


def sentence(state: State) -> str:
    """ "canary got 612 of 10,000 requests (6.12 %), expected 5.00 %"."""
    requests = state["requests"]
    if requests == 0:
        return "no split of requests seen yet"
    return (
        f"canary got {state['canary']:,.0f} of {requests:,.0f} requests ({100 * state['canary'] / requests:.2f} %), "
        f"expected {100 * state['expected'] / requests:.2f} %"
    )


def _ratios(n_c: float, n: float, end: float, odds_ratios: Array) -> Array:
    """(k,) log likelihood ratios of shares with the end's odds times each ratio, to the end itself."""
    # alternative/end = ratio/(1 + end·(ratio − 1)); (1 − alternative)/(1 − end) = 1/(1 + end·(ratio − 1))
    return np.asarray(n_c * np.log(odds_ratios) - n * np.log1p(end * (odds_ratios - 1)))
