"""What does one tick of one rollout cost the judge?"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.judge.course import GATES
from benchmarks.judge.figures import Row, quantile
from benchmarks.judge.runs import Runner, generator
from benchmarks.judge.traffic import Traffic, World
from rollout import judge
from rollout.gates.base import Arm, Interval

TICKS = 400
TICK_SECONDS = 5.0
ALPHA = 0.01


def intervals(runner: Runner) -> list[Interval]:
    """Five seconds each at 1,000 requests/s and 25 %, with everything that the gates read."""
    rng = generator("cost", runner.seed, 0)
    traffic = Traffic(rng, World(1000.0), ticks=TICKS, tick_seconds=TICK_SECONDS, window_ticks=1)
    block = traffic.block(0, TICKS, 25.0, 0)
    arms = [
        [
            Arm(int(n), int(x), confidence=tuple(c.tolist()), latency=tuple(s.tolist()))
            for n, x, c, s in zip(arm.n, arm.errors, arm.confidence, arm.latency, strict=True)
        ]
        for arm in (block.canary, block.stable)
    ]
    return [
        Interval(TICK_SECONDS * i, TICK_SECONDS * (i + 1), canary, stable)
        for i, (canary, stable) in enumerate(zip(*arms, strict=True))
    ]


def cost(runner: Runner) -> Iterator[Row]:
    """Processor time of this thread, per tick with new evidence for every gate."""
    state = judge.enter_step(judge.start(GATES), 25.0)
    judged, stored = [], []
    for interval in intervals(runner):
        began = time.thread_time_ns()
        state = _tick(state, interval)
        done = time.thread_time_ns()
        state = json.loads(json.dumps(state))
        judged.append((done - began) / 1e6)
        stored.append((time.thread_time_ns() - done) / 1e6)
    whole = [a + b for a, b in zip(judged, stored, strict=True)]
    what = f"{len(GATES)} gates absorb an interval each, and the conclusion"
    yield quantile("cost", f"{what}: median", judged, 0.5, "ms CPU", most=2.0)
    yield quantile("cost", f"{what}: p99", judged, 0.99, "ms CPU", most=2.0)
    yield quantile("cost", "the same with the state to JSON and back: median", whole, 0.5, "ms CPU", most=2.0)
    mean = float(np.mean(whole))
    share = 100 * mean / 1e3 * 1000 / TICK_SECONDS
    what = "1,000 rollouts at 5 s ticks, judge and JSON alone (no database): share of one core"
    yield Row("cost", what, share, None, None, "%", 100.0, TICKS)


def _tick(state: dict[str, Any], interval: Interval) -> dict[str, Any]:
    for spec in GATES:
        state = judge.absorb(state, spec.name, interval)
    judge.conclude(state, ALPHA)
    return state


ROWS: dict[str, Callable[[Runner], Iterator[Row]]] = {"cost": cost}
