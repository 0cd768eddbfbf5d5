"""Are these counts fit to be evidence?"""

from __future__ import annotations

import math
from collections.abc import Sequence


class EvidenceError(ValueError):
    """Evidence that cannot be: the judge refuses it and the caller holds. Never a FAIL, never a PASS."""


def check_number(name: str, value: float) -> None:
    """Refuse a count that is not finite or is negative."""
    if not math.isfinite(value) or value < 0:
        raise EvidenceError(f"{name}: {value} is not a count")


def check_events(arm: str, events: float, n: float) -> None:
    """Refuse more events than requests; x > n would break E[e] ≤ 1."""
    check_number(f"{arm} requests", n)
    check_number(f"{arm} events", events)
    if events > n:
        raise EvidenceError(f"{arm}: {events:,} events of {n:,} requests")


def check_histogram(arm: str, histogram: Sequence[float], bins: int) -> None:
    """Refuse a histogram of another length, or with a bin that is no count."""
    if len(histogram) != bins:
        raise EvidenceError(f"{arm}: a histogram of {len(histogram)} bins, not {bins}")
    for count in histogram:
        if not 0 <= count < math.inf:
            raise EvidenceError(f"{arm}: {count} in a histogram is not a count")
