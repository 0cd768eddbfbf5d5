"""A variant below the parity that its plan asks for is refused before it gets any traffic (behaviour 38)."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.models import Model, ModelVersion
from controlplane.problems import Problem
from rollout import golden
from rollout.plan import load

pytestmark = pytest.mark.django_db


def plan(*, shadow: bool = False, **gate: Any) -> Any:
    whole: dict[str, Any] = {
        "name": "test",
        "steps": [{"weight_percent": 5, "dwell_seconds": 5}],
        "gates": [{"name": "errors", "weight": 1.0}, {"name": "parity", "weight": 1.0, **gate}],
    }
    return load({**whole, "shadow": {"percent": 100.0, "least_seconds": 60.0}} if shadow else whole)


@pytest.fixture
def versions() -> tuple[ModelVersion, ModelVersion]:
    model = Model.objects.create(name="products")
    stable, variant = (
        ModelVersion.objects.create(model=model, name=name, artifact_uri="mem:x", digest="0" * 64)
        for name in ("v1", "v1-int8")
    )
    return stable, variant


def posted(version: ModelVersion, compared: int, agreed: int, against: str = "v1", **more: Any) -> None:
    version.metadata = {"parity": {"against": against, "compared": compared, "agreed": agreed, **more}}


def refusal(version: ModelVersion, stable: ModelVersion | None, chosen: Any) -> str:
    with pytest.raises(Problem) as caught:
        golden.check(version, stable, chosen)
    return f"{caught.value.errors[0]['pointer']} {caught.value.detail}"


@pytest.mark.parametrize("shadow", [True, False])
@pytest.mark.parametrize("against", ["v1", "v0"])
def test_a_golden_set_below_the_budget_refuses_the_version(versions, shadow, against):
    stable, variant = versions
    posted(variant, 10_000, 9_980, against)
    said = refusal(variant, stable, plan(shadow=shadow))
    assert said.startswith("/version products v1-int8") or said.startswith("/version")
    assert "99.80 % of 10,000 golden images; the plan asks for 99.9 %" in said


def test_a_golden_set_at_the_budget_is_enough(versions):
    stable, variant = versions
    posted(variant, 10_000, 9_995)
    golden.check(variant, stable, plan())


def test_an_map_that_drops_too_far_refuses_the_version(versions):
    stable, variant = versions
    posted(variant, 10_000, 10_000, map_drop_points=0.8)
    assert "0.8 points below that of v1" in refusal(variant, stable, plan())
    posted(variant, 10_000, 10_000, map_drop_points=0.5)
    golden.check(variant, stable, plan())


def test_without_mirroring_the_golden_set_must_show_enough_by_itself(versions):
    stable, variant = versions
    assert refusal(variant, stable, plan()).startswith("/plan/shadow")
    posted(variant, 500, 500)
    assert refusal(variant, stable, plan()).startswith("/plan/shadow")
    posted(variant, 10_000, 10_000, against="v0")  # nothing is known about this stable version
    assert refusal(variant, stable, plan()).startswith("/plan/shadow")


def test_with_mirroring_nothing_needs_to_be_posted(versions):
    stable, variant = versions
    golden.check(variant, stable, plan(shadow=True))


def test_the_budget_is_the_plans(versions):
    stable, variant = versions
    posted(variant, 10_000, 9_700)
    golden.check(variant, stable, plan(settings={"agreement": 0.95}))


def test_a_first_version_or_a_dry_run_asks_nothing(versions):
    stable, variant = versions
    golden.check(variant, None, plan())
    golden.check(variant, stable, plan(dry_run=True))
    golden.check(variant, stable, plan(required=False))
