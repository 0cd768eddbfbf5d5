from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monitoring.statistics.p_chart import p_chart

FILE = Path(__file__).parents[2] / "vectors" / "spc_vectors.json"
VECTORS = [vector for vector in json.loads(FILE.read_text())["vectors"] if vector["kind"] == "p"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_it_agrees_with_r(vector):
    given, expected = vector["input"], vector["expected"]
    chart = p_chart(given["d"], given["n"])
    assert chart.center == pytest.approx(expected["center"], rel=vector["tol"])
    events = given["d"] + given.get("new_d", [])
    chart = p_chart(events, given["n"] + given.get("new_n", []), center=chart.center)
    assert np.allclose(chart.lower, expected["lcl"], rtol=vector["tol"])
    assert np.allclose(chart.upper, expected["ucl"], rtol=vector["tol"])
    beyond = (np.flatnonzero(chart.outside) + 1).tolist()
    assert beyond == expected["western_electric_by_rule"]["rule1"]


def test_limits_follow_each_points_own_n_and_stay_in_0_1():
    chart = p_chart([0, 10, 100], [1, 100, 10_000], center=0.01)
    assert chart.lower.tolist()[:2] == [0, 0]
    assert (np.diff(chart.upper) < 0).all()
    assert chart.outside.tolist() == [False, True, False]


def test_points_in_control_are_outside_three_sigma_as_rarely_as_promised():
    events = np.random.default_rng(1).binomial(2000, 0.3, 20_000)
    assert p_chart(events, np.full(20_000, 2000), center=0.3).outside.mean() == pytest.approx(
        0.0027, abs=0.0012
    )


@pytest.mark.parametrize(("events", "n"), [([], []), ([1], [0]), ([2], [1]), ([-1], [5]), ([1, 2], [5])])
def test_impossible_points_are_refused(events, n):
    with pytest.raises(ValueError):
        p_chart(events, n)
