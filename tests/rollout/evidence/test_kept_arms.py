"""What is kept of an arm comes back as it was, and is small."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rollout import gates
from rollout.evidence import sources
from rollout.evidence.kept_arms import arm_from_json, arm_json
from rollout.gates.base import Arm, Interval


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261120)


def through_json(arm: Arm, needs: tuple[str, ...], key: str = "") -> Arm:
    return arm_from_json(json.loads(json.dumps(arm_json(arm, needs, key))))


def embedded(rng: np.random.Generator, bins: int) -> Arm:
    live, frozen = (rng.multinomial(n, np.full(bins, 1 / bins), size=33).tolist() for n in (2_850, 4_000))
    return Arm(
        2_850,
        embedding=tuple(map(tuple, live)),
        reference=tuple(map(tuple, frozen)),
        reference_digest="a" * 64,
    )


def test_embedding_counts_come_back_with_their_reference(rng: np.random.Generator) -> None:
    arm = embedded(rng, 6)
    assert through_json(arm, gates.get("embedding_shift").needs) == arm


def test_a_row_of_embedding_evidence_takes_less_than_two_kilobytes(rng: np.random.Generator) -> None:
    interval = Interval(0, 10, embedded(rng, 6), embedded(rng, 6))
    assert len(json.dumps(sources.as_json(interval, gates.get("embedding_shift").needs))) < 2_000


def test_segments_of_the_gates_key_come_back_and_no_others(rng: np.random.Generator) -> None:
    part = Arm(9, 2, latency=tuple(rng.integers(0, 300, 96).tolist()))
    arm = Arm(20, 3, segments={"device=nano": part, "camera=side": part})
    assert through_json(arm, ("errors", "latency"), "device").segments == {"device=nano": part}
    assert through_json(arm, ("errors", "latency")).segments == {}


def test_counts_that_were_not_there_stay_away() -> None:
    assert through_json(Arm(5), ("latency", "embedding", "reference")) == Arm(5)


def test_an_interval_keeps_what_it_is() -> None:
    aside = Interval(0, 10, Arm(5), Arm(9), aside=True)
    told = Interval(0, 10, Arm(0), Arm(0), known={"assignment": "key", "history": {"seconds": 0.0}})
    for interval in (aside, told):
        assert (
            sources.from_json(0, 10, json.loads(json.dumps(sources.as_json(interval, ("errors",)))))
            == interval
        )
