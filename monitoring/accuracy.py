"""How accurate is a version, by the labels that may say so? Only *measure* labels may: they were drawn by lot."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np

from controlplane.models import ModelVersion
from monitoring.models import Outcome, Prediction
from monitoring.statistics.accuracy import AccuracyEstimate, estimate

SAMPLER = "measure"


def measured(
    version: ModelVersion, since: datetime, until: datetime, segment: Mapping[str, str] | None = None
) -> AccuracyEstimate:
    """Accuracy over the requests made in [since, until), with its 95 % interval and n.

    `segment` keeps requests whose prediction has all of its keys and values.
    """
    outcomes = Outcome.objects.filter(
        version=version,
        sampler=SAMPLER,
        inclusion_probability__isnull=False,
        requested_at__gte=since,
        requested_at__lt=until,
    )
    if segment:
        sampled = Prediction.objects.filter(version=version, sampler=SAMPLER, segment__contains=dict(segment))
        outcomes = outcomes.filter(request_id__in=sampled.values("request_id"))
    rows = np.array(outcomes.values_list("wrong", "inclusion_probability"), float).reshape(-1, 2)
    return estimate(rows[:, 0], rows[:, 1])
