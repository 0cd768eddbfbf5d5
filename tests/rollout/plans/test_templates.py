"""The plans that ship with Davy can run as they are."""

from __future__ import annotations

import pytest

from rollout import gates, plan
from rollout.plans import stored, templates


def shipped(name: str) -> plan.Plan:
    return plan.parse(templates.template(name), stored.check_gate)


@pytest.mark.parametrize("name", templates.names())
def test_the_shipped_plans_can_run(name: str) -> None:
    read = shipped(name)
    assert read.name == name
    assert read.steps[0].weight_percent <= 10


def test_the_router_only_plan_needs_no_collector() -> None:
    assert {gates.source(gate) for gate in shipped("router-only").gates} == {"router"}


def test_shadow_first_mirrors_before_users_get_the_canary_s_answers() -> None:
    read = shipped("shadow-first")
    assert read.shadow is not None
    assert (read.shadow.percent, [step.weight_percent for step in read.steps]) == (10, [5, 25, 50])


def test_parity_is_demanded_of_variants_only() -> None:
    """Two trainings of one recipe answer differently: a plan that anybody may use must not roll a better one back."""
    parity = {
        name: gate
        for name in templates.names()
        for gate in shipped(name).gates
        if gate.name == "parity" and gate.required and not gate.dry_run
    }
    assert set(parity) == {"variant"}


def test_careful_keeps_a_comparison_while_it_watches() -> None:
    read = shipped("careful")
    assert (read.holdback_percent, read.watch_seconds) == (2, 3600)


def test_on_device_gives_devices_the_time_to_ask() -> None:
    assert min(step.dwell_seconds for step in shipped("on-device").steps) >= 6 * 3600


def test_whoever_changes_a_template_s_copy_changes_no_other() -> None:
    for name in templates.names():
        templates.template(name)["gates"][0]["weight"] = 99
        assert templates.template(name)["gates"][0]["weight"] <= 1


def test_an_unknown_plan_is_refused_and_the_known_ones_are_told() -> None:
    with pytest.raises(LookupError, match="standard"):
        templates.template("reckless")
