"""Plans: every refusal names its field, and what is stored reads back the same."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from rollout import gates, plan
from rollout.plan import PlanError, Step

GOOD: dict[str, Any] = {
    "name": "mine",
    "steps": [{"weight_percent": 5, "dwell_seconds": 60}, {"weight_percent": 50}],
    "gates": [{"name": "errors", "weight": 2.0, "settings": {"theta0": 1.5}}, {"name": "latency"}],
    "patience_seconds": 120,
}


def parse(**changes: Any) -> plan.Plan:
    return plan.parse(GOOD | changes, gates.check)


def test_a_plan_is_read_with_its_defaults() -> None:
    read = parse()
    assert read.steps == (Step(5, 60), Step(50, 30))
    assert [(g.name, g.weight, g.required, g.dry_run) for g in read.gates] == [
        ("errors", 2.0, True, False),
        ("latency", 1.0, True, False),
    ]
    assert (read.alpha, read.patience_seconds, read.on_silence) == (0.01, 120, "hold")


def test_a_last_step_of_100_percent_is_the_promotion_and_may_be_said() -> None:
    steps = [{"weight_percent": 5}, {"weight_percent": 100}]
    assert parse(steps=steps).steps == (Step(5),)


def test_a_stored_plan_reads_back_the_same() -> None:
    read = parse(steps=[{"weight_percent": 33.33}], alpha=0.05, on_silence="rollback", watch_seconds=0)
    assert plan.load(json.loads(json.dumps(read.to_json()))) == read


def steps(*weights: Any, **more: Any) -> dict[str, Any]:
    return {"steps": [{"weight_percent": weight, **more} for weight in weights]}


def gate(**fields: Any) -> dict[str, Any]:
    return {"gates": [{"name": "errors", **fields}]}


@pytest.mark.parametrize(
    ("pointer", "changes"),
    [
        ("/colour", {"colour": "red"}),
        ("/name", {"name": ""}),
        ("/name", {"name": "x" * 64}),
        ("/name", {"name": 7}),
        ("/on_silence", {"on_silence": "shrug"}),
        ("/on_silence", {"on_silence": ["hold"]}),
        ("/alpha", {"alpha": 0}),
        ("/alpha", {"alpha": 0.6}),
        ("/alpha", {"alpha": math.nan}),
        ("/alpha", {"alpha": True}),
        ("/patience_seconds", {"patience_seconds": 0}),
        ("/patience_seconds", {"patience_seconds": "60"}),
        ("/watch_seconds", {"watch_seconds": -1}),
        ("/keep_warm_seconds", {"keep_warm_seconds": math.inf}),
        ("/steps", {"steps": []}),
        ("/steps", {"steps": None}),
        ("/steps", {"steps": {"weight_percent": 5}}),
        ("/steps", steps(100)),
        ("/steps/0", {"steps": [5]}),
        ("/steps/0/colour", steps(5, colour="red")),
        ("/steps/0/weight_percent", {"steps": [{}]}),
        ("/steps/0/weight_percent", steps(0)),
        ("/steps/0/weight_percent", steps(-5)),
        ("/steps/0/weight_percent", steps(100.1)),
        ("/steps/0/weight_percent", steps("5")),
        ("/steps/0/weight_percent", steps(None)),
        ("/steps/1/weight_percent", steps(25, 5)),
        ("/steps/2/weight_percent", steps(5, 25, 25)),
        ("/steps/0/dwell_seconds", steps(5, dwell_seconds=-1)),
        ("/gates", {"gates": []}),
        ("/gates", {"gates": "errors"}),
        ("/gates", gate(required=False)),
        ("/gates", gate(dry_run=True)),
        ("/gates/0/name", {"gates": [{}]}),
        ("/gates/0/name", {"gates": [{"name": "colour"}]}),
        ("/gates/1/name", {"gates": [{"name": "errors"}, {"name": "errors"}]}),
        ("/gates/0/colour", gate(colour="red")),
        ("/gates/0/weight", gate(weight=0)),
        ("/gates/0/weight", gate(weight=math.nan)),
        ("/gates/0/required", gate(required="yes")),
        ("/gates/0/dry_run", gate(dry_run=1)),
        ("/gates/0/settings", gate(settings=[])),
        ("/gates/0/settings/colour", gate(settings={"colour": "red"})),
        ("/gates/0/settings/theta0", gate(settings={"theta0": 0.5})),
        ("/gates/0/settings/margin_points", gate(settings={"margin_points": {"x": 1}})),
    ],
)
def test_a_plan_that_cannot_run_is_refused_at_its_field(pointer: str, changes: dict[str, Any]) -> None:
    with pytest.raises(PlanError) as refused:
        parse(**changes)
    assert refused.value.pointer == pointer
    assert refused.value.detail


def test_an_unknown_gate_s_refusal_says_which_there_are() -> None:
    with pytest.raises(PlanError, match="confidence"):
        parse(gates=[{"name": "colour"}])
