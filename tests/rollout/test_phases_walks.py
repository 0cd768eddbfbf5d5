"""The state machine on random walks: what holds of the weight whatever is seen and asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rollout import phases
from rollout.gates.base import Verdict
from rollout.phases import JUDGED, TERMINAL, CommandRefusedError, Phase, Position, Seen
from rollout.plan import Plan
from tests.rollout.positions import COMMANDS, NOW, PASSED, PLAN, at, gate, seen

VERDICTS = st.sampled_from(list(Verdict))


@st.composite
def looks(draw: st.DrawFn) -> dict[str, Any]:
    verdicts = (gate(draw(VERDICTS)), gate(draw(VERDICTS), "latency"))
    quiet = draw(st.booleans())
    return {
        "seconds": draw(st.sampled_from([1, 11, 70])),
        "canary_ready": draw(st.sampled_from([True, True, True, False])),
        "applied": draw(st.sampled_from([True, True, True, False])),
        "gates": draw(st.sampled_from([verdicts, PASSED, PASSED, ()])),
        "failed": draw(st.sampled_from([None] * 9 + [gate(Verdict.FAIL)])),
        "trouble": draw(st.sampled_from(["", "", "", "503"])),
        "outage": draw(st.sampled_from([""] * 9 + ["all failed"])),
        "quiet": quiet,
        "first_version": False,
        "command": draw(st.sampled_from([None] * 12 + [*COMMANDS, "supersede"])),
    }


def commanded(position: Position, name: str, now: datetime) -> Position:
    if name == "supersede":
        return position if position.phase in TERMINAL else phases.supersede(position, now, "by v3")
    try:
        return phases.command(PLAN, position, name, now, "a person")
    except CommandRefusedError:
        return position


def a_look(step: dict[str, Any], position: Position, now: datetime) -> Seen:
    return Seen(
        now=now,
        canary_ready=step["canary_ready"],
        observed_percent=position.weight_percent if step["applied"] else None,
        trouble=step["trouble"],
        failed=step["failed"],
        gates=step["gates"],
        last_evidence_at=None if step["quiet"] else now,
        evidence_since=None if step["quiet"] else NOW,
        outage=step["outage"],
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(looks(), min_size=1, max_size=40), st.sampled_from(["hold", "rollback"]))
def test_whatever_happens_the_weight_only_rises_by_passes_or_by_a_person(
    walk: list[dict[str, Any]], on_silence: str
) -> None:
    plan, now = replace(PLAN, on_silence=on_silence), NOW
    position = at(Phase.PENDING, 0)
    for step in walk:
        now += timedelta(seconds=step["seconds"])
        if step["command"]:
            asked = commanded(position, step["command"], now)
            if asked.weight_percent > position.weight_percent:
                assert step["command"] == "promote"
            if position.phase in TERMINAL:
                assert asked == position
            position = asked
        look = a_look(step, position, now)
        after = phases.decide(plan, position, look)
        check(position, after, look)
        position = after
    check_abort(plan, position, now)


def check(before: Position, after: Position, look: Seen) -> None:
    if before.phase in TERMINAL:
        assert after is before
    if after.phase in TERMINAL | {Phase.ROLLING_BACK, Phase.WATCHING, Phase.PENDING}:
        assert after.weight_percent == 0
    if after.phase != before.phase:
        assert after.reason
        assert after.entered_at == look.now
    if after.weight_percent > before.weight_percent:
        assert look.canary_ready
        if before.phase is not Phase.PENDING:
            assert before.phase in (Phase.RUNNING, Phase.HELD)
            assert look.observed_percent == before.weight_percent
            assert all(g.verdict is Verdict.PASS for g in look.gates)
            assert look.gates
            assert after.step in (before.step, before.step + 1)
    if look.failed is not None and before.phase in JUDGED:
        assert (after.phase, after.weight_percent) == (Phase.ROLLING_BACK, 0)
    if after.promoted_roles and not before.promoted_roles:
        assert look.observed_percent == 100
        assert look.canary_ready


def check_abort(plan: Plan, position: Position, now: datetime) -> None:
    """From any active phase an abort ends at weight 0, whatever is seen, once 0 is observed."""
    if position.phase in TERMINAL:
        return
    position = phases.command(plan, position, "abort", now, "enough")
    for seconds in (1, 100, 1000):
        look = seen(seconds, observed=None, trouble="503", failed=gate(Verdict.FAIL))
        position = phases.decide(plan, position, look)
        assert position.weight_percent == 0
    position = phases.decide(plan, position, seen(2000, observed=0))
    assert position.phase in TERMINAL - {Phase.PROMOTED}
