"""What does Prometheus say of what Davy does not measure? One number of an instant query against a bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from rollout.gates.base import Verdict
from rollout.holds import settings as read
from rollout.holds.base import NOT_ASKED, Answer, Question, sentence
from rollout.prometheus import QUERY_CHARACTERS, PrometheusError, fill, instant, server

LABELS = ("model", "version", "stable", "fleet")


class PrometheusHold:
    """Settings: query, at_most and/or at_least, url (of DAVY_PROMETHEUS_URLS; the first), every_seconds, before.

    {model}, {version}, {stable} and {fleet} in the query's strings become the rollout's names, escaped. The query
    has to give one number; none, several and NaN are INCONCLUSIVE.
    """

    name: ClassVar[str] = "prometheus"
    every_seconds: ClassVar[float] = 10.0

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError("<key>: …"), also for a Prometheus that the operator has not listed."""
        read.check_known(settings, ("query", "at_most", "at_least", "url", "before", "every_seconds"))
        read.check_before(settings)
        read.check_number(settings, "every_seconds", *read.EVERY_SECONDS)
        query = settings.get("query")
        if not isinstance(query, str) or not 0 < len(query.strip()) <= QUERY_CHARACTERS:
            raise ValueError(f"query: PromQL of at most {QUERY_CHARACTERS} characters is needed")
        fill(query, dict.fromkeys(LABELS, ""))
        for key in ("at_most", "at_least"):
            read.check_number(settings, key, -1e300, 1e300)
        if "at_most" not in settings and "at_least" not in settings:
            raise ValueError("at_most: a bound is needed, at_most or at_least")
        if settings.get("at_least", -math.inf) > settings.get("at_most", math.inf):
            raise ValueError("at_least: is above at_most")
        server(settings.get("url"))

    def ask(self, settings: Mapping[str, Any], question: Question) -> Answer:
        """The number against its bounds, within TIMEOUT_SECONDS."""
        if not read.asked(settings, question, read.EVERY_STEP):
            return NOT_ASKED
        names = {name: getattr(question, name) for name in LABELS}
        try:
            value = instant(server(settings.get("url")), fill(settings["query"], names))
        except (ValueError, PrometheusError) as err:
            return Answer(Verdict.INCONCLUSIVE, sentence(str(err)))
        least, most = settings.get("at_least"), settings.get("at_most")
        if least is not None and value < least:
            return Answer(Verdict.FAIL, f"{value:g} is below {least:g}", value, float(least))
        if most is not None and value > most:
            return Answer(Verdict.FAIL, f"{value:g} is above {most:g}", value, float(most))
        bounds = [f"at least {least:g}"] if least is not None else []
        bounds += [f"at most {most:g}"] if most is not None else []
        bound = most if most is not None else least
        return Answer(Verdict.PASS, f"{value:g}, {' and '.join(bounds)}", value, bound)
