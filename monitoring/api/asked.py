"""Which period and segment does a request ask for?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone

from controlplane import problems
from controlplane.models import ModelVersion
from monitoring import windows
from monitoring.detectors.base import Live
from monitoring.predictions import moment


@dataclass(frozen=True)
class Asked:
    """What `?from&to&segment.<name>=<value>` asks for."""

    since: datetime
    until: datetime
    segment: Mapping[str, str]

    def live(self, version: ModelVersion) -> tuple[Live, windows.Total]:
        """The version's windows of that period and segment, added up."""
        total = windows.total(version, self.since, self.until, segment=self.segment)
        return Live(total.start, total.end, total.n, total.confidence, total.embedding), total

    def json(self) -> dict[str, Any]:
        """What was asked, to stand beside the numbers."""
        return {"asked": {"from": self.since, "to": self.until, "segment": self.segment}}


def asked_of(request: HttpRequest, default: timedelta) -> Asked:
    until = _time(request, "to", timezone.now())
    since = _time(request, "from", until - default)
    if since >= until:
        raise problems.field("/from", "bad_period", "from must be before to")
    segment = {
        name.removeprefix("segment."): str(value)
        for name, value in request.GET.items()
        if name.startswith("segment.") and name != "segment."
    }
    return Asked(since, until, segment)


def _time(request: HttpRequest, name: str, default: datetime) -> datetime:
    text = request.GET.get(name)
    if text is None:
        return default
    try:
        found = moment(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValueError as err:
        raise problems.field(f"/{name}", "bad_time", f"{name}={text!r}: {err}") from None
    if not 1970 < found.year < 2100:
        raise problems.field(f"/{name}", "bad_time", f"{name}={text!r} is not between 1970 and 2100")
    return found.astimezone(UTC)


def sliding() -> timedelta:
    return timedelta(seconds=settings.DRIFT_WINDOW_SECONDS)
