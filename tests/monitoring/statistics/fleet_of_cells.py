"""Simulated fleets cut by country and device, for the tests of attribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitoring.statistics import cell_history, seasons
from monitoring.statistics.attribution import Cells, Limits

AXES = ("country", "device")
COUNTRIES, DEVICES = ("at", "de", "fr", "se"), ("cam1", "cam2", "cam3")
NAMES = tuple((country, device) for country in COUNTRIES for device in DEVICES)
PAST_HOURS = 28 * 24


def cells(change, *, variance=1e-4, names=NAMES, weight=None, usual=None, common=0.0, coordinates=1):
    """Cells whose mean lies `change` (c,) above a baseline of 0, in every coordinate."""
    c = len(names)
    mean = np.broadcast_to(np.asarray(change, float).reshape(-1, 1), (c, coordinates)).copy()
    weight = np.full(c, 1000.0) if weight is None else np.asarray(weight, float)
    return Cells(
        names=names,
        weight=weight,
        baseline_weight=weight if usual is None else np.asarray(usual, float),
        mean=mean,
        baseline=np.zeros((c, coordinates)),
        variance=np.broadcast_to(np.asarray(variance, float), (c, coordinates)).copy(),
        common=np.full(coordinates, common),
    )


def where(axis, value, names=NAMES):
    """(c,) the cells with this value."""
    return np.array([name[AXES.index(axis)] == value for name in names])


@dataclass
class Fleet:
    """Four weeks of past, and as many independent hours after it as are asked for."""

    rng: np.random.Generator
    daily: float = 0.1
    shared: float = 0.03  # standard deviation of what all cells do, from hour to hour
    own: float = 0.01  # of what each cell does
    images: float = 40_000
    coordinates: int = 6

    def __post_init__(self):
        self.base = self.rng.normal(0, 0.3, (len(NAMES), self.coordinates))
        self.share = self.rng.dirichlet(np.full(len(NAMES), 20.0))
        hours = np.arange(PAST_HOURS)
        images, means = self.hours(hours)
        self.past = cell_history.usual(NAMES, hours, images, means, seasons.supported_design(hours))
        self.noise = cell_history.noise(self.past, 1)

    def hours(self, hours):
        """Images and mean scores of these hours."""
        t, c = len(hours), len(NAMES)
        share = self.share * np.exp(self.rng.normal(0, 0.05, (t, c)))
        images = np.floor(self.images * share / share.sum(axis=1, keepdims=True)) + 1
        season = self.daily * np.sin(2 * np.pi * hours / 24)[:, None, None]
        together = self.shared * self.rng.normal(size=(t, 1, self.coordinates))
        spread = np.sqrt(self.own**2 + 1 / images)[:, :, None]
        return images, self.base + season + together + spread * self.rng.normal(size=(t, c, self.coordinates))

    def limits(self) -> Limits:
        """As an alarm would take them from the past."""
        return cell_history.limit_from(cell_history.history(self.past, self.noise, 1), AXES)

    def hour(self, hour, change=None, coordinate=2, factor=None) -> Cells:
        """One later hour, with a shift (c,) in one coordinate and `factor` (c,) times the images of each cell."""
        hours = np.array([PAST_HOURS + hour])
        images, means = self.hours(hours)
        if change is not None:
            means[0, :, coordinate] += change
        if factor is not None:
            images = np.floor(images * factor)
        columns = seasons.supported_design(np.arange(PAST_HOURS + hour + 1))[-1:]
        return cell_history.period(self.past, self.noise, columns, images, means)
