"""The Prometheus hold: bounds, and every answer that is not one number; against Prometheus itself where installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from rollout import holds
from rollout.gates.base import Verdict
from rollout.holds.base import Answer
from rollout.prometheus import PrometheusError, fill, instant
from tests.controlplane.servers import Receiver, receiver
from tests.rollout.holds.questions import question
from tests.rollout.prometheus import running, vector

QUERY = 'sum(rate(checkouts_failed_total{model="{model}", version="{version}"}[5m]))'
NAMES = {"model": "products", "version": "v2", "stable": "v1", "fleet": "edge"}


@pytest.fixture
def server(settings: Any) -> Iterator[Receiver]:
    with receiver() as state:
        settings.PROMETHEUS_URLS = ["http://127.0.0.1:9", state.url]
        yield state


def ask(server: Receiver, body: Any, status: int = 200, **settings: Any) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    server.answer = lambda _asked: (status, content, {"Content-Type": "application/json"})
    return holds.get("prometheus").ask({"query": QUERY, "url": server.url, **settings}, question())


def test_the_query_is_sent_with_the_rollout_s_names(server: Receiver) -> None:
    ask(server, vector("1"), at_most=2)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/api/v1/query")
    assert parse_qs(asked.body.decode())["query"] == [
        'sum(rate(checkouts_failed_total{model="products", version="v2"}[5m]))'
    ]


@pytest.mark.parametrize(
    ("value", "bounds", "verdict", "bound", "reason"),
    [
        ("0.5", {"at_most": 0.5}, Verdict.PASS, 0.5, "at most 0.5"),
        ("0.51", {"at_most": 0.5}, Verdict.FAIL, 0.5, "0.51 is above 0.5"),
        ("99.9", {"at_least": 99.9}, Verdict.PASS, 99.9, "at least 99.9"),
        ("99.8", {"at_least": 99.9}, Verdict.FAIL, 99.9, "99.8 is below 99.9"),
        ("3", {"at_least": 1, "at_most": 5}, Verdict.PASS, 5, "at least 1 and at most 5"),
        ("0", {"at_least": 1, "at_most": 5}, Verdict.FAIL, 1, "0 is below 1"),
    ],
)
def test_the_number_is_held_against_its_bounds(
    server: Receiver, value: str, bounds: dict[str, float], verdict: Verdict, bound: float, reason: str
) -> None:
    answer = ask(server, vector(value), **bounds)
    assert (answer.verdict, answer.value, answer.bound) == (verdict, float(value), bound)
    assert reason in answer.reason


def test_a_scalar_is_a_number_too(server: Receiver) -> None:
    scalar = {"status": "success", "data": {"resultType": "scalar", "result": [1_795_143_600.1, "4"]}}
    assert ask(server, scalar, at_most=5).value == 4


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (vector(), 200, "finds no series"),
        (vector("1", "2"), 200, "gives 2 series"),
        (vector("NaN"), 200, "gives NaN"),
        (vector("+Inf"), 200, "gives +Inf"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, 200, "gives a matrix"),
        ({"status": "success", "data": {"resultType": "string", "result": [1, "x"]}}, 200, "gives a string"),
        (
            {"status": "success", "data": {"resultType": "vector", "result": [{"histogram": []}]}},
            200,
            "not a number",
        ),
        ({**vector("1"), "warnings": ["store-3 is away"]}, 200, "store-3 is away"),
        (
            {"status": "error", "errorType": "bad_data", "error": "parse error: unexpected {"},
            400,
            "parse error",
        ),
        ({"status": "success"}, 200, "gives a None"),
        ([], 200, "answered 200"),
        (b"<html>proxy</html>", 502, "answered 502 without JSON"),
    ],
)
def test_what_is_not_one_number_is_inconclusive_and_named(
    server: Receiver, body: Any, status: int, reason: str
) -> None:
    answer = ask(server, body, status, at_most=1e9)
    assert (answer.verdict, answer.value) == (Verdict.INCONCLUSIVE, None)
    assert reason in answer.reason


def test_the_first_of_the_operator_s_list_is_asked_when_the_plan_names_none(server: Receiver) -> None:
    answer = holds.get("prometheus").ask({"query": "1", "at_most": 1}, question())
    assert "127.0.0.1:9" in answer.reason
    assert server.asked == []


def test_one_that_the_operator_has_taken_off_the_list_is_not_asked(server: Receiver, settings: Any) -> None:
    settings.PROMETHEUS_URLS = []
    answer = ask(server, vector("1"), at_most=2)
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert "DAVY_PROMETHEUS_URLS" in answer.reason
    assert server.asked == []


# The query


@pytest.mark.parametrize(
    ("query", "filled"),
    [
        ('up{job="{model}"}', 'up{job="products"}'),
        ("up{job='{model}-{fleet}'}", "up{job='products-edge'}"),
        ("up{job=`{stable}`}", "up{job=`v1`}"),
        ('up{path="\\"{model}\\""}', 'up{path="\\"products\\""}'),
        ('up{x=~"a{2}"}', 'up{x=~"a{2}"}'),
        ("up # the {shop}'s \"own\n", "up # the {shop}'s \"own\n"),
    ],
)
def test_names_are_put_into_strings_and_nowhere_else(query: str, filled: str) -> None:
    assert fill(query, NAMES) == filled


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("up{model}", "within quotes"),
        ('up{job="{modle}"}', "unknown {modle}"),
        ('up{job="{model}', "does not end"),
        ("up{job=`{fleet}`}", "raw"),
    ],
)
def test_a_query_that_would_ask_something_else_is_refused(query: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"^query: .*{complaint}"):
        fill(query, {**NAMES, "fleet": "a`b"})


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("query", {"query": ""}),
        ("query", {"query": 5}),
        ("query", {"query": "1" * 5000}),
        ("query", {"query": "up{model}"}),
        ("at_most", {"at_most": None}),
        ("at_most", {"at_most": "1"}),
        ("at_most", {"at_most": float("nan")}),
        ("at_least", {"at_least": 3}),
        ("every_seconds", {"every_seconds": 0.5}),
        ("url", {"url": "http://169.254.169.254"}),
        ("url", {"url": 5}),
    ],
)
def test_a_bad_setting_is_refused_by_its_key(server: Receiver, key: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: "):
        holds.get("prometheus").check({"query": "1", "at_most": 2, **wrong})


def test_a_bound_and_a_prometheus_are_needed(server: Receiver, settings: Any) -> None:
    with pytest.raises(ValueError, match=r"^at_most: a bound is needed"):
        holds.get("prometheus").check({"query": "1"})
    settings.PROMETHEUS_URLS = []
    with pytest.raises(ValueError, match=r"^url: no Prometheus is configured"):
        holds.get("prometheus").check({"query": "1", "at_most": 2})


# Prometheus itself


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("prometheus"), "global: {scrape_interval: 1h}\n") as url:
        yield url


@pytest.mark.system
@pytest.mark.parametrize(("query", "value"), [("vector(0.5)", 0.5), ("2 * 21", 42), ("absent(nothing)", 1)])
def test_prometheus_gives_the_number(prometheus: str, query: str, value: float) -> None:
    assert instant(prometheus, query) == value


@pytest.mark.system
@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("nothing", "finds no series"),
        ("vector(1) / 0", "gives +Inf"),
        ("vector(0) / 0", "gives NaN"),
        ('"text"', "gives a string"),
        (
            'label_replace(vector(1), "a", "1", "", "") or label_replace(vector(2), "a", "2", "", "")',
            "2 series",
        ),
        ("sum(", "parse error"),
    ],
)
def test_prometheus_s_other_answers_are_named(prometheus: str, query: str, reason: str) -> None:
    with pytest.raises(PrometheusError) as said:
        instant(prometheus, query)
    assert reason in str(said.value)


@pytest.mark.system
@pytest.mark.parametrize("quote", ['"', "'", "`"])
def test_prometheus_reads_whatever_name_as_one_string(prometheus: str, quote: str) -> None:
    nasty = "a\"b'c\\d\n} or vector(1) #"
    query = fill(f"absent(nothing{{model={quote}{{model}}{quote}}})", {**NAMES, "model": nasty})
    assert instant(prometheus, query) == 1
