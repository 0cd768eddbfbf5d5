"""The hold of open drift alerts: which of them count, and until when."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import alerts
from controlplane.models import Fleet, Model, Severity
from rollout import holds
from rollout.gates.base import Verdict
from rollout.holds.base import Answer
from tests.rollout.holds.questions import NOW, question

pytestmark = pytest.mark.django_db
CAUSE = "drift/embeddings/products/v1"


def drift(cause: str = CAUSE, model: str = "products", fleet: str | None = None, **more: Any) -> None:
    about = {"model": Model.objects.get_or_create(name=model)[0]}
    if fleet:
        about["fleet"] = Fleet.objects.get_or_create(name=fleet, driver="memory")[0]
    facts = {"severity": Severity.WARNING, "summary": "products v1 embeddings moved", "now": NOW}
    alerts.open(cause, **{**facts, **about, **more})


def ask(**settings: Any) -> Answer:
    return holds.get("open_alert").ask(settings, question())


def test_without_an_alert_it_passes() -> None:
    assert (ask().verdict, ask().value) == (Verdict.PASS, 0)


@pytest.mark.parametrize("fleet", [None, "edge"])
def test_a_drift_alert_on_the_model_fails_and_says_since_when_and_what(fleet: str | None) -> None:
    drift(fleet=fleet)
    answer = ask()
    assert (answer.verdict, answer.value, answer.bound) == (Verdict.FAIL, 1, 0)
    assert "open since 2026-11-20 03:00:00 UTC: products v1 embeddings moved" in answer.reason


@pytest.mark.parametrize(
    "other",
    [
        {"model": "hats"},
        {"fleet": "another"},
        {"cause": "rollout/held/products/edge"},
    ],
    ids=["another model", "another fleet", "not about drift"],
)
def test_other_alerts_do_not_count(other: dict[str, Any]) -> None:
    drift(**other)
    assert ask().verdict is Verdict.PASS


def test_only_the_severities_of_the_plan_count() -> None:
    drift()
    assert ask(severities=["error", "critical"]).verdict is Verdict.PASS
    assert ask(severities=["warning"]).verdict is Verdict.FAIL


def test_the_oldest_is_named_and_the_others_are_counted() -> None:
    drift()
    drift("drift/confidence/products/v1", summary="confidences moved")
    answer = ask()
    assert "and 1 more" in answer.reason
    assert (answer.value, "embeddings" in answer.reason) == (2, True)


def test_an_acknowledged_alert_still_counts_and_a_resolved_one_does_not() -> None:
    drift()
    (alert,) = Model.objects.get(name="products").alerts.all()
    alerts.acknowledge(alert, actor="ann", now=NOW)
    assert ask().verdict is Verdict.FAIL
    alerts.resolve(CAUSE, resolution="it is stable again", now=NOW)
    assert ask().verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("key", "severities"), [("severities", []), ("severities", "error"), ("severities/1", ["error", "loud"])]
)
def test_severities_that_are_none_are_refused(key: str, severities: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: "):
        holds.get("open_alert").check({"severities": severities})
