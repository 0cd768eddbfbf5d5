"""What do two versions disagree about, and what becomes of the truth?"""

from __future__ import annotations

from datetime import timedelta

import pytest

from monitoring import disagreements
from monitoring.models import Outcome, ShadowPair
from tests.monitoring.build import T0, version

NOW = T0 + timedelta(minutes=1)


@pytest.fixture
def versions(db):
    return version(name="v1"), version(name="v2")


def pairs(versions, *answers, first=0):
    """Pairs (stable said, canary said)."""
    stable, canary = versions
    return ShadowPair.objects.bulk_create(
        ShadowPair(
            version=canary,
            stable=stable,
            request_id=f"r{first + i}",
            at=T0 + timedelta(seconds=first + i),
            matched_at=NOW,
            stable_label=one,
            canary_label=other,
            agreed=one == other,
            inclusion_probability=0.25,
        )
        for i, (one, other) in enumerate(answers)
    )


def table(versions, most=10):
    stable, canary = versions
    return disagreements.table(disagreements.between(canary, stable, T0, NOW), most)


def test_kinds_of_disagreement_are_counted_the_most_frequent_first(versions):
    pairs(versions, ("hat", "cap"), ("hat", "hat"), ("boot", "shoe"), ("hat", "cap"), ("cap", "hat"))
    found = table(versions)
    assert (found.compared, found.agreed) == (5, 1)
    assert [(cell.stable, cell.canary, cell.n) for cell in found.cells] == [
        ("hat", "cap", 2),
        ("boot", "shoe", 1),
        ("cap", "hat", 1),
    ]
    assert [pair.request_id for pair in found.cells[0].examples] == ["r3", "r0"]


def test_only_as_many_kinds_as_are_asked_for(versions):
    pairs(versions, ("a", "b"), ("a", "c"), ("a", "d"))
    assert len(table(versions, most=2).cells) == 2
    assert table(versions, most=2).shown == 2


def test_pairs_of_other_times_and_versions_are_left_out(versions):
    pairs(versions, ("hat", "cap"), first=1_000)
    pairs((versions[1], version(name="v3")), ("hat", "cap"))
    assert table(versions).compared == 0


def test_a_truth_becomes_an_outcome_of_both_versions_once(versions):
    canary = versions[1]
    pairs(versions, ("hat", "cap"))
    for truth in ("cap", "hat"):
        disagreements.settle(canary, "r0", truth, NOW)
    wrong = dict(Outcome.objects.values_list("version__name", "wrong"))
    assert wrong == {"v1": True, "v2": False}
    one = Outcome.objects.get(version=canary)
    assert (one.arm, one.sampler, one.inclusion_probability) == ("canary", "disagreement", 0.25)
    assert ShadowPair.objects.get().truth == "cap"


def test_the_table_says_who_was_wrong_as_far_as_is_known(versions):
    pairs(versions, *[("hat", "cap")] * 5)
    for request, truth in enumerate(("hat", "hat", "cap", "boot")):
        disagreements.settle(versions[1], f"r{request}", truth, NOW)
    (cell,) = table(versions).cells
    assert (cell.only_canary_wrong, cell.only_stable_wrong, cell.both_wrong, cell.unlabelled) == (2, 1, 1, 1)


def test_a_truth_about_a_pair_that_is_forgotten_is_no_error(versions):
    disagreements.settle(versions[1], "gone", "hat", NOW)
    assert not Outcome.objects.exists()
