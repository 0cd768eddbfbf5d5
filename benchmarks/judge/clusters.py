"""What do errors that come in clusters do to the judge, with and without the dispersion's divisor?

Users stay in an arm (assignment "key"), so a cluster fails in one arm as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.judge.course import plan
from benchmarks.judge.false_alarms import rolled_back
from benchmarks.judge.figures import Row
from benchmarks.judge.known import Known, believed, nothing
from benchmarks.judge.runs import Case, Runner, generator
from benchmarks.judge.traffic import Clusters, World
from benchmarks.judge.weather import draw
from rollout.judge import dispersion
from rollout.judge.dispersion import Assignment

HISTORY_SECONDS, HISTORY_TICK_SECONDS = 3600.0, 10.0
KEY_BUCKETS = 16
USUAL = World(300.0, 0.002)
KINDS = {
    "clusters of 5": Clusters((5,), (1.0,)),
    "clusters of 20": Clusters((20,), (1.0,)),
    "rare giants (.2 % of size 20)": Clusters((1, 20), (0.998, 0.002)),
}


def learnt(rng: np.random.Generator, world: World) -> Known:
    """What an hour of stable's errors by hash bucket of their key teaches, before the rollout."""
    ticks = round(HISTORY_SECONDS / HISTORY_TICK_SECONDS)
    weather = draw(
        rng,
        world.climate,
        ticks=ticks,
        tick_seconds=HISTORY_TICK_SECONDS,
        requests_per_second=world.requests_per_second,
        error_rate=world.error_rate,
    )
    n = rng.poisson(weather.requests)
    sizes, shares = np.array(world.error_clusters.sizes), np.array(world.error_clusters.shares)
    begun = (n * weather.error_rate)[:, None, None] * shares / (sizes * shares).sum() / KEY_BUCKETS
    errors = (rng.poisson(begun, size=(ticks, KEY_BUCKETS, len(sizes))) * sizes).sum(axis=2)
    state = dispersion.fresh()
    for requests, by_bucket in zip(n.tolist(), errors.tolist(), strict=True):
        if sum(by_bucket) <= requests:
            state = dispersion.absorb(state, by_bucket, n=requests, seconds=HISTORY_TICK_SECONDS)
    return {"assignment": Assignment.KEY.value, "history": state}


def clusters(runner: Runner) -> Iterator[Row]:
    """The same model in both arms for an hour; only the errors are evidence."""
    for what, kind in KINDS.items():
        world = replace(USUAL, error_clusters=kind)
        slug = f"clusters-{'-'.join(map(str, kind.sizes))}"
        told = f"{what} (φ {kind.dispersion:.3g}), 60 min"
        blind = Case(slug, (world,), plan(), histograms=False)
        yield rolled_back("clusters", f"{told}, taken one by one", runner.all(blind, 300), None)
        phis = [
            dispersion.estimate(learnt(generator(slug, runner.seed, i), world)["history"], Assignment.KEY).phi
            for i in range(100)
        ]
        low, middle, high = np.quantile(phis, (0.05, 0.5, 0.95))
        knowing = replace(blind, name=f"{slug}-learnt", knows=learnt)
        row = rolled_back("clusters", f"{told}, φ learnt in an hour", runner.all(knowing, 500), 1.0)
        yield replace(row, note=f"{row.note}; φ {middle:.3g}, 5–95 % {low:.3g}–{high:.3g}".strip("; "))
        assuming = replace(blind, name=f"{slug}-assumed", knows=nothing)
        yield rolled_back("clusters", f"{told}, φ assumed 5", runner.all(assuming, 500), None)


def misjudged(runner: Runner) -> Iterator[Row]:
    """φ is believed to be half or twice what it is."""
    for size, phi in ((10, 5.0), (40, 20.0), (5, 10.0)):
        world = replace(USUAL, error_clusters=Clusters((size,), (1.0,)))
        case = Case(f"misjudged-{size}", (world,), plan(), histograms=False, knows=partial(believed, phi))
        what = f"clusters of {size} with φ believed {phi:g}, 60 min"
        yield rolled_back("misjudged", what, runner.all(case, 500), 2.0)


ROWS: dict[str, Callable[[Runner], Iterator[Row]]] = {"clusters": clusters, "misjudged": misjudged}
