"""The state machine: what a rollout does next, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rollout import phases
from rollout.gates.base import Verdict
from rollout.phases import JUDGED, TERMINAL, Phase, Seen
from rollout.plan import Step
from tests.rollout.positions import PASSED, PLAN, UNDECIDED, at, decide, gate, later, seen

# Start


def test_the_first_version_goes_live_without_analysis_and_says_so() -> None:
    live = decide(at(Phase.PENDING, 0), seen(observed=None, first_version=True))
    assert (live.phase, live.promoted_roles) == (Phase.PROMOTING, True)
    assert "without analysis" in live.reason
    assert decide(live, seen(observed=0)).phase is Phase.PROMOTED


def test_a_version_that_is_not_ready_gets_no_traffic() -> None:
    waiting = decide(at(Phase.PENDING, 0), replace(seen(), canary_ready=False, trouble="no space on disk"))
    assert (waiting.phase, waiting.weight_percent) == (Phase.PENDING, 0)
    assert "no space on disk" in waiting.reason


def test_a_rollout_waits_until_the_one_before_it_is_over() -> None:
    waiting = decide(at(Phase.PENDING, 0), seen(blocked_by="rollout 7 of products v1 (rolling_back)"))
    assert waiting.phase is Phase.PENDING
    assert "rollout 7" in waiting.reason


def test_the_first_step_starts_once_the_version_is_ready() -> None:
    started = decide(at(Phase.PENDING, 0), seen(7, observed=0))
    assert (started.phase, started.step, started.weight_percent) == (Phase.RUNNING, 0, 5)
    assert started.step_entered_at == later(7)


# Steps


def test_a_step_is_left_when_every_gate_passed_and_its_dwell_is_over() -> None:
    assert decide(at(), seen(9)).weight_percent == 5
    moved = decide(at(), seen(10))
    assert (moved.phase, moved.step, moved.weight_percent) == (Phase.RUNNING, 1, 50)
    assert moved.step_entered_at == later(10)


def test_the_last_step_leads_to_promotion_and_only_observed_traffic_swaps_the_roles() -> None:
    promoting = decide(at(step=1, weight=50), seen(10, observed=50))
    assert (promoting.phase, promoting.weight_percent, promoting.promoted_roles) == (
        Phase.PROMOTING,
        100,
        False,
    )
    assert decide(promoting, seen(11, observed=50)).phase is Phase.PROMOTING
    watching = decide(promoting, seen(11, observed=100))
    assert (watching.phase, watching.weight_percent, watching.promoted_roles) == (Phase.WATCHING, 0, True)


@pytest.mark.parametrize(
    "look",
    [
        seen(gates=UNDECIDED),
        seen(gates=()),
        seen(gates=(gate(), gate(Verdict.FAIL, "latency"))),
        seen(gates=(gate(dry_run=True), gate(name="latency", required=False))),
        seen(observed=None),
        seen(observed=4.9),
        seen(trouble="503 from the gateway"),
        replace(seen(), canary_ready=False),
    ],
    ids=["undecided", "silent", "failing", "none required", "unconfirmed", "elsewhere", "refused", "unready"],
)
def test_a_step_is_not_left_without_every_pass_a_ready_canary_and_an_observed_weight(look: Seen) -> None:
    stayed = decide(at(), look)
    assert (stayed.phase, stayed.step, stayed.weight_percent) == (Phase.RUNNING, 0, 5)
    assert stayed.reason


def test_17_gates_in_dry_run_and_optional_ones_are_not_waited_for() -> None:
    verdicts = (gate(), gate(Verdict.INCONCLUSIVE, "latency", dry_run=True))
    assert decide(at(), seen(gates=verdicts)).step == 1
    verdicts = (gate(), gate(Verdict.INCONCLUSIVE, "latency", required=False))
    assert decide(at(), seen(gates=verdicts)).step == 1


# Verdicts


@pytest.mark.parametrize("phase", sorted(JUDGED))
def test_fail_takes_the_weight_to_0_in_the_same_tick_and_names_the_gate(phase: Phase) -> None:
    back = decide(at(phase), seen(failed=gate(Verdict.FAIL), gates=PASSED))
    assert (back.phase, back.weight_percent, back.ending) == (Phase.ROLLING_BACK, 0, Phase.ROLLED_BACK)
    assert back.reason == "errors failed: canary 1 of 1,000 requests failed"


def test_silence_holds_after_patience_and_names_the_silent_gate() -> None:
    heard = later(5)
    silent = {
        "gates": UNDECIDED,
        "last_evidence_at": heard,
        "evidence_since": heard,
        "silent_gate": "latency",
    }
    assert decide(at(), seen(65, **silent)).phase is Phase.RUNNING
    held = decide(at(), seen(66, **silent))
    assert (held.phase, held.weight_percent) == (Phase.HELD, 5)
    assert held.reason.startswith("no evidence for latency since 03:00:05 UTC")


def test_15_evidence_that_never_settles_anything_is_held_after_patience() -> None:
    assert decide(at(), seen(60, gates=UNDECIDED)).phase is Phase.RUNNING
    held = decide(at(), seen(61, gates=UNDECIDED))
    assert held.phase is Phase.HELD
    assert held.reason.startswith("no verdict for latency since 03:00:00 UTC")


def test_a_long_dwell_with_every_gate_passed_is_not_indecision() -> None:
    patient = replace(PLAN, steps=(Step(5, 3600),))
    assert decide(at(), seen(1000), patient).phase is Phase.RUNNING


def test_a_hold_lasts_while_the_evidence_settles_nothing_and_ends_with_the_verdict() -> None:
    held = decide(at(), seen(61, gates=UNDECIDED))
    assert decide(held, seen(500, gates=UNDECIDED)).phase is Phase.HELD
    moved = decide(held, seen(500))
    assert (moved.phase, moved.step) == (Phase.RUNNING, 1)


def test_a_hold_for_silence_ends_when_telemetry_comes_back_and_patience_starts_again() -> None:
    held = decide(at(), seen(100, gates=UNDECIDED, last_evidence_at=later(5)))
    back = {"gates": UNDECIDED, "evidence_since": later(200)}
    running = decide(held, seen(201, **back))
    assert (running.phase, running.step, running.weight_percent) == (Phase.RUNNING, 0, 5)
    assert decide(running, seen(261, **back)).phase is Phase.RUNNING
    assert decide(running, seen(262, **back)).phase is Phase.HELD


def test_15_a_plan_may_roll_back_on_silence_but_not_before_patience() -> None:
    strict = replace(PLAN, on_silence="rollback")
    silent = {"gates": UNDECIDED, "last_evidence_at": None}
    assert decide(at(), seen(60, **silent), strict).phase is Phase.RUNNING
    back = decide(at(), seen(61, **silent), strict)
    assert (back.phase, back.ending) == (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
    assert "the plan rolls back on silence" in back.reason


def test_a_gateway_that_refuses_the_weight_is_named_when_patience_is_over() -> None:
    refused = seen(61, trouble="503 from the gateway", last_evidence_at=None, gates=UNDECIDED)
    held = decide(at(), refused)
    assert held.phase is Phase.HELD
    assert held.reason.endswith("held at 5 %: 503 from the gateway")


# Pauses


def test_08_a_pause_by_a_person_does_not_end_by_itself_and_is_never_stuck() -> None:
    paused = phases.command(PLAN, at(), "pause", later(1), "lunch (ann)")
    look = seen(100_000, last_evidence_at=None, gates=UNDECIDED)
    assert decide(paused, look) == paused
    assert decide(paused, seen(100_000)) == paused


def test_09_patience_does_not_count_the_time_of_a_pause() -> None:
    paused = phases.command(PLAN, at(), "pause", later(1), "lunch")
    resumed = phases.command(PLAN, paused, "resume", later(1000), "back")
    silent = {"gates": UNDECIDED, "last_evidence_at": later(1)}
    assert decide(resumed, seen(1060, **silent)).phase is Phase.RUNNING
    assert decide(resumed, seen(1061, **silent)).phase is Phase.HELD


# Promotion and watch


def test_a_promotion_waits_for_a_ready_slot_and_is_held_after_patience() -> None:
    promoting = at(Phase.PROMOTING, 100, step=1)
    unready = replace(seen(60, observed=100), canary_ready=False)
    assert decide(promoting, unready).phase is Phase.PROMOTING
    held = decide(promoting, replace(unready, now=later(61)))
    assert (held.phase, held.weight_percent) == (Phase.HELD, 100)
    assert "not promoted within 60 s" in held.reason
    assert decide(held, seen(62, observed=100)).phase is Phase.PROMOTING


def test_the_watch_ends_promoted_when_its_time_is_over() -> None:
    watching = at(Phase.WATCHING, 0, promoted_roles=True)
    assert decide(watching, seen(29, observed=0)) == watching
    assert decide(watching, seen(30, observed=0)).phase is Phase.PROMOTED


def test_an_outage_in_the_watch_goes_back_to_the_old_version() -> None:
    back = decide(at(Phase.WATCHING, 0, promoted_roles=True), seen(5, observed=0, outage="90 of 100 failed"))
    assert (back.phase, back.ending, back.promoted_roles) == (
        Phase.ROLLING_BACK,
        Phase.ROLLED_BACK,
        False,
    )
    assert back.reason == "90 of 100 failed"


def test_a_rollback_ends_only_when_weight_0_is_observed() -> None:
    back = at(Phase.ROLLING_BACK, 0, ending=Phase.ABORTED, reason="abort: wrong weights")
    for look in (seen(observed=None), seen(observed=5), seen(observed=100, trouble="503")):
        assert decide(back, look).phase is Phase.ROLLING_BACK
    over = decide(back, seen(observed=0))
    assert (over.phase, over.reason) == (Phase.ABORTED, "abort: wrong weights")


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.PROMOTING, Phase.ROLLING_BACK])
def test_what_should_pass_by_itself_is_overdue_after_patience(phase: Phase) -> None:
    assert not phases.overdue(PLAN, at(phase), later(60))
    assert phases.overdue(PLAN, at(phase), later(61))


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.PAUSED, Phase.WATCHING, *sorted(TERMINAL)])
def test_what_waits_on_purpose_is_never_overdue(phase: Phase) -> None:
    assert not phases.overdue(PLAN, at(phase), later(10**6))
