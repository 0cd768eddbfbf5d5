"""What does Prometheus say of what Davy does not measure? One number of an instant query against a bound."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.conf import settings as django_settings

from controlplane import outbound
from rollout.gates.base import Verdict
from rollout.holds import settings as read
from rollout.holds.base import NOT_ASKED, Answer, Question, sentence

TIMEOUT_SECONDS = 3.0  # a tick waits so long, and no longer
QUERY_CHARACTERS = 4000
LABELS = ("model", "version", "stable", "fleet")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class PrometheusError(Exception):
    """No usable number; the message says why."""


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


def server(url: object) -> str:
    """The Prometheus of that URL; the first that the operator listed for None. Raises ValueError("url: …")."""
    listed: list[str] = django_settings.PROMETHEUS_URLS
    if not listed:
        raise ValueError("url: no Prometheus is configured; DAVY_PROMETHEUS_URLS lists what may be asked")
    if url is None:
        return listed[0]
    if not isinstance(url, str) or url.rstrip("/") not in listed:
        raise ValueError(f"url: {url!r} is not in DAVY_PROMETHEUS_URLS")
    return url.rstrip("/")


def fill(query: str, names: Mapping[str, str]) -> str:
    """The query with {model} and the like in its strings replaced, escaped as PromQL's quotes want it.

    Outside of strings braces are PromQL's own. Raises ValueError("query: …") for a placeholder that is unknown or
    not within quotes, and for a value that a `raw` string cannot hold.
    """
    done, quote, i = [], "", 0
    while i < len(query):
        char = query[i]
        found = _PLACEHOLDER.match(query, i)
        if quote and char == "\\" and quote != "`":
            done.append(query[i : i + 2])
            i += 2
            continue
        if found and (quote or found[1] in names):
            done.append(_escaped(found[1], names, quote))
            i = found.end()
            continue
        if not quote and char == "#":  # a comment, whose apostrophes open no string
            line = query[i:].partition("\n")[0]
            done.append(line)
            i += len(line)
            continue
        if not quote and char in "\"'`":
            quote = char
        elif char == quote:
            quote = ""
        done.append(char)
        i += 1
    if quote:
        raise ValueError(f"query: a string that begins with {quote} does not end")
    return "".join(done)


def _escaped(name: str, names: Mapping[str, str], quote: str) -> str:
    if name not in names:
        raise ValueError(f"query: unknown {{{name}}}; there are {', '.join(f'{{{n}}}' for n in names)}")
    if not quote:
        raise ValueError(f"query: {{{name}}} has to stand within quotes")
    value = names[name]
    if quote == "`":
        if "`" in value:
            raise ValueError(f"query: {value!r} cannot stand in a `raw` string")
        return value
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace(quote, f"\\{quote}")


def instant(url: str, query: str, at: float | None = None) -> float:
    """The one number that the query gives now, or `at` unix seconds, so that several can be of one moment.

    Raises PrometheusError for anything else, and when nobody answers.
    """
    moment = {} if at is None else {"time": f"{at:.3f}"}
    body = urlencode({"query": query, "timeout": f"{TIMEOUT_SECONDS:g}s", **moment}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    try:
        answer = outbound.admin_request(
            "POST", f"{url}/api/v1/query", body=body, headers=headers, timeout=TIMEOUT_SECONDS
        )
    except outbound.OutboundError as err:
        raise PrometheusError(f"Prometheus does not answer: {err}") from err
    try:
        said = json.loads(answer.content)
    except (ValueError, RecursionError):
        raise PrometheusError(f"Prometheus answered {answer.status} without JSON: {answer.text}") from None
    if not isinstance(said, dict) or said.get("status") != "success":
        wrong = said.get("error", "no error named") if isinstance(said, dict) else answer.text
        raise PrometheusError(f"Prometheus answered {answer.status}: {wrong}")
    if said.get("warnings"):
        raise PrometheusError(f"Prometheus warns that its answer may be incomplete: {said['warnings']}")
    return _number(said.get("data"))


def _number(data: object) -> float:
    """The value of a scalar, or of the only series of a vector."""
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, dict) else (None, None)
    sample: Any
    if kind == "vector" and isinstance(result, list):
        if not result:
            raise PrometheusError("the query finds no series")
        if len(result) > 1:
            raise PrometheusError(f"the query gives {len(result)} series, one is needed: aggregate them")
        sample = result[0].get("value") if isinstance(result[0], dict) else None
    elif kind == "scalar":
        sample = result
    else:
        raise PrometheusError(f"the query gives a {kind}, an instant vector or a scalar is needed")
    try:
        _at, text = sample
        value = float(text)
    except (TypeError, ValueError):
        raise PrometheusError(f"the query's result is not a number: {sample!r}") from None
    if not math.isfinite(value):
        raise PrometheusError(f"the query gives {text}: there was nothing to divide, or nothing to count")
    return value
