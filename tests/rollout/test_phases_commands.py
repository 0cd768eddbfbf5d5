"""The state machine: what people may ask of a rollout, and what a newer version does to it."""

from __future__ import annotations

import pytest

from rollout import phases
from rollout.phases import JUDGED, TERMINAL, CommandRefusedError, Phase
from tests.rollout.positions import COMMANDS, NOW, PLAN, at, decide, later, seen

# Commands


@pytest.mark.parametrize("phase", sorted(set(Phase) - TERMINAL - {Phase.PENDING, Phase.ROLLING_BACK}))
def test_abort_wants_weight_0_and_ends_aborted(phase: Phase) -> None:
    back = phases.command(PLAN, at(phase), "abort", NOW, "wrong weights")
    assert (back.phase, back.weight_percent, back.ending) == (Phase.ROLLING_BACK, 0, Phase.ABORTED)
    assert decide(back, seen(observed=0)).phase is Phase.ABORTED
    assert phases.command(PLAN, back, "abort", later(9), "again") == back


@pytest.mark.parametrize(("name", "ending"), [("abort", Phase.ABORTED), ("rollback", Phase.ROLLED_BACK)])
def test_a_rollout_without_traffic_ends_at_once(name: str, ending: Phase) -> None:
    assert phases.command(PLAN, at(Phase.PENDING, 0), name, NOW, "changed my mind").phase is ending


@pytest.mark.parametrize("phase", sorted(TERMINAL - {Phase.PROMOTED}))
def test_aborting_what_is_over_at_weight_0_changes_nothing(phase: Phase) -> None:
    assert phases.command(PLAN, at(phase, 0), "abort", NOW, "again") == at(phase, 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_promoted_rollout_takes_no_command(name: str) -> None:
    with pytest.raises(CommandRefusedError, match="over"):
        phases.command(PLAN, at(Phase.PROMOTED, 0), name, NOW, "why not")


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("pause", Phase.PENDING),
        ("pause", Phase.PROMOTING),
        ("pause", Phase.ROLLING_BACK),
        ("resume", Phase.WATCHING),
        ("promote", Phase.PENDING),
        ("promote", Phase.ROLLING_BACK),
        ("promote", Phase.ROLLED_BACK),
        ("dance", Phase.RUNNING),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(name: str, phase: Phase) -> None:
    with pytest.raises(CommandRefusedError):
        phases.command(PLAN, at(phase), name, NOW, "why not")


@pytest.mark.parametrize("phase", sorted(JUDGED))
def test_a_person_may_promote_and_it_is_said_who(phase: Phase) -> None:
    promoting = phases.command(PLAN, at(phase), "promote", NOW, "the shop is waiting (ann)")
    assert (promoting.phase, promoting.weight_percent) == (Phase.PROMOTING, 100)
    assert "the shop is waiting (ann)" in promoting.reason


# Superseding


@pytest.mark.parametrize(
    ("phase", "then", "weight"),
    [
        (Phase.PENDING, Phase.SUPERSEDED, 0),
        (Phase.WATCHING, Phase.PROMOTED, 0),
        (Phase.RUNNING, Phase.ROLLING_BACK, 0),
        (Phase.HELD, Phase.ROLLING_BACK, 0),
        (Phase.PAUSED, Phase.ROLLING_BACK, 0),
        (Phase.PROMOTING, Phase.ROLLING_BACK, 0),
    ],
)
def test_a_superseded_rollout_gives_its_traffic_back_first(phase: Phase, then: Phase, weight: float) -> None:
    position = at(phase, 0 if phase in (Phase.PENDING, Phase.WATCHING) else 5)
    over = phases.supersede(position, NOW, "superseded by v3")
    assert (over.phase, over.weight_percent) == (then, weight)
    assert "superseded by v3" in over.reason
    if then is Phase.ROLLING_BACK:
        assert decide(over, seen(observed=0)).phase is Phase.SUPERSEDED


def test_a_rollback_under_way_is_not_superseded_into_something_else() -> None:
    back = at(Phase.ROLLING_BACK, 0, ending=Phase.ROLLED_BACK, reason="errors failed")
    assert phases.supersede(back, NOW, "superseded by v3") == back
