"""How is a Prometheus asked for one number? Queries with names put into them, and every answer that is no number."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from django.conf import settings as django_settings

from controlplane import outbound

TIMEOUT_SECONDS = 3.0  # a tick waits so long, and no longer
QUERY_CHARACTERS = 4000
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class PrometheusError(Exception):
    """No usable number; the message says why."""


class NoSeriesError(PrometheusError):
    """The query is answered, and finds nothing."""


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


def instant(
    url: str, query: str, at: float | None = None, *, token: str = "", timeout: float = TIMEOUT_SECONDS
) -> float:
    """The one number that the query gives now, or `at` unix seconds, so that several can be of one moment.

    token  sent as Bearer, "" for none;  timeout  in seconds, of the call and of the query
    Raises PrometheusError for anything else, and when nobody answers.
    """
    moment = {} if at is None else {"time": f"{at:.3f}"}
    body = urlencode({"query": query, "timeout": f"{timeout:.3f}", **moment}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        answer = outbound.admin_request(
            "POST", f"{url}/api/v1/query", body=body, headers=headers, timeout=timeout
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
            raise NoSeriesError("the query finds no series")
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
