"""What of Prometheus' counters is evidence: one moment for both arms, none around a change, nothing that fell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import sealing
from rollout.drivers.base import ArmCounts, RouterCounts, RouteSpec
from rollout.drivers.scraped import Scraper
from rollout.evidence import scraped
from rollout.evidence import sources as evidence
from rollout.evidence.scraped import RETURN_SECONDS
from rollout.evidence.sources import Reading, Sources
from rollout.gates.base import Arm, Interval
from tests.rollout.prometheus import Played, config, played, vector

SCRAPE = 15.0
NOW = 1_795_143_600.0
ROUTE = RouteSpec("products", "a")
VERSIONS = {"a": "v1", "b": "v2"}


def counts(at: float, canary: tuple[int, int], stable: tuple[int, int] = (0, 0)) -> RouterCounts:
    return RouterCounts(at, 0.0, ArmCounts(*canary), ArmCounts(*stable))


def read_all(
    readings: Sequence[RouterCounts], sources: Sources | None = None
) -> tuple[Sources, list[Interval]]:
    found, state = [], sources or {}
    for each in readings:
        state, reading = scraped.read(state, each, SCRAPE)
        found += [reading.interval] if reading else []
    return state, found


def test_the_first_reading_only_says_where_to_begin() -> None:
    sources, reading = scraped.read({}, counts(15, (500, 20), (9000, 3)), SCRAPE)
    assert reading is None
    _, reading = scraped.read(sources, counts(30, (510, 21), (9190, 3)), SCRAPE)
    assert reading == Reading("prometheus", Interval(15, 30, Arm(10, 1), Arm(190, 0)))


@pytest.mark.parametrize("arm", ["canary", "stable"])
@pytest.mark.parametrize("counter", [0, 1])
def test_a_counter_that_fell_is_no_evidence_and_is_named(arm: str, counter: int) -> None:
    after = {"canary": [100, 10], "stable": [900, 10]}
    after[arm][counter] -= 5
    (n_c, x_c), (n_b, x_b) = after.values()
    sources, found = read_all([counts(15, (100, 10), (900, 10)), counts(30, (n_c, x_c), (n_b, x_b))])
    assert found == []
    name = f"{arm}'s {('requests', 'failures')[counter]}"
    assert f"the {name} fell in Prometheus" in scraped.said(sources)


def test_what_a_lost_target_counted_before_is_not_counted_again_when_it_is_back() -> None:
    lost = [counts(15, (1000, 50)), counts(30, (400, 20)), counts(45, (1010, 50)), counts(60, (1020, 50))]
    sources, found = read_all(lost)
    assert found == []
    assert "fell in Prometheus" in scraped.said(sources)


def test_counting_goes_on_when_what_fell_has_had_time_to_return() -> None:
    fell = 30.0
    readings = [counts(15, (1000, 0)), counts(fell, (400, 0))]
    readings += [counts(fell + 15 * i, (400 + i, 0)) for i in range(1, 25)]
    sources, found = read_all(readings)
    assert found[0].start == fell + RETURN_SECONDS
    assert scraped.said(sources) == ""


def test_more_failures_than_requests_are_no_evidence_and_are_told() -> None:
    sources, found = read_all([counts(15, (100, 0)), counts(30, (110, 11))])
    assert found == []
    assert "11 failures of 10 requests of the canary" in scraped.said(sources)
    sources, found = read_all([counts(45, (120, 12))], sources)
    assert (found[0].canary, scraped.said(sources)) == (Arm(10, 1), "")


@pytest.mark.parametrize(
    ("start", "is_used"),
    [(100.0, True), (169.0, True), (169.1, False), (184.5, False), (217.9, False), (218.0, True)],
)
def test_an_interval_within_a_scrape_and_a_second_of_a_change_of_weight_is_dropped(
    start: float, is_used: bool
) -> None:
    sources: Sources = {}
    for at, settled in ((200.0, True), (200.0, False), (202.0, True)):
        sources = evidence.note_weight(sources, settled, at)
    _, found = read_all([counts(start, (0, 0)), counts(start + 15, (9, 0))], sources)
    assert bool(found) == is_used


@given(st.lists(st.tuples(st.integers(-30, 60), st.integers(-5, 55)), max_size=40))
def test_no_interval_has_more_failures_than_requests_and_none_is_shorter_than_a_scrape(
    moves: list[tuple[int, int]],
) -> None:
    n, x, readings = 1000, 100, [counts(0, (1000, 100))]
    for i, (more, bad) in enumerate(moves, 1):
        n, x = n + more, x + bad
        readings.append(counts(SCRAPE * i, (n, x), (n, x)))
    _, found = read_all(readings)
    for interval in found:
        assert interval.end - interval.start >= SCRAPE
        assert 0 <= interval.canary.errors <= interval.canary.n
        assert 0 <= interval.stable.errors <= interval.stable.n


# Asking


@pytest.fixture
def prometheus() -> Iterator[Played]:
    with played() as found:
        found.scrape(NOW - 100, {"a": (9000, 3), "b": (500, 20)})
        yield found


def scraper(prometheus: Played, **changes: Any) -> Scraper:
    return Scraper.parse(config(prometheus.server.url, **changes), "edge")


def ask(prometheus: Played, now: float = NOW, sources: Sources | None = None, **changes: Any) -> Any:
    return scraped.ask(sources or {}, scraper(prometheus, **changes), ROUTE, VERSIONS, now)


def test_both_arms_counters_are_of_one_moment_a_scrape_interval_ago(prometheus: Played) -> None:
    _, found = ask(prometheus)
    assert found == counts(NOW - SCRAPE, (500, 20), (9000, 3))
    assert prometheus.moments == [NOW - SCRAPE] * 4


def test_prometheus_is_asked_once_a_scrape_interval(prometheus: Played) -> None:
    sources: Sources = {}
    for second in range(61):
        sources, _ = ask(prometheus, NOW + second, sources)
    assert prometheus.moments[::4] == [NOW + after for after in (-15, 0, 15, 30, 45)]


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, vector(), "canary's requests: the query finds no series"),
        (200, vector("1", "2"), "gives 2 series"),
        (200, vector("NaN"), "gives NaN"),
        (200, vector("12.4"), "gives 12.4: a counter of whole requests is needed"),
        (200, vector("-1"), "gives -1"),
        (200, vector("1e300"), "gives 1e+300"),
        (400, {"status": "error", "error": "parse error: unexpected {"}, "parse error"),
        (502, "proxy", "answered 502"),
    ],
)
def test_what_is_no_counter_is_no_evidence_and_is_told(
    prometheus: Played, status: int, body: Any, why: str
) -> None:
    prometheus.says = (status, body)
    sources, found = ask(prometheus)
    assert found is None
    assert why in scraped.said(sources)


def test_after_a_silence_the_next_reading_only_says_where_to_begin(prometheus: Played) -> None:
    sources, _ = read_all([counts(NOW - 30, (400, 0))])
    prometheus.says = (503, {})
    sources, _ = ask(prometheus, NOW, sources)
    prometheus.says = None
    sources, found = ask(prometheus, NOW + 15, sources)
    _, reading = scraped.read(sources, found, SCRAPE)
    assert reading is None


def test_a_counter_that_was_gone_has_to_return_before_it_counts(prometheus: Played) -> None:
    """It may return in parts: each part with all that it ever counted."""
    sources, _ = read_all([counts(NOW - 30, (400, 0))])
    prometheus.says = (200, vector())
    sources, _ = ask(prometheus, NOW, sources)
    readings = [counts(NOW + after, (after, 0)) for after in range(15, 400, 15)]
    _, found = read_all(readings, sources)
    assert found[0].start >= NOW + RETURN_SECONDS


def test_a_sealed_token_is_opened_and_sent(prometheus: Played) -> None:
    ask(prometheus, token=sealing.seal_text("let-me-in"))
    assert {asked.headers["authorization"] for asked in prometheus.server.asked} == {"Bearer let-me-in"}


def test_a_token_of_another_secret_key_is_told(prometheus: Played, settings: Any) -> None:
    token = sealing.seal_text("let-me-in")
    settings.SECRET_KEY = "another"
    sources, found = ask(prometheus, token=token)
    assert found is None
    assert "its token cannot be opened" in scraped.said(sources)
