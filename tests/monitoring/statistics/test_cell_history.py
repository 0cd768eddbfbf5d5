from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from monitoring.statistics import cell_history, seasons
from monitoring.statistics.attribution import attribute
from tests.monitoring.statistics.fleet_of_cells import AXES, NAMES, PAST_HOURS, Fleet, where

RUNS = 300


@pytest.fixture(scope="module")
def fleet():
    return Fleet(np.random.default_rng(7))


@pytest.fixture(scope="module")
def limits(fleet):
    return fleet.limits()


def told(fleet, limits, change=None, **fields):
    """How often each sentence is said about such an hour."""
    return Counter(
        attribute(fleet.hour(hour, change, **fields), AXES, limits).sentence for hour in range(RUNS)
    )


def test_a_fleet_that_did_not_change_is_blamed_as_rarely_as_stated(fleet, limits):
    found = told(fleet, limits)
    quiet = found["no country or device stands out, nor does the mix"]
    assert RUNS - quiet <= 6  # .5 % of 300 are 1.5; more than 6 in one of a thousand such tests


@pytest.mark.parametrize(("axis", "value"), [("device", "cam2"), ("country", "se")])
def test_a_shift_of_one_part_is_found_without_being_told_the_noise(fleet, limits, axis, value):
    found = told(fleet, limits, 0.1 * where(axis, value))
    right = sum(n for said, n in found.items() if said.startswith(f"{axis} {value} only"))
    assert right >= 0.97 * RUNS


def test_a_shift_everywhere_is_found_beyond_what_all_cells_usually_share(fleet, limits):
    found = told(fleet, limits, np.full(len(NAMES), 0.3))
    assert sum(n for said, n in found.items() if said.startswith("everywhere")) >= 0.97 * RUNS


def test_a_change_of_mix_is_told_from_one_of_the_images(fleet, limits):
    found = told(fleet, limits, factor=np.where(where("country", "fr"), 2.0, 1.0))
    right = found["only the mix changed: images as before, more of them from country fr"]
    assert right >= 0.97 * RUNS


def test_the_noise_is_taken_from_the_past(fleet):
    assert np.sqrt(fleet.noise.common) == pytest.approx(fleet.shared, rel=0.2)
    per_image = 1 + fleet.own**2 * fleet.noise.images
    assert fleet.noise.per_image.mean(axis=1) == pytest.approx(per_image, rel=0.2)


def test_odd_hours_in_the_past_do_not_hide_a_change():
    rng = np.random.default_rng(8)
    hours = np.arange(PAST_HOURS)
    images = np.full((PAST_HOURS, 2), 1000.0)
    means = rng.normal(0, 1000**-0.5, (PAST_HOURS, 2, 1))
    means[5:20, 0] += 10.0
    columns = seasons.supported_design(hours)
    past = cell_history.usual((("a",), ("b",)), hours, images, means, columns)
    assert cell_history.noise(past, 1).per_image == pytest.approx(1.0, rel=0.5)


def test_a_score_that_is_rarely_anything_but_zero_has_its_variance():
    rng = np.random.default_rng(9)
    hours = np.arange(PAST_HOURS)
    images = np.full((PAST_HOURS, 2), 1000.0)
    means = rng.binomial(1000, 1e-4, (PAST_HOURS, 2, 1)) / 1000
    past = cell_history.usual((("a",), ("b",)), hours, images, means, seasons.supported_design(hours))
    assert cell_history.noise(past, 1).per_image == pytest.approx(1e-4, rel=0.5)


def test_a_score_that_never_moves_keeps_its_baseline():
    hours = np.arange(PAST_HOURS)
    images, means = np.full((PAST_HOURS, 2), 1000.0), np.full((PAST_HOURS, 2, 1), 0.7)
    columns = seasons.supported_design(hours)
    past = cell_history.usual((("a",), ("b",)), hours, images, means, columns)
    now = cell_history.period(past, cell_history.noise(past, 1), columns[-1:], images[-1:], means[-1:])
    assert now.change == pytest.approx(0, abs=1e-9)


def test_a_cell_with_less_than_three_days_of_past_has_no_baseline(fleet):
    hours = np.arange(PAST_HOURS)
    images, means = fleet.hours(hours)
    images[:-71, 3] = 0
    past = cell_history.usual(NAMES, hours, images, means, seasons.supported_design(hours))
    now = cell_history.period(past, fleet.noise, past.design[-1:], images[-1:], means[-1:])
    assert now.known.tolist() == [cell != 3 for cell in range(len(NAMES))]


def test_a_period_of_hours_counts_every_image_alike(fleet):
    images, means = fleet.hours(np.arange(PAST_HOURS, PAST_HOURS + 3))
    columns = seasons.design(np.arange(PAST_HOURS, PAST_HOURS + 3))
    now = cell_history.period(fleet.past, fleet.noise, columns, images, means)
    assert now.weight == pytest.approx(images.sum(axis=0))
    assert now.mean[0] == pytest.approx((images[:, 0, None] * means[:, 0]).sum(axis=0) / images[:, 0].sum())


def test_more_images_than_usual_do_not_lessen_noise_that_they_do_not_average_out(fleet):
    images, means = fleet.hours(np.array([PAST_HOURS]))
    columns = seasons.design(np.array([PAST_HOURS]))
    usual = cell_history.period(fleet.past, fleet.noise, columns, images, means)
    many = cell_history.period(fleet.past, fleet.noise, columns, 100 * images, means)
    few = cell_history.period(fleet.past, fleet.noise, columns, np.ceil(images / 100), means)
    assert (many.variance >= 0.7 * usual.variance).all()
    assert (few.variance > 50 * usual.variance).all()


def test_past_periods_do_not_reach_over_a_gap(fleet):
    hours = np.concatenate([np.arange(100), np.arange(200, 300)])
    images, means = fleet.hours(hours)
    past = cell_history.usual(NAMES, hours, images, means, seasons.supported_design(hours))
    assert len(list(cell_history.history(past, fleet.noise, 6))) == 2 * 95


def test_with_a_short_past_the_limit_is_what_normal_noise_needs(fleet):
    few = list(cell_history.history(fleet.past, fleet.noise, 1))[:10]
    limits = cell_history.limit_from(few, AXES)
    assert 3.5 < limits.everywhere < limits.axes[0] < limits.cell < 5.5


def test_without_a_past_period_there_is_no_limit():
    with pytest.raises(ValueError, match="no past period"):
        cell_history.limit_from([], AXES)


def test_limits_grow_with_the_level(fleet):
    periods = list(cell_history.history(fleet.past, fleet.noise, 1))
    strict, loose = (cell_history.limit_from(periods, AXES, level) for level in (0.999, 0.95))
    assert strict.mix > loose.mix
    assert strict.everywhere > loose.everywhere
