"""Does the model drift? An open drift alert on the same model holds the promotion (behaviour 19)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, ClassVar

from django.db.models import Q

from controlplane.models import Alert, Severity
from rollout.gates.base import Verdict
from rollout.holds import settings as read
from rollout.holds.base import NOT_ASKED, Answer, Question, sentence

CAUSES = "drift/"  # as monitoring.checks names them


class OpenAlertHold:
    """Settings: severities (default: all), before (default: the promotion).

    Every version of the model counts, on this fleet or on none in particular. That drift is watched at all is not
    asked: where no detector looks, no alert is open.
    """

    name: ClassVar[str] = "open_alert"
    every_seconds: ClassVar[float] = 0.0

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError("<key>: …")."""
        read.check_known(settings, ("severities", "before"))
        read.check_before(settings)
        severities = settings.get("severities", Severity.values)
        if not isinstance(severities, list | tuple) or not severities:
            raise ValueError(f"severities: a list of {', '.join(Severity.values)}")
        for i, severity in enumerate(severities):
            if severity not in Severity.values:
                raise ValueError(f"severities/{i}: one of {', '.join(Severity.values)}")

    def ask(self, settings: Mapping[str, Any], question: Question) -> Answer:
        """FAIL while one is open, acknowledged or not; value: how many."""
        if not read.asked(settings, question, read.PROMOTION):
            return NOT_ASKED
        here = Q(fleet__isnull=True) | Q(fleet__name=question.fleet)
        found = Alert.objects.filter(
            here,
            resolved_at__isnull=True,
            cause__startswith=CAUSES,
            model__name=question.model,
            severity__in=settings.get("severities", Severity.values),
        ).order_by("opened_at", "pk")
        first, n = found.first(), found.count()
        if first is None:
            return Answer(Verdict.PASS, f"no drift alert is open on {question.model}", 0.0, 0.0)
        since = first.opened_at.astimezone(UTC)
        others = f" and {n - 1} more" if n > 1 else ""
        said = f"drift alert {first.pk}{others} open since {since:%Y-%m-%d %H:%M:%S} UTC: {first.summary}"
        return Answer(Verdict.FAIL, sentence(said), float(n), 0.0)
