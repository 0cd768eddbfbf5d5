"""Which combinations of segment values does a model keep apart? The first that it names, up to a bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from davy import wire
from django.conf import settings
from django.db.models import Q

from controlplane import alerts
from controlplane.models import Alert, Model, Severity
from monitoring.models import Segment

OTHER: Mapping[str, str] = {
    "segment": "other"
}  # what all further ones are counted under; the SDK says the same
SAID_AGAIN = timedelta(days=1)  # after the alert was resolved while there are still too many


def admit(
    model_id: int, segments: Iterable[Mapping[str, str]], now: datetime, limit: int | None = None
) -> dict[str, Mapping[str, str]]:
    """The segment that each is counted under, by its `wire.segment_key`; inside the caller's transaction.

    limit  segments a model may have, DAVY_SEGMENTS_MOST by default; no segment and OTHER are free. A segment beyond it
           is OTHER, and an alert says so once.
    New ones are admitted in the order of their keys, by one transaction at a time.
    """
    most = settings.SEGMENTS_MOST if limit is None else limit
    named = {wire.segment_key(segment): segment for segment in segments}
    free = {"", wire.segment_key(OTHER)}
    known = _known(model_id, named)
    if new := sorted(named.keys() - known - free):
        model = Model.objects.select_for_update(no_key=True).get(pk=model_id)
        known = _known(model_id, named)
        room = most - Segment.objects.filter(model=model).count()
        admitted = [key for key in new if key not in known][: max(room, 0)]
        Segment.objects.bulk_create(
            [Segment(model=model, key=key, values=dict(named[key]), first_seen=now) for key in admitted]
        )
        known |= set(admitted)
        if refused := [key for key in new if key not in known]:
            _warn(model, most, named[refused[0]], now)
    return {key: segment if key in known | free else OTHER for key, segment in named.items()}


def _known(model_id: int, keys: Iterable[str]) -> set[str]:
    found = Segment.objects.filter(model_id=model_id, key__in=list(keys))
    return set(found.values_list("key", flat=True))


def _warn(model: Model, most: int, example: Mapping[str, str], now: datetime) -> None:
    """Open the alert unless it is open, or was resolved a moment ago: nobody is paged at every fold."""
    cause = f"segments/{model.name}"
    told = Q(resolved_at=None) | Q(resolved_at__gt=now - SAID_AGAIN)
    if Alert.objects.filter(told, cause=cause).exists():
        return
    named = ", ".join(f"{key}={value}" for key, value in sorted(example.items()))
    alerts.open(
        cause,
        severity=Severity.WARNING,
        summary=(
            f"{model.name} has named {most} segments, the most that are kept apart (DAVY_SEGMENTS_MOST); further ones,"
            f" like {named}, are counted as segment=other; send values of which there are few (device, country),"
            " none that name a person or a request."
        ),
        detail={"limit": most, "example": dict(example)},
        now=now,
        model=model,
    )
