"""Every sampler keeps the port's promises."""

from __future__ import annotations

import math
import random

import pytest

from labeling import samplers
from labeling.samplers.base import Candidate, Sampler

EVERY = pytest.mark.parametrize("sampler", samplers.SAMPLERS.values(), ids=list(samplers.SAMPLERS))


def _batch(seed: int = 7, size: int = 400) -> list[Candidate]:
    rng = random.Random(seed)
    odd = [None, math.nan, math.inf, -1.0, 2.0, 0.0, 1.0]
    return [
        Candidate(
            confidence=rng.choice([rng.random(), rng.random(), rng.choice(odd)]),
            drawn_by=rng.choice(["", "", *samplers.SAMPLERS, "somebody-else"]),
            inclusion_probability=rng.choice([None, 0.0, 1e-6, 0.02, 1.0, 1.5, math.nan]),
            stratum=rng.choice(["", "low"]),
        )
        for _ in range(size)
    ]


@EVERY
def test_a_sampler_is_found_under_its_own_name(sampler: Sampler) -> None:
    assert samplers.get(sampler.name) is sampler
    assert len(sampler.name) <= 32


def test_an_unknown_name_raises() -> None:
    with pytest.raises(samplers.UnknownSamplerError, match="no sampler 'nope'"):
        samplers.get("nope")


@EVERY
def test_an_empty_batch_has_no_choices(sampler: Sampler) -> None:
    assert dict(sampler.choose([])) == {}


@EVERY
def test_the_same_batch_gets_the_same_answer(sampler: Sampler) -> None:
    assert sampler.choose(_batch()) == sampler.choose(_batch())


@EVERY
def test_choices_are_well_formed(sampler: Sampler) -> None:
    batch = _batch()
    chosen = sampler.choose(batch)
    assert 0 < len(chosen) < len(batch)
    for index, choice in chosen.items():
        assert 0 <= index < len(batch)
        assert choice.sampler == sampler.name
        assert math.isfinite(choice.priority)
        assert choice.why


@EVERY
def test_exactly_measure_tasks_carry_a_probability(sampler: Sampler) -> None:
    for choice in sampler.choose(_batch()).values():
        assert (choice.inclusion_probability is not None) == (choice.budget == "measure")
        assert choice.inclusion_probability is None or 0 < choice.inclusion_probability <= 1


@EVERY
def test_nobody_takes_what_another_sampler_drew(sampler: Sampler) -> None:
    batch = _batch()
    assert all(batch[index].drawn_by in {"", sampler.name} for index in sampler.choose(batch))
