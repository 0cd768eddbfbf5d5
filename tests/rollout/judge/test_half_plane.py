from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rollout.judge import half_plane
from tests.rollout.judge.enumeration import expected

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/judge_vectors.json").read_text())["vectors"]
SIDES = {"harm": half_plane.HARM, "non_inferiority": half_plane.NON_INFERIORITY}
#: (p_b1, p_c1): sensible, rash, swapped and degenerate alternatives.
ALTERNATIVES = np.array(
    [(0.1, 0.1), (0.1, 0.3), (0.3, 0.1), (0.5, 0.99), (0.99, 0.01), (0.0, 0.0), (0.0, 1.0)]
)


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["form"] == "H"])
def test_the_published_vectors(vector):
    given = {key: vector[key] for key in ("n_c", "x_c", "n_b", "x_b", "theta0", "delta")}
    found = half_plane.log_e(
        side=SIDES[vector["side"]],
        p_b1=vector["alternative"]["p_b"],
        p_c1=vector["alternative"]["p_c"],
        **given,
    )
    assert found == pytest.approx(vector["log_e"], rel=1e-6)


@pytest.mark.parametrize(("theta0", "delta"), [(1.0, 0.0), (1.15, 0.002), (1.25, 0.02), (1.0, 0.3)])
@pytest.mark.parametrize(("n_c", "n_b"), [(1, 1), (3, 12), (9, 9), (8, 2)])
@pytest.mark.parametrize("p_b", [0.0, 0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("side", SIDES.values(), ids=SIDES)
def test_expectation_is_at_most_one_on_the_whole_null(side, theta0, delta, n_c, n_b, p_b):
    boundary = theta0 * p_b + delta
    if side == half_plane.HARM:
        null = [p for p in (boundary, boundary / 2, 0.0) if p <= 1]
    else:
        null = [boundary, (boundary + 1) / 2, 1.0] if boundary <= 1 else []
    for p_c in null:
        mean = expected(
            lambda x_c, x_b: half_plane.log_e(
                side=side,
                n_c=n_c,
                x_c=x_c,
                n_b=n_b,
                x_b=x_b,
                p_b1=ALTERNATIVES[:, 0],
                p_c1=ALTERNATIVES[:, 1],
                theta0=theta0,
                delta=delta,
            ),
            (n_c, p_c),
            (n_b, p_b),
        )
        assert np.all(mean <= 1 + 1e-9)


def test_an_alternative_within_the_null_bets_nothing():
    found = half_plane.log_e(
        side=half_plane.HARM, n_c=100, x_c=50, n_b=100, x_b=1, p_b1=0.1, p_c1=0.1, theta0=1.25, delta=0.02
    )
    assert found == 0


@pytest.mark.parametrize(("n_c", "n_b"), [(0, 50), (50, 0), (0, 0)])
def test_an_arm_without_requests_is_no_evidence(n_c, n_b):
    found = half_plane.log_e(
        side=half_plane.HARM, n_c=n_c, x_c=0, n_b=n_b, x_b=0, p_b1=0.1, p_c1=0.5, theta0=1.0, delta=0.0
    )
    assert found == 0


@pytest.mark.parametrize(("n_c", "n_b"), [(1, 100_000), (4_000, 1), (300, 700), (1e6, 1e6)])
@pytest.mark.parametrize(("p_b1", "p_c1"), [(1e-5, 1e-3), (0.02, 0.3), (0.7, 1 - 1e-5), (0.4, 0.1)])
@pytest.mark.parametrize(("theta0", "delta"), [(1.0, 0.0), (1.25, 1e-4), (1.15, 0.002)])
def test_the_reference_point_is_the_nearest_on_the_boundary_however_lopsided_the_arms(
    theta0, delta, p_b1, p_c1, n_c, n_b
):
    def divergence(p_b):
        p_c = theta0 * p_b + delta
        return sum(
            n * (p1 * np.log(p1 / p) + (1 - p1) * np.log((1 - p1) / (1 - p)))
            for n, p1, p in ((n_c, p_c1, p_c), (n_b, p_b1, p_b))
        )

    found = half_plane._project(theta0 * n_c / n_b, p_c1, p_b1, theta0, delta)
    for other in (found * (1 - 1e-3), found + 1e-3 * min(found, (1 - delta) / theta0 - found)):
        assert divergence(found) <= divergence(other)
