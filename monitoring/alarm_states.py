"""What do the calibrated alarms of a version say, and by what are they measured?"""

from __future__ import annotations

from typing import Any

from controlplane.models import ModelVersion
from monitoring import calibrations
from monitoring.models import Calibration, DetectorState, Episode
from monitoring.statistics import scores
from monitoring.statistics.calibration import Learning

FAST_ONLY = "alarms only at D > .2"


def calibrated(version: ModelVersion, family: scores.Family) -> dict[str, Any]:
    """One family's hourly and slow alarms as JSON: state, statistic, limit, the calibration, the open episode."""
    row = calibrations.in_force(version, family)
    if row is None or row.state != Calibration.State.ACTIVE:
        days = row.limits.get("days", 0) if row else 0
        return {
            "status": DetectorState.Status.TOO_FEW,
            "reason": f"{Learning(days)}; {FAST_ONLY}",
            "calibration": calibrations.as_json(row) if row else None,
        }
    names = calibrations.hourly(family), calibrations.slow(family)
    states = {
        state.detector: state for state in DetectorState.objects.filter(version=version, detector__in=names)
    }
    hours, months = (states.get(name) for name in names)
    episode = Episode.objects.filter(version=version, family=family, segment_key="", ended=None).first()
    return {
        "status": hours.status if hours else DetectorState.Status.TOO_FEW,
        "reason": hours.reason if hours else "no hour has closed since it was calibrated",
        "evaluated_until": hours.evaluated_until if hours else None,
        **(hours.result if hours else {}),
        "episode": _episode_json(episode),
        "slow": None
        if months is None
        else {"status": months.status, "reason": months.reason, **months.result},
        "calibration": calibrations.as_json(row),
    }


def shown(version: ModelVersion) -> list[dict[str, Any]]:
    """All families' alarms that there is something to say of, for a page."""
    found = [{"family": family, **calibrated(version, family)} for family in calibrations.FAMILIES]
    return [alarm for alarm in found if alarm["calibration"]]


def _episode_json(episode: Episode | None) -> dict[str, Any] | None:
    if episode is None:
        return None
    return {
        "began": episode.began,
        "last": episode.last,
        "statistic": episode.statistic,
        "value": episode.value,
        "limit": episode.limit,
        "attribution": episode.attribution or None,
    }
