"""How soon do the strict forms see a change of a histogram, and paired labels a loss of accuracy?

These forms (rollout.judge.categories, paired) are driven by themselves here, each with its gate's share of α.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.judge.course import GATES
from benchmarks.judge.figures import Row, quantile, rate
from benchmarks.judge.runs import Runner, generator
from benchmarks.judge.traffic import Fault, Traffic, World, tilt_of_ks
from rollout.gates.comparison import PASS_AT, harm_log_e
from rollout.judge import categories, mixture, paired, past
from rollout.judge.half_plane import NON_INFERIORITY

Array = NDArray[np.float64]

ALPHA = 0.01
MEMORY_SECONDS = 120.0
LEAST_PAST = 50.0
WINDOW_SECONDS = 5.0
TAILS = np.array([0.5, 0.25, 0.1, 0.05, 0.01, 0.002])
ODDS = np.array([1.3, 2.0, 5.0])
PLAN_WEIGHT = sum(spec.weight for spec in GATES)
TAIL = Fault(tail_slower=1.25, tail_full=0.9501)
ACCURACY_SHARE = 0.25  # of α, beside the plan's other gates
PAIRS = 20  # that arrive in one interval


class Strict:
    """Form C over one histogram: templates, thresholds and plug-in, each summed from every start time."""

    def __init__(self, ratios: Callable[[Array], Array], bins: int, *, worse_is_high: bool) -> None:
        self._ratios, self._up = ratios, worse_is_high
        self._past, self._canary = past.fresh(bins), past.fresh(bins)
        self._mass: dict[str, Any] = {}

    def absorb(self, canary: Array, stable: Array, at: float) -> None:
        """Weigh one interval by references from before it."""
        seen = past.counts(self._past)
        if seen.sum() >= LEAST_PAST:
            p_ref = categories.reference(seen)
            plug_in = categories.plug_in_ratio(past.counts(self._canary), p_ref)[None]
            found = {
                "templates": categories.log_e(x_c=canary, x_b=stable, p_ref=p_ref, ratio=self._ratios(p_ref)),
                "thresholds": self._thresholds(canary, stable, p_ref),
                "plug_in": categories.log_e(x_c=canary, x_b=stable, p_ref=p_ref, ratio=plug_in),
            }
            for kind, log_e in found.items():
                process = self._mass.get(kind, mixture.fresh(len(log_e)))
                self._mass[kind] = mixture.absorb(process, log_e, at)
        self._past = past.add(self._past, stable, at, MEMORY_SECONDS)
        self._canary = past.add(self._canary, canary, at, 10 * MEMORY_SECONDS)

    def log_e(self) -> float:
        """Of the whole mixture."""
        if not self._mass:
            return 0.0
        combined = categories.log_mixture(
            *(self._mass[k]["log_mass"] for k in ("templates", "thresholds", "plug_in"))
        )
        return mixture.log_e({**self._mass["templates"], "log_mass": [combined]})

    def _thresholds(self, canary: Array, stable: Array, p_ref: Array) -> Array:
        """Form H at the bin edges beyond which the given tails of stable's past lie; nothing tolerated."""
        beyond = _beyond(p_ref, up=self._up)
        edges = np.minimum(np.argmax(beyond <= TAILS[:, None], axis=1), len(p_ref) - 1)
        x_c, x_b = _beyond(canary, up=self._up)[edges], _beyond(stable, up=self._up)[edges]
        base = np.clip(beyond[edges], 1e-6, 1 - 1e-6)
        return harm_log_e((canary.sum(), x_c, stable.sum(), x_b), base, ODDS, 1.0, 0.0)


def _beyond(histogram: Array, *, up: bool) -> Array:
    """(bins + 1,) what lies at or above each edge, or, for tails at the low end, below the edges from the top."""
    ordered = histogram if up else histogram[::-1]
    return np.append(np.cumsum(ordered[::-1])[::-1], 0.0)


def needed(
    rng: np.random.Generator, world: World, kind: str, *, seconds: float, weight_percent: float
) -> float:
    """Canary requests until the strict form alone would roll back; infinity where it does not in time."""
    ticks = round(seconds / WINDOW_SECONDS)
    traffic = Traffic(rng, world, ticks=ticks, tick_seconds=WINDOW_SECONDS, window_ticks=1)
    block = traffic.block(0, ticks, weight_percent, 0)
    ratios = categories.latency_ratios if kind == "latency" else categories.confidence_ratios
    share = next(spec.weight for spec in GATES if spec.name == kind) / PLAN_WEIGHT
    canary, stable = getattr(block.canary, kind).astype(float), getattr(block.stable, kind).astype(float)
    strict = Strict(ratios, canary.shape[1], worse_is_high=kind == "latency")
    for i in range(ticks):
        strict.absorb(canary[i], stable[i], WINDOW_SECONDS * i)
        if strict.log_e() + math.log(share) >= -math.log(ALPHA):
            return float(canary[: i + 1].sum())
    return math.inf


def strict_forms(runner: Runner) -> Iterator[Row]:
    """Form C before small changes, held at 1 % of 1,000 requests/s, windows of 5 s; and before none."""
    cases: tuple[tuple[str, str, World, float | None], ...] = (
        ("latency +10 % all", "latency", World(1000.0, fault=Fault(slower=1.10)), 700),
        ("p99 +25 %", "latency", World(1000.0, fault=Fault(tail_slower=1.25)), 1200),
        ("all beyond the p95 +25 %", "latency", World(1000.0, fault=TAIL), 1200),
        ("all beyond the p95 +25 %, no pauses", "latency", World(1000.0, fault=TAIL, stuck_share=0.0), 1200),
        ("confidence KS .05", "confidence", World(1000.0, fault=Fault(tilt=tilt_of_ks(0.05))), 1000),
    )
    for what, kind, world, most in cases:
        runs = range(runner.wanted(200))
        found = [
            needed(generator(f"strict {what}", runner.seed, i), world, kind, seconds=900, weight_percent=1)
            for i in runs
        ]
        yield quantile("strict", f"{what}, form C: median canary requests", found, 0.5, "requests", most=most)
        yield quantile("strict", f"{what}, form C: p90 canary requests", found, 0.9, "requests")
    for kind in ("latency", "confidence"):
        runs = range(runner.wanted(200))
        found = [
            needed(
                generator(f"strict {kind} a-a", runner.seed, i),
                World(1000.0),
                kind,
                seconds=900,
                weight_percent=(1, 5, 25, 50)[i % 4],
            )
            for i in runs
        ]
        alarms = sum(map(math.isfinite, found))
        yield rate(
            "strict", f"same model, {kind}, form C, 15 min: rolled back", alarms, len(found), most_percent=1.0
        )


def pairs_needed(rng: np.random.Generator, only_canary: float, only_stable: float, most: int) -> float:
    """Labelled pairs until accuracy alone, with its share of α, would roll back."""
    process = mixture.fresh(len(paired.GS))
    counts = rng.multinomial(
        PAIRS, [only_canary, only_stable, 1 - only_canary - only_stable], size=most // PAIRS
    )
    for i, (canary_wrong, stable_wrong, _) in enumerate(counts.tolist()):
        log_e = paired.harm_log_e(only_canary_wrong=canary_wrong, only_stable_wrong=stable_wrong)
        process = mixture.absorb(process, log_e, 10.0 * i)
        if mixture.log_e(process) + math.log(ACCURACY_SHARE) >= -math.log(ALPHA):
            return PAIRS * (i + 1.0)
    return math.inf


def pairs_to_prove(rng: np.random.Generator, one_sided: float, wrong: float, most: int) -> float:
    """Labelled pairs until an equal canary has proven wrong_c ≤ .999·wrong_b + .001 at e ≥ 20."""
    log_e, disagreements = 0.0, 0
    shares = [one_sided, one_sided, wrong - one_sided, 1 - wrong - one_sided]
    counts = rng.multinomial(PAIRS, shares, size=most // PAIRS)
    for i, (canary_wrong, stable_wrong, both_wrong, both_right) in enumerate(counts.tolist()):
        expected = paired.expected_one_sided(disagreements, PAIRS * i)
        log_e += float(
            paired.line_log_e(
                side=NON_INFERIORITY,
                both_right=both_right,
                only_canary_wrong=canary_wrong,
                only_stable_wrong=stable_wrong,
                both_wrong=both_wrong,
                stake=paired.stake(0.001, expected),
                theta0=0.999,
                delta=0.001,
            )
        )
        disagreements += canary_wrong + stable_wrong
        if log_e >= math.log(PASS_AT):
            return PAIRS * (i + 1.0)
    return math.inf


def labels(runner: Runner) -> Iterator[Row]:
    """Paired labels: −.5 point of accuracy, and the 99.9 % rule for an equal canary, at two rates of disagreement."""
    runs = range(runner.wanted(400))
    for differ in (0.01, 0.02):
        only_canary, only_stable = differ / 2 + 0.0025, differ / 2 - 0.0025
        found = [
            pairs_needed(generator(f"pairs {differ}", runner.seed, i), only_canary, only_stable, 100_000)
            for i in runs
        ]
        what = f"accuracy −.5 point, {100 * differ:g} % of pairs differ in being right: median labels"
        yield quantile("labels", what, found, 0.5, "labels", most=8000)
    for differ in (0.005, 0.01):
        found = [
            pairs_to_prove(generator(f"prove {differ}", runner.seed, i), differ / 2, 0.05, 200_000)
            for i in range(runner.wanted(100))
        ]
        what = f"99.9 % rule, equal canary, {100 * differ:g} % of pairs differ in being right: median labels"
        yield quantile("labels", what, found, 0.5, "labels", most=40_000)


ROWS: dict[str, Callable[[Runner], Iterator[Row]]] = {"strict": strict_forms, "labels": labels}
