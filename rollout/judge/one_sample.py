"""How much do counts of one arm alone speak for "its rate lies beyond a fixed line"?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.judge.counts import EvidenceError, check_events


def log_e(*, n: float, x: float, line: float, alternatives: ArrayLike, harm: bool) -> NDArray[np.float64]:
    """Log e-value of one interval against H0: rate ≤ line (harm), or rate ≥ line.

    n, x          trials and events among them; no trial gives 0
    line          in (0, 1)
    alternatives  (k,) rates in (0, 1) that are bet on, known before the interval; one within H0 gives 0
    Returns (k,): add up over intervals per alternative, mix last. Raises EvidenceError.

    The likelihood ratio of a Bernoulli rate p1 to the line. At rate = line its mean is 1 per trial; at any other rate
    of H0 it is less, because it rises with x for p1 above the line and falls for p1 below: a bet of a fixed share of
    the wealth on each trial (Wald 1945; Waudby-Smith & Ramdas, JRSS-B 2024).
    """
    check_events("pairs", x, n)
    if not 0 < line < 1:
        raise EvidenceError(f"a line of {line} cannot be tested")
    rates = np.clip(np.asarray(alternatives, dtype=float), 1e-9, 1 - 1e-9)
    beyond = rates > line if harm else rates < line
    rates = np.where(beyond, rates, line)
    return np.asarray(x * np.log(rates / line) + (n - x) * (np.log1p(-rates) - np.log1p(-line)))
