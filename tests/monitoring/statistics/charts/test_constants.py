from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from monitoring.statistics.charts import constants


@pytest.mark.parametrize("g", range(2, 26))
def test_the_tabulated_mean_range_is_the_integral(g):
    x, weight = np.polynomial.legendre.leggauss(200)
    mean = np.sum(9 * weight * (1 - ndtr(9 * x) ** g - ndtr(-9 * x) ** g))  # Tippett 1925
    assert constants.d2(g) == pytest.approx(mean, abs=0.0006)


def test_the_tabulated_deviation_of_the_range_of_two_is_the_closed_form():
    assert constants.d3(2) == pytest.approx(np.sqrt(2 - 4 / np.pi), abs=1e-6)


def test_c4_is_the_tables():
    assert [round(constants.c4(g), 4) for g in (2, 5, 25)] == [0.7979, 0.9400, 0.9896]


@pytest.mark.parametrize("g", [0, 1, 26])
def test_groups_outside_the_table_are_refused(g):
    with pytest.raises(ValueError):
        constants.d2(g)
