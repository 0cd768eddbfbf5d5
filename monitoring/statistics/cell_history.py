"""What is usual in each cell at these hours, and by how much does it vary without a change? PURE.

Nobody tells the noise: the seasons of each cell, its noise and what all cells share are taken from its past hours, and
the limits of an attribution from the same statistic over past periods of the same length. Spreads are robust (medians
of absolute deviations: Rousseeuw & Croux, JASA 88, 1993), so that a few odd hours in the past do not hide a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from monitoring.statistics.attribution import Candidate, Cells, Limits, candidates, moved_share, shifts

Numbers = NDArray[np.float64]
Hours = NDArray[np.int64]

LEVEL = 0.995
TAIL = 0.1  # share of past periods that the tail is fitted to
LEAST_PERIODS = 50  # before which the normal distribution's limit stands in
LEAST_HOURS = 72  # of a cell's past, for a baseline
FAR = 6.0  # standard deviations beyond which an hour of the past is an odd one
MOST_ODD = 0.1  # of a cell's hours; more are its nature
ROUNDING = 1e-9
CUT_SQUARE = 0.913  # mean square of a standard normal variable cut at its 95 % quantile of size, 1.96
LEAST_SPREAD = 1e-12  # variance per image of a coordinate that never moves anywhere
LEAST_REST = 0.05  # share of the images beside a cell that its deviation from all of them is told from
NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


@dataclass(frozen=True)
class Usual:
    """What each of c cells does at each of t past hours, and beyond that; p coordinates, q seasonal columns.

    season    (q, c, p)  coefficients of the cells' mean scores; NaN for a cell with too short a past
    traffic   (q, c)     coefficients of the cells' shares of the images
    residual  (t, c, p)  past hours' mean scores beyond the season; 0 where a cell had no images
    images    (t, c)     past images
    design    (t, q)     the seasonal columns of the past hours
    starts    (t,)       past hours, since 1970
    """

    names: tuple[tuple[str, ...], ...]
    season: Numbers
    traffic: Numbers
    residual: Numbers
    images: Numbers
    design: Numbers
    starts: Hours


@dataclass(frozen=True)
class Noise:
    """Noise of periods of one length.

    per_image  (c, p)  variance of a cell's mean score, times its images
    images     (c,)    a cell's usual images
    common     (p,)    variance of what all cells share
    traffic    (c,)    squared coefficient of variation of a cell's images, beyond that of counting them
    """

    per_image: Numbers
    images: Numbers
    common: Numbers
    traffic: Numbers


def usual(
    names: tuple[tuple[str, ...], ...], starts: Hours, images: Numbers, means: Numbers, design: Numbers
) -> Usual:
    """Fit every cell's seasons by least squares, weighted by images; hours far off in a cell are left out of its fit.

    names   c tuples; starts (t,) hours since 1970, rising, without the alarmed ones; gaps are just missing
    images  (t, c); means (t, c, p), not read where a cell has no images; design (t, q): a column of ones, then seasons
    """
    _, c, p = means.shape
    seen = images > 0
    values = np.where(seen[:, :, None], means, 0.0)
    season = np.full((design.shape[1], c, p), np.nan)
    for cell in range(c):
        if seen[:, cell].sum() >= LEAST_HOURS:
            season[:, cell] = _season(design, values[:, cell], images[:, cell])
    fitted = np.einsum("tq,qcp->tcp", design, np.nan_to_num(season))
    residual = np.where(seen[:, :, None], values - fitted, 0.0)
    total = images.sum(axis=1, keepdims=True)
    shares = np.divide(images, total, out=np.zeros_like(images), where=total > 0)
    traffic = np.linalg.lstsq(design, shares, rcond=None)[0]
    return Usual(names, season, np.asarray(traffic, np.float64), residual, images, design, starts)


def _season(design: Numbers, values: Numbers, images: Numbers) -> Numbers:
    """(q, p) least squares weighted by images, once more without the hours far beyond the first fit."""
    root = np.sqrt(images)[:, None]
    first = np.linalg.lstsq(design * root, values * root, rcond=None)[0]
    beyond = np.abs(values - design @ first) * root
    spread = NORMAL * np.median(beyond[images > 0], axis=0) + ROUNDING * np.abs(values * root).max(axis=0)
    odd = (beyond > FAR * spread).any(axis=1)
    if not 0 < odd.sum() <= MOST_ODD * len(odd):
        return np.asarray(first)
    root = np.where(odd[:, None], 0.0, root)
    return np.asarray(np.linalg.lstsq(design * root, values * root, rcond=None)[0])


def _variance(values: Numbers) -> Numbers:
    """(p,) variance of values (n, p) around 0 that a twentieth of odd ones does not move much.

    The larger of the median's and of the mean square with the largest twentieth cut to the 95 % quantile: the median
    alone is 0 for what is rare, like confidences below .3.
    """
    size = np.abs(values)
    cut = np.minimum(size, np.quantile(size, 0.95, axis=0))
    return np.asarray(np.maximum((NORMAL * np.median(size, axis=0)) ** 2, (cut**2).mean(axis=0) / CUT_SQUARE))


def periods(past: Usual, length: int) -> int:
    """How many whole periods of `length` hours the past holds."""
    return len(_summed(past.design, past.starts, length))


def noise(past: Usual, length: int) -> Noise:
    """The noise of periods of `length` hours.

    Per image: the spread of a cell's deviation from what all cells do, times √images. What all do: the spread of the
    images' mean, less what the cells' own noise makes of it. A cell's spread is at least half of the cells' median: a
    cell that moved less was lucky.
    """
    images, residual = _periods(past, length)
    total = images.sum(axis=1)
    shares = np.divide(images, total[:, None], out=np.zeros_like(images), where=total[:, None] > 0)
    together = np.einsum("tc,tcp->tp", shares, residual)
    c, p = residual.shape[1:]
    per_image, typical = np.ones((c, p)), np.ones(c)
    for cell in range(c):
        seen = images[:, cell] > 0
        if not seen.any():
            continue
        own = (residual[seen, cell] - together[seen]) * np.sqrt(images[seen, cell])[:, None]
        rest = max(1 - float(np.median(shares[seen, cell])), LEAST_REST)
        per_image[cell] = _variance(own) / rest
        typical[cell] = np.median(images[seen, cell])
    per_image = np.maximum(per_image, np.maximum(np.median(per_image, axis=0) / 2, LEAST_SPREAD))
    share = shares.mean(axis=0)
    from_cells = np.einsum("c,cp->p", share**2 / typical, per_image)
    common = _variance(together) - from_cells
    return Noise(per_image, typical, np.maximum(common, 0.0), _traffic_noise(past, images, length))


def _traffic_noise(past: Usual, images: Numbers, length: int) -> Numbers:
    """(c,) squared coefficient of variation of the cells' images around what is usual, less that of counting."""
    expected = _expected_images(past, length)
    ratio = np.divide(images, expected, out=np.ones_like(images), where=expected > 0)
    return np.asarray(np.maximum(_variance(ratio - 1) - 1 / np.maximum(np.median(images, axis=0), 1), 0.0))


def _expected_images(past: Usual, length: int) -> Numbers:
    """(m, c) usual shares times all images, of the past's whole periods."""
    hourly = np.maximum(past.design @ past.traffic, 0.0) * past.images.sum(axis=1, keepdims=True)
    return _summed(hourly, past.starts, length)


def period(past: Usual, of: Noise, design: Numbers, images: Numbers, means: Numbers) -> Cells:
    """The cells of a period of the length that `of` is for.

    design (h, q), images (h, c) and means (h, c, p), not read where there are no images, of its hours
    """
    weight = images.sum(axis=0)
    part = np.divide(images, weight, out=np.zeros_like(images), where=weight > 0)
    mean = np.einsum("hc,hcp->cp", part, np.where(images[:, :, None] > 0, means, 0.0))
    expected = np.einsum("hc,hq,qcp->cp", part, design, past.season)
    traffic = images.sum(axis=1) @ np.maximum(design @ past.traffic, 0.0)
    return _cells(past, of, weight, traffic, mean, expected)


def history(past: Usual, of: Noise, length: int) -> Iterator[Cells]:
    """The past cut into overlapping periods of `length` hours, one per hour at which a whole one ends."""
    images, residual = _periods(past, length)
    traffic = _expected_images(past, length)
    level = np.where(np.isfinite(past.season[0]), np.nan_to_num(past.season[0]), np.nan)
    for at in range(len(images)):
        yield _cells(past, of, images[at], traffic[at], np.nan_to_num(level) + residual[at], level)


def limit_from(past: Iterable[Cells], axes: tuple[str, ...], level: float = LEVEL) -> Limits:
    """Limits that a period without a change stays within, all kinds together, with probability `level`.

    past  periods without an alarm. Each kind's largest |z| has an exponential tail fitted to the upper tenth of the
          periods (peaks over a threshold: Davison & Smith, JRSS-B 52, 1990). Never below what independent normal
          noise would need, and just that where fewer than 50 periods are known; at least one is needed.
    """
    kinds = 2 + len(axes) + (len(axes) > 1)
    rate = (1 - level) / kinds
    largest: list[Numbers] = []
    normal = np.zeros(3 + len(axes))
    known: dict[bytes, list[Candidate]] = {}
    for cells in past:
        mask = cells.known.tobytes()
        if mask not in known:
            known[mask] = candidates(cells.names, cells.known, axes)
            normal = np.maximum(normal, _normal_limits(known[mask], axes, cells, rate))
        largest.append(_largest(cells, known[mask], axes))
    if not largest:
        raise ValueError("no past period to take a limit from")
    found = np.array(largest)
    if len(found) >= LEAST_PERIODS:
        normal = np.maximum(normal, [_tail(column, rate) for column in found.T])
    everywhere, *by_axis, cell, mix = normal.tolist()
    return Limits(everywhere, tuple(by_axis), cell, mix)


def _largest(cells: Cells, sets: list[Candidate], axes: tuple[str, ...]) -> Numbers:
    """(3 + axes,) the largest |z|: everywhere, by axis, of single cells, of the mix; 0 where there is no such set."""
    out = np.zeros(3 + len(axes))
    out[-1] = abs(moved_share(cells, axes)[0])
    if sets:
        z = np.abs(shifts(cells, sets)[0]).max(axis=1, initial=0)
        for one, value in zip(sets, z, strict=True):
            out[_place(one, axes)] = max(out[_place(one, axes)], value)
    return out


def _normal_limits(sets: list[Candidate], axes: tuple[str, ...], cells: Cells, rate: float) -> Numbers:
    """(3 + axes,) limits of the largest of that many independent normal |z|."""
    sizes = np.zeros(3 + len(axes))
    sizes[-1] = len(sets)
    for one in sets:
        sizes[_place(one, axes)] += cells.mean.shape[1]
    return np.asarray(-ndtri(rate / 2 / np.maximum(sizes, 1)))


def _place(candidate: Candidate, axes: tuple[str, ...]) -> int:
    return {"everywhere": 0, "axis": 1 + candidate.axis}.get(candidate.kind, 1 + len(axes))


def _tail(values: Numbers, rate: float) -> float:
    """What values exceed with probability `rate`: exponential beyond their 90 % quantile."""
    threshold = float(np.quantile(values, 1 - TAIL))
    above = values[values > threshold]
    excess = float((above - threshold).mean()) if len(above) else 0.0
    return threshold + excess * float(np.log(TAIL / rate))


def _cells(
    past: Usual, of: Noise, weight: Numbers, traffic: Numbers, mean: Numbers, baseline: Numbers
) -> Cells:
    """A period's noise: by its images, but never less than that of as many as usual (noise that more do not lessen)."""
    counted = np.minimum(np.maximum(weight, 1.0), of.images)
    return Cells(
        past.names, weight, traffic, mean, baseline, of.per_image / counted[:, None], of.common, of.traffic
    )


def _periods(past: Usual, length: int) -> tuple[Numbers, Numbers]:
    """(m, c) images and (m, c, p) mean residuals of the m whole periods of `length` consecutive hours."""
    images = _summed(past.images, past.starts, length)
    sums = _summed(past.residual * past.images[:, :, None], past.starts, length)
    return images, np.divide(sums, images[:, :, None], out=np.zeros_like(sums), where=images[:, :, None] > 0)


def _summed(values: Numbers, starts: Hours, length: int) -> Numbers:
    """Sums over `length` consecutive rows, where these are consecutive hours."""
    if len(starts) < length:
        return values[:0]
    running = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    whole = starts[length - 1 :] - starts[: len(starts) - length + 1] == length - 1
    return np.asarray((running[length:] - running[:-length])[whole])
