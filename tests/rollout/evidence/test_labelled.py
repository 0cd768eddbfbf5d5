"""Is every label and every pair evidence once, in the minute of its request, whenever somebody looks?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.models import Fleet, Model, ModelVersion, Route
from monitoring.models import Outcome, Prediction, ShadowPair, Window
from rollout.evidence import labelled
from rollout.evidence import sources as evidence
from rollout.evidence.labelled import Label, compare, count, is_fit, split_into_runs
from rollout.gates.base import Labelled, LabelledStratum
from rollout.models import Rollout
from rollout.plan import Plan, load

T0 = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
MATURE = 120.0


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def plan(*gates: dict[str, Any]) -> Plan:
    steps = [{"weight_percent": 5, "dwell_seconds": 5}]
    whole = {"name": "test", "steps": steps, "gates": [{"weight": 1.0, **gate} for gate in gates]}
    return load(whole)


ACCURACY = plan({"name": "accuracy", "settings": {"mature_seconds": MATURE}})
PARITY = plan({"name": "parity"})


@pytest.fixture
def rollout(db: None) -> Rollout:
    model = Model.objects.create(name="products")
    fleet = Fleet.objects.create(name="here", driver="memory", config={})
    stable, canary = (
        ModelVersion.objects.create(model=model, name=name, artifact_uri="mem:x", digest="0" * 64)
        for name in ("v1", "v2")
    )
    route = Route.objects.create(model=model, fleet=fleet, stable=stable, canary=canary)
    return Rollout.objects.create(
        route=route, version=canary, stable=stable, plan_name="test", plan={}, state="running", started_at=T0
    )


def counted(rollout: Rollout, seconds: float, n: int = 1_000, errors: int = 0) -> None:
    """Both versions' windows of the 10 s that begin then."""
    for version, part in ((rollout.version, 0.1), (rollout.stable, 0.9)):
        Window.objects.create(
            version=version, start=at(seconds), end=at(seconds + 10), n=round(n * part), errors=errors
        )


def label(
    version: ModelVersion, seconds: float, *, wrong: bool = False, after: float = 30.0, q: float = 0.1
) -> None:
    Outcome.objects.create(
        version=version,
        request_id=f"r{Outcome.objects.count()}",
        requested_at=at(seconds),
        wrong=wrong,
        sampler="measure",
        inclusion_probability=q,
        created_at=at(seconds + after),
    )


def pair(rollout: Rollout, seconds: float, agreed: bool | None = True, **fields: Any) -> ShadowPair:
    return ShadowPair.objects.create(
        version=rollout.version,
        stable=rollout.stable,
        request_id=f"p{ShadowPair.objects.count()}",
        at=at(seconds),
        **{
            "matched_at": at(seconds + 10),
            "stable_label": "hat",
            "canary_label": "hat" if agreed else "cap",
            "agreed": agreed,
            "inclusion_probability": 0.5,
            **fields,
        },
    )


def read(
    rollout: Rollout, now: float, sources: evidence.Sources | None = None, chosen: Plan = ACCURACY
) -> Any:
    sources, readings = labelled.read(sources or {}, rollout, chosen, at(now).timestamp())
    return sources, [reading.interval for reading in readings]


# Labels


def test_a_minute_is_read_once_it_has_matured(rollout):
    counted(rollout, 0)
    label(rollout.version, 3, wrong=True)
    label(rollout.stable, 4)
    sources, early = read(rollout, 60 + MATURE - 1)
    assert not early
    sources, (interval,) = read(rollout, 60 + MATURE, sources)
    assert (interval.start, interval.end) == (at(MATURE).timestamp(), at(60 + MATURE).timestamp())
    (stratum,) = interval.labels
    assert stratum.canary == Labelled(100, ((10.0, 1),), ((10.0, 1),))
    assert stratum.stable == Labelled(900, ((10.0, 0),), ((10.0, 1),))
    assert read(rollout, 600, sources)[1] == []


def test_a_late_look_sees_what_a_timely_one_saw(rollout):
    """The labels that come after a minute has matured must not count in one case and not in the other."""
    for start in range(0, 240, 10):
        counted(rollout, start)
    for i in range(100):
        label(rollout.version, 2.3 * i, wrong=i % 7 == 0, after=i * 3.1)
        label(rollout.stable, 2.3 * i, after=i * 2.7)
    sources: evidence.Sources = {}
    timely = []
    for now in range(0, 900, 5):
        sources, found = read(rollout, now, sources)
        timely += found
    assert timely == read(rollout, 900)[1]
    assert len(timely) == 4


def test_every_label_that_came_in_time_counts_once(rollout):
    for start in range(0, 120, 10):
        counted(rollout, start)
    for i in range(60):
        label(rollout.version, 2 * i, after=10.0 if i % 3 else MATURE + 100)
    _, found = read(rollout, 600)
    strata = [stratum for interval in found for stratum in interval.labels]
    assert sum(n for stratum in strata for _, n in stratum.canary.labelled) == 40
    assert len({stratum.stratum for stratum in strata}) == len(strata) == 2


def test_requests_that_failed_are_not_counted_among_those_that_might_be_labelled(rollout):
    counted(rollout, 0, errors=20)
    (interval,) = read(rollout, 600)[1]
    assert (interval.labels[0].canary.n, interval.labels[0].stable.n) == (80, 880)


def test_labels_of_an_interval_that_only_one_arm_counted_are_left_out(rollout):
    counted(rollout, 0)
    Window.objects.create(version=rollout.stable, start=at(10), end=at(20), n=900, errors=0)
    label(rollout.stable, 5)
    label(rollout.stable, 15)
    (interval,) = read(rollout, 600)[1]
    assert interval.labels[0].stable == Labelled(900, ((10.0, 0),), ((10.0, 1),))


def test_a_change_of_the_split_parts_a_minute_into_strata(rollout):
    for start in range(0, 60, 10):
        counted(rollout, start)
        label(rollout.version, start + 5)
    changing = {
        "unsettled": [[at(-5).timestamp(), at(1).timestamp()], [at(22).timestamp(), at(24).timestamp()]]
    }
    _, (interval,) = read(rollout, 600, changing)
    assert [(s.stratum, s.canary.n, s.canary.labelled) for s in interval.labels] == [
        ("2026-11-20T03:00/1", 100, ((10.0, 1),)),
        ("2026-11-20T03:00/2", 300, ((10.0, 3),)),
    ]


def test_after_the_promotion_there_is_no_stratum_any_more(rollout):
    counted(rollout, 0)
    counted(rollout, 60)
    label(rollout.version, 65)
    promoted = {"unsettled": [[at(30).timestamp(), None]]}
    _, found = read(rollout, 600, promoted)
    assert [len(interval.labels) for interval in found] == [1]


def test_labels_of_other_samplers_are_not_read(rollout):
    counted(rollout, 0)
    label(rollout.version, 5)
    Outcome.objects.update(sampler="disagreement")
    (interval,) = read(rollout, 600)[1]
    assert interval.labels[0].canary.labelled == ()


def test_a_smaller_probability_is_known_from_the_draws_before(rollout):
    counted(rollout, 0)
    counted(rollout, 60)
    for seconds in (5, 65):
        label(rollout.version, seconds, q=0.002)
    Prediction.objects.create(
        version=rollout.version, request_id="x", at=at(5), sampler="measure", inclusion_probability=0.002
    )
    _, found = read(rollout, 600)
    assert [[stratum.max_weight for stratum in interval.labels] for interval in found] == [[500.0]]


def test_the_first_version_of_a_route_has_no_labels_to_compare(rollout):
    rollout.stable = None
    assert read(rollout, 600)[1] == []


def test_pairs_mature_with_the_truths_that_came_in_time(rollout):
    for seconds in range(10):
        pair(rollout, seconds)
    for truth, after in (("hat", 50), ("cap", 50), ("boot", 50), ("hat", 50), ("hat", 1_000), ("", None)):
        pair(rollout, 20, agreed=False, truth=truth, truth_at=None if after is None else at(after))
    pair(rollout, 30, agreed=False, iou=0.4)  # boxes have no truth here
    (interval,) = read(rollout, 600)[1]
    pairs = interval.pairs
    assert (pairs.compared, pairs.agreed) == (16, 10)
    assert (pairs.only_canary_wrong, pairs.only_stable_wrong, pairs.both_wrong) == (2, 1, 1)


# Pairs


def test_pairs_are_read_as_they_are_matched(rollout):
    for seconds, agreed in ((0, True), (3, False), (12, True)):
        pair(rollout, seconds, agreed)
    sources, (first,) = read(rollout, 26, chosen=PARITY)
    assert (first.start, first.pairs.compared, first.pairs.agreed) == (at(10).timestamp(), 2, 1)
    assert read(rollout, 34, sources, PARITY)[1] == []
    sources, (second,) = read(rollout, 35, sources, PARITY)
    assert (second.pairs.compared, second.pairs.agreed) == (1, 1)
    assert read(rollout, 3_600, sources, PARITY)[1] == []


def test_a_golden_set_is_the_first_batch(rollout):
    rollout.version.metadata = {"parity": {"against": "v1", "compared": 5_000, "agreed": 4_999}}
    pair(rollout, 0)
    _, (golden, mirrored) = read(rollout, 30, chosen=PARITY)
    assert (golden.pairs.compared, golden.pairs.agreed) == (5_000, 4_999)
    assert golden.end <= mirrored.start


def test_a_golden_set_compared_with_another_version_is_not_about_this_rollout(rollout):
    rollout.version.metadata = {"parity": {"against": "v0", "compared": 5_000, "agreed": 4_999}}
    assert read(rollout, 30, chosen=PARITY)[1] == []


def test_what_no_gate_asks_for_is_not_read(rollout):
    counted(rollout, 0)
    pair(rollout, 0)
    sources, found = read(rollout, 600, chosen=plan({"name": "errors"}))
    assert (sources, found) == ({}, [])


# The parts


def test_an_interval_around_a_change_belongs_to_no_run():
    spans = [(0.0, 10.0), (10.0, 20.0), (20.0, 30.0)]
    assert split_into_runs({"unsettled": [[12.0, 14.0]]}, spans) == {0: [(0.0, 10.0)], 1: [(20.0, 30.0)]}


def test_a_label_counts_where_its_request_was_counted():
    labels = [
        Label(9.99, 10.0, True),
        Label(10.0, 10.0, True),
        Label(25.0, 2.0, False),
        Label(-1.0, 10.0, True),
    ]
    found = count([(0.0, 10.0), (20.0, 30.0)], {(0.0, 10.0): 50, (20.0, 30.0): 70}, labels)
    assert found == Labelled(120, ((2.0, 0), (10.0, 1)), ((2.0, 1), (10.0, 1)))


@pytest.mark.parametrize(
    "canary",
    [Labelled(0), Labelled(3, ((10.0, 0),), ((10.0, 4),)), Labelled(30, ((101.0, 0),), ((101.0, 1),))],
)
def test_a_stratum_that_cannot_be_is_no_evidence(canary):
    assert not is_fit(LabelledStratum("s", canary, Labelled(10)))
    assert not is_fit(LabelledStratum("s", Labelled(10), canary))


def test_cosines_are_counted_in_a_hundred_bins():
    pairs = compare([(True, 0.999), (False, 1.0), (None, -0.3), (True, None)])
    assert (pairs.compared, pairs.agreed) == (3, 2)
    assert (pairs.cosine[99], pairs.cosine[0], sum(pairs.cosine)) == (2, 1, 3)
    assert compare([(True, None)]).cosine is None


def test_what_is_kept_comes_back_as_it_was(rollout):
    counted(rollout, 0)
    label(rollout.version, 3, wrong=True)
    pair(rollout, 5, cosine=0.5)
    for chosen in (ACCURACY, PARITY):
        (interval,) = read(rollout, 600, chosen=chosen)[1]
        kept = evidence.as_json(interval, ())
        assert evidence.from_json(interval.start, interval.end, kept) == interval
