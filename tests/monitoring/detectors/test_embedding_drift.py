from __future__ import annotations

import numpy as np
import pytest

from monitoring import references
from monitoring.detectors.base import Live, Status
from monitoring.detectors.embedding_drift import EmbeddingDrift, measure

DETECTOR = EmbeddingDrift()


def sample(rng, n, d=48, shift=None):
    rows = rng.normal(size=(n, d)) * np.linspace(2, 0.2, d)
    if shift is not None:
        rows += shift
    return rows.astype("f4")


def frozen(rng, n=4000, d=48):
    return references.measure(sample(rng, n, d), rng.random(n))


def live(reference, rows):
    return Live(None, None, len(rows), np.zeros(100, int), reference.count(rows))


def test_a_shift_that_the_components_do_not_see_is_found_in_what_they_leave_out():
    rng = np.random.default_rng(1)
    reference = frozen(rng)
    left_out = np.linalg.svd(reference.components)[2][-1]  # orthogonal to every component
    result = measure(live(reference, sample(rng, 2000, shift=6 * left_out)), reference)
    assert max(row["d"] for row in result["components"] if not row["residual"]) < 0.1
    assert result["component"] == len(reference.components)
    assert result["d"] > 0.9


def test_drift_is_never_claimed_on_what_chance_explains():
    rng = np.random.default_rng(2)
    hasty = EmbeddingDrift(minimum_n=1)
    for _ in range(30):
        reference = frozen(rng, n=references.MINIMUM_ROWS, d=4)
        state: dict = {}
        for _ in range(4):
            answer = hasty.evaluate(live(reference, sample(rng, 20, d=4)), reference, state)
            state = answer.state
            assert answer.status is Status.STABLE


@pytest.mark.parametrize("rows", [500, 5000])
def test_no_drift_is_found_where_there_is_none(rows):
    rng = np.random.default_rng(3)
    reference = frozen(rng)
    largest = [measure(live(reference, sample(rng, rows)), reference)["d"] for _ in range(20)]
    assert max(largest) < 0.15


def test_the_answer_remembers_since_when():
    rng = np.random.default_rng(4)
    reference = frozen(rng)
    bad = live(reference, sample(rng, 1000, shift=2.0))
    state = DETECTOR.evaluate(bad, reference, {}).state
    later = DETECTOR.evaluate(bad, reference, state).state
    assert state["since"] == later["since"]
