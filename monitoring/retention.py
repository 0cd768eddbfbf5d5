"""What may be forgotten, and when?"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet

from monitoring import ingest
from monitoring.models import Prediction, Report, ShadowPair, Window

REPORT_BODY = timedelta(hours=2)  # a folded report's counts are in its windows
SLACK = timedelta(hours=1)
REPORT = ingest.REPORT_MAX_AGE + SLACK  # its sequence number is known for as long as a repeat is accepted
PREDICTION = ingest.PREDICTION_MAX_AGE + SLACK  # likewise
WINDOW = timedelta(days=60)  # eight weeks of history, which calibration reads
ROWS_AT_ONCE = 5000  # so that no transaction is long


def prune(
    now: datetime,
    *,
    report_body: timedelta = REPORT_BODY,
    report: timedelta = REPORT,
    prediction: timedelta = PREDICTION,
    window: timedelta = WINDOW,
) -> None:
    """Empty folded reports after `report_body`, and delete what is older than the other ages. Safe to repeat.

    What is not folded, counted or routed yet stays, however old.
    """
    done = Report.objects.filter(folded_at__isnull=False)
    done.filter(folded_at__lt=now - report_body).exclude(body=b"").update(body=b"")
    _delete(done.filter(received_at__lt=now - report))
    old = Prediction.objects.filter(received_at__lt=now - prediction, routed_at__isnull=False)
    _delete(old.exclude(sampler="", counted_at__isnull=True))
    _delete(Window.objects.filter(end__lt=now - window))
    _delete(ShadowPair.objects.filter(matched_at__lt=now - window))


def _delete(rows: QuerySet[Any]) -> None:
    while pks := list(rows.values_list("pk", flat=True)[:ROWS_AT_ONCE]):
        rows.model._default_manager.filter(pk__in=pks).delete()
