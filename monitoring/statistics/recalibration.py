"""May normal follow what was seen? Season, spread and thresholds may; the level only with a person's yes. PURE.

Two ways in which a weekly refit would go blind, and what stops them: a slow decline would pull the level along (it is
the approved baseline's, always), and an incident would widen the thresholds (alarmed hours are left out).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monitoring.statistics.baseline import LONGEST_DAYS, whole_days
from monitoring.statistics.calibration import Calibration, Learning, Series, calibrate

HISTORY_HOURS = 24 * LONGEST_DAYS
PROPOSED_DAYS = 7


@dataclass(frozen=True)
class Renewal:
    """What a week of history made. `needs_approval`: a proposal; what is in force stays. Learning: likewise."""

    made: Calibration | Learning
    needs_approval: bool


def renew(
    current: Calibration, history: Series, alarmed: NDArray[np.int64], *, changed_since: int | None
) -> Renewal:
    """Calibrate anew on the last 56 days of `history`, and on nothing before the baseline began.

    alarmed        hours of episodes: they say nothing about normal
    changed_since  the hour (since 1970) from which on an alarm that is still on says that all is different; None:
    none is Without an alarm: the approved level (a baseline of fewer than 56 days grows with its fleet), and the
    rest anew. With one: a proposal of the level since the change, of its last week at most, and of nothing else.
    """
    last = int(history.hours[-1]) if len(history.hours) else 0
    first = max(last - HISTORY_HOURS + 1, current.baseline.since)
    if changed_since is not None:
        since = max(changed_since, last - 24 * PROPOSED_DAYS + 1)
        return Renewal(_moved(current, _from(history, since).usable(), since), True)
    grows = current.baseline.days < LONGEST_DAYS and first == current.baseline.since
    kept = _from(history, first).without(alarmed)
    baseline = None if grows else current.baseline
    return Renewal(calibrate(kept, baseline=baseline, budget_days=current.budget_days), False)


def _from(series: Series, hour: int) -> Series:
    return series.without(series.hours[series.hours < hour])


def _moved(current: Calibration, known: Series, since: int) -> Calibration:
    """The calibration with the level of these hours; of none, as it is."""
    if not len(known.hours):
        return current
    level = current.baseline.level + current.residuals(known).mean(axis=0)
    days = max(len(whole_days(known.hours)), 2)
    return replace(current, baseline=replace(current.baseline, level=level, days=days, since=since))
