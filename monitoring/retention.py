"""What may be forgotten, and when?"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet

from monitoring import ingest, rollups
from monitoring.models import Prediction, Report, Reporting, Rollup, ShadowPair, Window

SLACK = timedelta(hours=1)
REPORT = ingest.REPORT_MAX_AGE + SLACK  # its sequence number is known for as long as a repeat is accepted
PREDICTION = ingest.PREDICTION_MAX_AGE + SLACK  # likewise
WINDOW = ingest.PREDICTION_MAX_AGE + timedelta(
    days=1
)  # an hour is made whole again as long as any may come late
ROLLUPS = {  # by their seconds
    rollups.MINUTE: timedelta(days=7),
    rollups.HOUR: timedelta(days=400),
    rollups.DAY: timedelta(days=3 * 365),
}
SHADOW_PAIR = timedelta(days=60)
ROWS_AT_ONCE = 5000  # so that no transaction is long


def prune(
    now: datetime,
    *,
    report: timedelta = REPORT,
    prediction: timedelta = PREDICTION,
    window: timedelta = WINDOW,
) -> None:
    """Delete what is older than these ages, and roll-ups older than ROLLUPS. Safe to repeat.

    What is not folded, counted or routed yet stays, however old. Imported reports stay without their bodies, and their
    windows with them: the same file may be sent again at any time, and another one may add to the same hours.
    """
    done = Report.objects.filter(folded_at__isnull=False)
    _delete(done.filter(received_at__lt=now - report, imported=False))
    _delete(Reporting.objects.filter(end__lt=now - report))
    old = Prediction.objects.filter(received_at__lt=now - prediction, routed_at__isnull=False)
    _delete(old.exclude(sampler="", counted_at__isnull=True))
    _delete(Window.objects.filter(end__lt=now - window).exclude(purpose=Rollup.Source.IMPORT))
    for seconds, age in ROLLUPS.items():
        _delete(Rollup.objects.filter(seconds=seconds, start__lt=now - age))
    _delete(ShadowPair.objects.filter(matched_at__lt=now - SHADOW_PAIR))


def _delete(rows: QuerySet[Any]) -> None:
    while pks := list(rows.values_list("pk", flat=True)[:ROWS_AT_ONCE]):
        rows.model._default_manager.filter(pk__in=pks).delete()
