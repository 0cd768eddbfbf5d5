from __future__ import annotations

import numpy as np
import pytest

from benchmarks.monitoring.fleets import Change, Stream, World


@pytest.fixture(scope="module")
def world():
    return World(0)


def hours(kind, level, count, change=None, seed=1):
    stream = Stream(kind, level, count, np.random.default_rng(seed))
    return stream.series(0, count, change or Change()).values


def test_without_variation_only_sampling_is_left(world):
    values = hours(world.embedding, "none", 48)
    assert values.shape == (48, 66)
    assert np.abs(values.mean(axis=0)).max() < 5 * 0.01 / np.sqrt(48)
    assert np.median(values.std(axis=0)) == pytest.approx(0.01, rel=0.1)  # 10,000 images


def test_a_shift_of_a_component_is_its_mean_score_and_no_others(world):
    shift = np.where(np.arange(33) == 3, 0.2, 0.0)
    mean = hours(world.embedding, "none", 24, Change(mean=shift)).mean(axis=0)
    assert mean[3] == pytest.approx(0.2, abs=0.01)
    assert np.abs(np.delete(mean[:33], 3)).max() < 0.01


@pytest.mark.parametrize("name", ["cluster", "rotation", "unsure"])
def test_a_change_moves_images_and_makes_none(world, name):
    change = {"cluster": world.cluster(0.05), "rotation": world.rotation(15), "unsure": world.unsure(1.25)}[
        name
    ]
    assert np.abs(change.mass.sum(axis=1)).max() < 1e-9
    assert np.abs(change.mass).sum() > 0.01


def test_turning_the_covariance_moves_no_mean(world):
    values = hours(world.embedding, "none", 24, world.rotation(5)).mean(axis=0)
    assert np.abs(values[:32]).max() < 0.01
    assert np.median(values[33:65]) < 0  # kept components lose variance
    assert values[32] > 0.05  # what is left out gains it


def test_the_low_share_is_a_quarter_more(world):
    before = hours(world.confidence, "none", 48).mean(axis=0)
    after = hours(world.confidence, "none", 48, world.unsure(1.25), seed=2).mean(axis=0)
    assert after[:2].sum() / before[:2].sum() == pytest.approx(1.25, abs=0.02)


def test_a_day_drawn_as_one_is_the_mean_of_its_hours(world):
    stream = Stream(world.embedding, "strong", 24 * 20, np.random.default_rng(3))
    by_hour = stream.series(0, 24 * 20).values.reshape(20, 24, 66).mean(axis=1)
    by_day = stream.days(0, np.zeros((20, 33))).values
    assert np.abs((by_hour - by_day).mean(axis=0)).max() < 0.015
