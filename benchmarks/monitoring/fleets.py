"""What does a fleet that varies by itself count, hour by hour, and what when something changes?

A stream is one version's hourly counts in the bins of a real reference: 32 components and the residual, 256 bins, from
20,000 Gaussian embeddings, and 100 bins of confidence. Counts of a component are Poisson around n times the bins'
probabilities (given a row's total that is multinomial); components are independent of each other. The probabilities
are those of a normal score that is shifted and widened:
  - by a day's sine of amplitude `daily`, with a phase of its own for every component's mean and spread,
  - by an AR(1) with φ = .9 and the stationary standard deviation `wander`,
  - and by what is to be found (`Change`).
An embedding's spread varies by √½ of it in log standard deviation, which moves the spread's score as a shift moves the
mean's; that of the confidence, which is one variable, by half of this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from davy.reference import Reference
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from monitoring.statistics import binning, projection, scores
from monitoring.statistics.calibration import Series

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]

FIRST_HOUR = 24 * 20_000  # a UTC midnight
IMAGES_AN_HOUR = 10_000
COMPONENTS, DIMENSIONS, REFERENCE_ROWS = 32, 128, 20_000
CORRELATION = 0.9
#: amplitude of the day, and stationary standard deviation of the AR(1), in reference standard deviations
LEVELS = {"none": (0.0, 0.0), "mild": (0.02, 0.01), "moderate": (0.10, 0.03), "strong": (0.30, 0.10)}
CHUNK_HOURS = 24
PROBED_ROWS = 200_000


@dataclass(frozen=True)
class Change:
    """What happens to a fleet: shifts of the mean (rows,) in reference standard deviations, and what is added to the
    bins' probabilities (rows, B), 0 in sum."""

    mean: Numbers | float = 0.0
    mass: Numbers | float = 0.0


@dataclass(frozen=True)
class Kind:
    """One family's bins: the normal score of each row's inner edges, and how counts become scores."""

    family: scores.Family
    edges: Numbers  # (rows, B - 1)
    spread: float  # natural variation in log standard deviation, of that of the mean
    table: Numbers | None  # of the embedding's scores

    @property
    def rows(self) -> int:
        """How many rows are counted."""
        return len(self.edges)

    def probabilities(self, mean: Numbers, log_sd: Numbers) -> Numbers:
        """(m, rows, B) of a normal score with shift `mean` (m, rows) and log standard deviation `log_sd` (m, rows)."""
        below = ndtr((self.edges - mean[:, :, None]) / np.exp(log_sd)[:, :, None])
        return np.diff(below, axis=2, prepend=0.0, append=1.0)

    def scores(self, counts: Counts) -> Numbers:
        """(m, p) of counts (m, rows, B)."""
        if self.table is not None:
            return scores.embedding_scores(self.table, counts)
        return scores.confidence_scores(counts[:, 0])


@dataclass
class Stream:
    """One fleet's natural course of `hours` hours, from which counts are drawn."""

    kind: Kind
    level: str
    hours: int
    rng: np.random.Generator
    course: Numbers = field(init=False)  # (hours, rows, 2): shift, log standard deviation

    def __post_init__(self) -> None:
        daily, wander = LEVELS[self.level]
        shape = (self.kind.rows, 2)
        phase = self.rng.uniform(0, 24, size=shape)
        noise = self.rng.normal(size=(self.hours, *shape))
        noise[1:] *= np.sqrt(1 - CORRELATION**2)
        for hour in range(1, self.hours):
            noise[hour] += CORRELATION * noise[hour - 1]
        clock = np.arange(self.hours)[:, None, None]
        natural = daily * np.sin(2 * np.pi * (clock + phase) / 24) + wander * noise
        self.course = natural * np.array([1.0, self.kind.spread])

    def series(self, start: int, end: int, change: Change = Change()) -> Series:
        """Counted hours [start, end) of the stream, with a change from `start` on, as scores."""
        parts = []
        for begin in range(start, end, CHUNK_HOURS):
            part = self.course[begin : min(begin + CHUNK_HOURS, end)]
            shares = self.kind.probabilities(part[:, :, 0] + change.mean, part[:, :, 1])
            parts.append(self._drawn(shares, change, IMAGES_AN_HOUR))
        return _series(np.arange(start, end), np.concatenate(parts))

    def days(self, start: int, shifts: Numbers) -> Series:
        """Counted days from hour `start` on, each as one, with shifts (days, rows) added to the mean.

        The sum of a day's Poisson counts is Poisson around the mean of its hours' probabilities; every third hour
        stands for three. n is an hour's, on average.
        """
        course = self.course[start : start + 24 * len(shifts)].reshape(len(shifts), 24, self.kind.rows, 2)
        parts = []
        for begin in range(0, len(shifts), CHUNK_HOURS):
            end = begin + CHUNK_HOURS
            hours = [course[begin:end, hour] for hour in range(1, 24, 3)]
            shares = [
                self.kind.probabilities(hour[:, :, 0] + shifts[begin:end], hour[:, :, 1]) for hour in hours
            ]
            parts.append(self._drawn(np.mean(shares, axis=0), Change(), 24 * IMAGES_AN_HOUR))
        return _series(start + 24 * np.arange(len(shifts)), np.concatenate(parts))

    def _drawn(self, shares: Numbers, change: Change, images: int) -> Numbers:
        expected = np.maximum(shares + change.mass, 0.0) * images
        return self.kind.scores(self.rng.poisson(expected))


def _series(hours: Counts, values: Numbers) -> Series:
    return Series(FIRST_HOUR + hours, np.full(len(hours), IMAGES_AN_HOUR), values)


class World:
    """A real reference, and the changes that are found by counting real rows with it."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self._sd = (1 + np.arange(DIMENSIONS)) ** -0.5  # of the embedding's directions
        rows = self._rows(REFERENCE_ROWS)
        mean, components = projection.fit(rows, COMPONENTS)
        blank = Reference.build(
            mean, components, np.zeros((COMPONENTS + 1, 1)), np.zeros((COMPONENTS + 1, 2)), np.zeros(100), 0
        )
        projected = blank.project(rows)
        edges = np.stack([binning.edges(row) for row in projected])
        counts = np.stack([binning.count(row, own) for row, own in zip(projected, edges, strict=True)])
        self.reference = Reference.build(
            mean, components, edges, counts, _confidence_counts(self._rng), REFERENCE_ROWS
        )

    def _rows(self, n: int) -> NDArray[np.float32]:
        return (self._rng.normal(size=(n, DIMENSIONS)) * self._sd).astype(np.float32)

    @cached_property
    def embedding(self) -> Kind:
        """The 33 rows of the reference."""
        counts = self.reference.counts
        return Kind("embedding", _edge_scores(counts), np.sqrt(0.5), scores.score_table(counts))

    @cached_property
    def confidence(self) -> Kind:
        """The one row of confidences."""
        return Kind("confidence", _edge_scores(self.reference.confidence_counts[None]), np.sqrt(0.125), None)

    def cluster(self, share: float) -> Change:
        """`share` of the images come from where the training set has none: in one direction as far off as two standard
        deviations in every dimension are, and a tenth as wide."""
        rows = self._rows(PROBED_ROWS)
        away = self._rng.normal(size=DIMENSIONS)
        centre = 2 * np.sqrt(DIMENSIONS) * self._sd * away / np.linalg.norm(away)
        changed = rows.copy()
        taken = int(share * len(rows))
        changed[:taken] = (centre + 0.1 * rows[:taken]).astype(np.float32)
        return self._difference(rows, changed)

    def rotation(self, degrees: float) -> Change:
        """The covariance alone: every kept direction turned towards a left-out one by so much; means stay."""
        rows = self._rows(PROBED_ROWS)
        turn, changed = np.deg2rad(degrees), rows.copy()
        kept, left = slice(0, COMPONENTS), slice(COMPONENTS, 2 * COMPONENTS)
        changed[:, kept] = np.cos(turn) * rows[:, kept] + np.sin(turn) * rows[:, left]
        changed[:, left] = np.cos(turn) * rows[:, left] - np.sin(turn) * rows[:, kept]
        return self._difference(rows, changed)

    def _difference(self, rows: NDArray[np.float32], changed: NDArray[np.float32]) -> Change:
        """What counting says of the same rows before and after."""
        return Change(mass=(self.reference.count(changed) - self.reference.count(rows)) / len(rows))

    def unsure(self, factor: float) -> Change:
        """The share of confidences below .6 times `factor`; what is above shrinks evenly."""
        shares = self.reference.confidence_counts / self.reference.confidence_counts.sum()
        low = shares[:60].sum()
        rest = (1 - factor * low) / (1 - low)
        changed = np.concatenate([factor * shares[:60], rest * shares[60:]])
        return Change(mass=(changed - shares)[None])


def _confidence_counts(rng: np.random.Generator) -> Counts:
    """Nine images in ten are easy, one is not: about 8 % lie below .6."""
    hard = rng.random(REFERENCE_ROWS) < 0.1
    drawn = np.where(hard, rng.beta(3, 3, REFERENCE_ROWS), rng.beta(14, 1.5, REFERENCE_ROWS))
    return np.bincount(np.minimum((drawn * 100).astype(int), 99), minlength=100)


def _edge_scores(counts: Counts) -> Numbers:
    """(rows, B - 1) normal scores of the inner edges, by the reference's own counts; bins it never filled have none."""
    below = np.cumsum(counts, axis=1)[:, :-1] / counts.sum(axis=1, keepdims=True)
    return np.asarray(ndtri(below), np.float64)
