"""What every hold promises, whomever it asks: add a hold to its table and these tests judge it."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from controlplane.models import User
from rollout import holds
from rollout.gates.base import Verdict
from rollout.holds.base import NOT_ASKED, Hold
from tests.controlplane.servers import receiver
from tests.rollout.holds.questions import question

pytestmark = pytest.mark.django_db
DEAD = "http://127.0.0.1:9"  # nobody listens there
ONE = b'{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}'


@pytest.fixture
def good(settings: Any) -> Iterator[dict[str, dict[str, Any]]]:
    """Settings of each hold whose source answers PASS, once somebody has approved."""
    User.objects.create_user("bob", role="approver")
    settings.OUTBOUND_ALLOWED_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    with receiver() as hook, receiver() as prometheus:
        hook.answer = lambda _asked: (200, b'{"verdict": "pass", "reason": "all quiet"}', {})
        prometheus.answer = lambda _asked: (200, ONE, {})
        settings.PROMETHEUS_URLS = [prometheus.url, DEAD]
        yield {
            "approval": {},
            "open_alert": {},
            "webhook": {"url": hook.url},
            "prometheus": {"query": "1", "at_most": 2},
        }


SILENT = {
    "approval": {},
    "webhook": {"url": DEAD},
    "prometheus": {"query": "1", "at_most": 2, "url": DEAD},
}
#: Asks Davy's own table, which cannot be silent.
NEVER_SILENT = {"open_alert"}


@pytest.fixture(params=sorted(holds.HOLDS))
def hold(request: pytest.FixtureRequest) -> Hold:
    return holds.HOLDS[request.param]


def test_the_settings_here_cover_every_hold(good: dict[str, dict[str, Any]]) -> None:
    assert set(good) == set(holds.HOLDS) == set(SILENT) | NEVER_SILENT


def test_the_table_names_each_hold_by_its_own_name(hold: Hold) -> None:
    assert holds.get(hold.name) is hold
    assert hold.every_seconds >= 0


def test_an_unknown_name_is_refused_and_the_known_ones_are_told() -> None:
    with pytest.raises(LookupError, match="approval"):
        holds.get("oracle")


def test_good_settings_make_a_hold(hold: Hold, good: dict[str, dict[str, Any]]) -> None:
    assert holds.check(hold.name, good[hold.name]) == "hold"


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("colour", {"colour": "red"}),
        ("before", {"before": "lunch"}),
        ("before", {"before": []}),
        ("before", {"before": 25}),
        ("before/0", {"before": ["lunch"]}),
        ("before/1", {"before": [25, True]}),
        ("before/0", {"before": [101]}),
        ("before/0", {"before": [0]}),
    ],
)
def test_a_bad_setting_is_refused_by_its_key(
    hold: Hold, good: dict[str, dict[str, Any]], key: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: "):
        hold.check({**good[hold.name], **wrong})


@pytest.mark.parametrize("before", ["promotion", "every step", [25], [25, 50.0, "promotion"]])
def test_every_way_to_say_when_is_taken(hold: Hold, good: dict[str, dict[str, Any]], before: Any) -> None:
    hold.check({**good[hold.name], "before": before})


@pytest.mark.parametrize(
    ("before", "next_percent", "is_asked"),
    [
        ("promotion", 100, True),
        ("promotion", 50, False),
        ("every step", 50, True),
        ([50], 50, True),
        ([50], 100, False),
        ([5, "promotion"], 100, True),
    ],
)
def test_it_is_asked_where_the_plan_says_and_passes_elsewhere(
    hold: Hold, good: dict[str, dict[str, Any]], before: Any, next_percent: float, is_asked: bool
) -> None:
    asked = question(next_step=1, next_weight_percent=next_percent)
    answer = hold.ask({**good[hold.name], "before": before}, asked)
    assert (answer != NOT_ASKED) == is_asked
    assert is_asked or answer.verdict is Verdict.PASS


@pytest.mark.parametrize("name", sorted(SILENT))
def test_a_source_that_does_not_answer_is_inconclusive_with_a_reason(
    name: str, good: dict[str, dict[str, Any]]
) -> None:
    answer = holds.get(name).ask(SILENT[name], question())
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert len(answer.reason) > 20


def test_asking_changes_nothing_here_and_can_be_repeated(hold: Hold, good: dict[str, dict[str, Any]]) -> None:
    with CaptureQueriesContext(connection) as queries:
        first = hold.ask(good[hold.name], question())
        assert hold.ask(good[hold.name], question()) == first
    assert [q["sql"] for q in queries if not q["sql"].startswith("SELECT")] == []


def test_an_answer_can_be_kept_as_json(hold: Hold, good: dict[str, dict[str, Any]]) -> None:
    answer = asdict(hold.ask(good[hold.name], question()))
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
