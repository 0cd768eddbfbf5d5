"""Where does a version's drift come from? The cells of the alarmed hours against each cell's own past."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from controlplane.models import ModelVersion
from monitoring import series
from monitoring.models import Episode, Rollup, Segment
from monitoring.rollups import HOUR
from monitoring.statistics import cell_history, seasons
from monitoring.statistics.attribution import Cause, attribute, unknown
from monitoring.statistics.scores import Family

PAST = timedelta(weeks=4)  # a cell's history: 672 hours × 200 cells × 66 scores are 70 MB
MOST_HOURS = 24  # of the alarmed period, the last ones: limits need many past periods of the same length


def explain(version: ModelVersion, family: Family, since: datetime, until: datetime) -> Cause:
    """What the change of a family's scores in [since, until) comes from, by the segments (and fleets) that were named.

    Reads hourly roll-ups; the past is the four weeks before `since` without the hours of the family's earlier episodes.
    Seasons, noise and limits are taken from that past. An hour that is not rolled up yet is not seen. Seconds of work
    for 90 cells: call it once per alarm, outside of a transaction.
    """
    axes = _axes(version, since, until)
    found = series.cells(version, family, since - PAST, until, axes)
    began, ended = _hour(since), _hour(until)
    alarmed = np.flatnonzero((found.hours >= began) & (found.hours < ended))[-MOST_HOURS:]
    past = np.flatnonzero((found.hours < began) & ~_in_episodes(version, family, found.hours, since))
    if not len(alarmed):
        return unknown("no hour of the alarm has been rolled up")
    if len(past) < cell_history.LEAST_HOURS:
        return unknown(f"{len(past)} of {cell_history.LEAST_HOURS} hours of a past to compare with")
    images = found.n.astype(np.float64)
    design = seasons.supported_design(found.hours)
    before = cell_history.usual(found.names, found.hours[past], images[past], found.means[past], design[past])
    length = len(alarmed)
    if cell_history.periods(before, length) < cell_history.LEAST_PERIODS:
        length = 1
    alarmed = alarmed[-length:]
    noise = cell_history.noise(before, length)
    limits = cell_history.limit_from(cell_history.history(before, noise, length), axes)
    now = cell_history.period(before, noise, design[alarmed], images[alarmed], found.means[alarmed])
    return attribute(now, axes, limits)


def _axes(version: ModelVersion, since: datetime, until: datetime) -> tuple[str, ...]:
    """The names of segments that this version's model keeps apart, and "fleet" where several were heard."""
    values = Segment.objects.filter(model=version.model_id).values_list("values", flat=True)
    names = sorted({name for segment in values for name in segment})
    heard = Rollup.objects.filter(version=version, seconds=HOUR, start__gte=since, start__lt=until)
    fleets = heard.values_list("fleet", flat=True).distinct()
    return (*names, series.FLEET) if len(fleets) > 1 and series.FLEET not in names else tuple(names)


def _in_episodes(
    version: ModelVersion, family: Family, hours: NDArray[np.int64], since: datetime
) -> NDArray[np.bool_]:
    """(t,) which hours belong to an earlier episode of the family, on any segment."""
    inside = np.zeros(len(hours), np.bool_)
    episodes = Episode.objects.filter(version=version, family=family, began__lt=since, last__gte=since - PAST)
    for began, last in episodes.values_list("began", "last"):
        inside |= (hours >= _hour(began)) & (hours <= _hour(last))
    return inside


def _hour(at: datetime) -> int:
    return int(at.timestamp()) // HOUR
