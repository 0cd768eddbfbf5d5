from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rollout.judge import rare_events
from tests.rollout.judge.enumeration import expected

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/judge_vectors.json").read_text())["vectors"]


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["form"] == "P"])
def test_the_published_vectors(vector):
    given = {key: vector[key] for key in ("n_c", "x_c", "n_b", "x_b", "rho", "theta0", "delta")}
    assert rare_events.log_e(**given) == pytest.approx(vector["log_e"], rel=1e-6)


@pytest.mark.parametrize(("theta0", "delta"), [(1.0, 0.0), (1.25, 1e-4), (0.999, 0.001), (1.15, 0.1)])
@pytest.mark.parametrize(("n_c", "n_b"), [(1, 1), (3, 12), (10, 10), (8, 2)])
@pytest.mark.parametrize("p_b", [0.0, 0.001, 0.1, 0.6])
def test_expectation_is_at_most_one_on_the_whole_null(theta0, delta, n_c, n_b, p_b):
    boundary = min(1.0, theta0 * p_b + delta)
    for p_c in (0.0, boundary / 2, boundary):
        mean = expected(
            lambda x_c, x_b: rare_events.log_e(
                n_c=n_c, x_c=x_c, n_b=n_b, x_b=x_b, theta0=theta0, delta=delta
            ),
            (n_c, p_c),
            (n_b, p_b),
        )
        assert np.all(mean <= 1 + 1e-9)


@pytest.mark.parametrize(("n_c", "n_b"), [(0, 50), (50, 0), (0, 0)])
def test_an_arm_without_requests_is_no_evidence(n_c, n_b):
    assert not rare_events.log_e(n_c=n_c, x_c=0, n_b=n_b, x_b=0).any()
