"""Is this an hour of history, and is it here for the first time? For people who had data before they had Davy."""

from __future__ import annotations

from datetime import datetime

from davy import wire

from controlplane import problems, registry
from monitoring.ingest import Answer, check_reference
from monitoring.models import Purpose, Report

HOUR_SECONDS = 3600.0


def store_import(body: bytes, now: datetime) -> Answer:
    """Store a report of one whole hour, of whatever age, unless its (reporter, sequence) is known.

    Problems name the field; `unknown_reference` where the version has none of that digest.
    It is folded as a collector's report is, under a purpose of its own that is never rollout evidence.
    """
    try:
        report = wire.decode_report(body)
    except wire.WireError as err:
        raise problems.field(err.pointer, "invalid", err.detail) from None
    version = registry.get_version(report.model, report.version)
    _check_hour(report, now)
    for index, window in enumerate(report.windows):
        if window.purpose != Purpose.LIVE:
            raise problems.field(f"/windows/{index}/purpose", "invalid", "a history is of live requests")
    check_reference(report, version)
    _, created = Report.objects.get_or_create(
        reporter=report.reporter,
        sequence=report.sequence,
        defaults={"received_at": now, "body": body, "imported": True},
    )
    return Answer(int(created), int(not created))


def _check_hour(report: wire.Report, now: datetime) -> None:
    if report.start % HOUR_SECONDS:
        raise problems.field("/from", "not_aligned", "not the beginning of an hour, UTC")
    if report.end - report.start != HOUR_SECONDS:
        raise problems.field("/to", "not_aligned", "not one hour after /from")
    if report.end > now.timestamp():
        raise problems.field("/to", "in_future", "the hour is not over")
