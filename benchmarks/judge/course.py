"""How does one simulated rollout end? The real judge and the real phases, fed with simulated traffic.

Peeks come with every tick. The judge concludes, and phases.decide is asked, only at peeks where something can
follow: E is a weighted mean over the gates and needs one gate's E at 1/α, and a step is left only with every gate at
e ≥ 20. Nothing is lost by not asking in between, and an hour of peeks costs half. Gates that compare rates
(gates.comparison) are what is looked into for that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.judge.traffic import ArmCounts, Block, Traffic
from rollout import gates, judge, phases
from rollout.gates.base import Arm, GateSpec, GateVerdict, Interval
from rollout.gates.comparison import PASS_AT, ComparisonGate
from rollout.judge import mixture
from rollout.phases import Phase, Position, Seen
from rollout.plan import Plan, Step

CHANGE_MARGIN_SECONDS = 1.0  # an interval that overlaps a weight change by so much is dropped
BLOCK_SECONDS = 120.0
SLACK = 0.05  # in log e: how far below its line a gate may be when the judge is asked anyway
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

GATES = (GateSpec("errors", 0.35), GateSpec("latency", 0.25), GateSpec("confidence", 0.15))
STEPS = (1.0, 5.0, 25.0, 50.0)


def plan(
    steps: tuple[float, ...] = STEPS, specs: tuple[GateSpec, ...] = GATES, dwell_seconds: float = 30.0
) -> Plan:
    """A plan of the given steps and gates with α = 1 %."""
    return Plan("simulated", tuple(Step(weight, dwell_seconds) for weight in steps), specs)


@dataclass(frozen=True)
class Ended:
    """How a rollout ended, with what its canary had been sent until then."""

    outcome: str  # "promoted", "rolled_back" or "time_over"
    gate: str  # that was named for a rollback
    weight_percent: float
    seconds: float  # since the first step was entered
    canary_requests: int
    highest_log_e: float  # of any single gate, before its weight


class Course:
    """One rollout: its traffic, its judge's state and its position.

    by_gates  steps are left as phases.decide says; else each step takes an equal part of the time, so that every
              run is judged for all of it.
    known     what the gates are told of clusters before any evidence: {"assignment", "history"}
    always    conclude at every peek (for the test that nothing is lost otherwise)
    """

    def __init__(
        self,
        traffic: Traffic,
        frozen: Plan,
        *,
        by_gates: bool,
        known: Mapping[str, Any] | None = None,
        always: bool = False,
    ) -> None:
        self._traffic, self._plan, self._by_gates, self._always = traffic, frozen, by_gates, always
        first = frozen.steps[0].weight_percent
        self._at = Position(Phase.RUNNING, 0, first, BEGAN, BEGAN)
        self._state = judge.enter_step(judge.start(frozen.statistical), first)
        if known is not None:
            told = Interval(-1.0, 0.0, Arm(0), Arm(0), known=known)
            for name in judge.unassumed(self._state):
                self._state = judge.absorb(self._state, name, told)
        self._sources = {spec.name: gates.get(spec.name).source for spec in frozen.statistical}
        self._log_e = {name: _log_e(self._state, name) for name in self._sources}
        self._needed = [spec.name for spec in frozen.statistical if spec.required and not spec.dry_run]
        self._changed_tick = 0
        self._dropped_until = -math.inf
        self._highest = 0.0

    def run(self) -> Ended:
        """Until it is promoted, rolled back or the traffic's time is over."""
        traffic, requests = self._traffic, 0
        block: Block | None = None
        for tick in range(traffic.ticks):
            if block is None or tick >= block.end:
                block = self._next_block(tick)
            requests += int(block.canary.n[tick - block.first])
            now = traffic.tick_seconds * (tick + 1)
            self._count(block, tick)
            before = self._at
            self._at = self._decide(now) if self._by_gates else self._keep_time(tick + 1, now)
            if self._at.phase not in phases.JUDGED:
                return self._ended(now, requests)
            if self._at.weight_percent != before.weight_percent:
                self._enter_step(tick + 1, now)
                block = None
        return self._ended(traffic.tick_seconds * traffic.ticks, requests)

    def _next_block(self, tick: int) -> Block:
        size = round(BLOCK_SECONDS / self._traffic.tick_seconds)
        if not self._by_gates:
            size = max(size, self._step_ticks())
        size = max(size, self._traffic.window_ticks)
        return self._traffic.block(tick, size, self._at.weight_percent, self._changed_tick)

    def _step_ticks(self) -> int:
        return -(-self._traffic.ticks // len(self._plan.steps))

    def _count(self, block: Block, tick: int) -> None:
        """Give the router's interval, and the collector's window that ends here, to the gates that read them."""
        seconds, window = self._traffic.tick_seconds, self._traffic.window_ticks
        place = tick - block.first
        arms = [Arm(int(arm.n[place]), int(arm.errors[place])) for arm in (block.canary, block.stable)]
        self._absorb("router", Interval(seconds * tick, seconds * (tick + 1), arms[0], arms[1]))
        began = tick + 1 - window
        if (tick + 1) % window == 0 and began >= block.first and self._traffic.histograms:
            row = began // window - -(-block.first // window)
            canary, stable = _window(block.canary, row), _window(block.stable, row)
            self._absorb("collector", Interval(seconds * began, seconds * (tick + 1), canary, stable))

    def _absorb(self, source: str, interval: Interval) -> None:
        if interval.start < self._dropped_until:
            return
        for name, wanted in self._sources.items():
            if wanted == source:
                self._state = judge.absorb(self._state, name, interval)
                self._log_e[name] = _log_e(self._state, name)
                self._highest = max(self._highest, self._log_e[name][0])

    def _keep_time(self, ticks: int, now: float) -> Position:
        """As decide, but steps are left by the clock."""
        at = self._decide(now)
        last = at.step + 1 == len(self._plan.steps)
        if at.phase in phases.JUDGED and not last and ticks >= (at.step + 1) * self._step_ticks():
            return phases.advance(self._plan, at, _when(now), "the step's share of the time is over")
        return at

    def _decide(self, now: float) -> Position:
        failing = any(fail >= -math.log(self._plan.alpha) - SLACK for fail, _ in self._log_e.values())
        passing = self._by_gates and all(
            self._log_e[name][1] >= math.log(PASS_AT) - SLACK for name in self._needed
        )
        if not (failing or passing or self._always):
            return self._at
        conclusion = judge.conclude(self._state, self._plan.alpha)
        return phases.decide(self._plan, self._at, self._seen(now, conclusion.failed, conclusion.gates))

    def _seen(self, now: float, failed: GateVerdict | None, verdicts: tuple[GateVerdict, ...]) -> Seen:
        """A fleet that does what it is told; gates that do not count are not shown to the phases."""
        return Seen(
            now=_when(now),
            canary_ready=True,
            observed_percent=self._at.weight_percent,
            failed=failed,
            gates=verdicts if self._by_gates else (),
            last_evidence_at=_when(now),
            evidence_since=_when(now),
        )

    def _enter_step(self, tick: int, now: float) -> None:
        self._state = judge.enter_step(self._state, self._at.weight_percent)
        self._log_e = {name: _log_e(self._state, name) for name in self._sources}
        self._changed_tick, self._dropped_until = tick, now + CHANGE_MARGIN_SECONDS

    def _ended(self, seconds: float, requests: int) -> Ended:
        outcome, gate = "time_over", ""
        if self._at.phase is Phase.PROMOTING:
            outcome = "promoted"
        elif self._at.phase is Phase.ROLLING_BACK:
            outcome, gate = "rolled_back", self._at.reason.split(" failed: ", maxsplit=1)[0]
        return Ended(outcome, gate, self._last_weight(), seconds, requests, round(self._highest, 3))

    def _last_weight(self) -> float:
        return self._plan.steps[self._at.step].weight_percent


def with_settings(spec: GateSpec, settings: Mapping[str, Any]) -> GateSpec:
    """The gate with other settings."""
    return replace(spec, settings=settings)


def strict(specs: tuple[GateSpec, ...] = GATES) -> tuple[GateSpec, ...]:
    """The gates with nothing tolerated: an equal canary stands on the null's boundary.

    Latency keeps the 1 ms of rule 12, which is no setting, and what rounding to bins adds.
    """
    nothing: dict[str, float] = {"theta0": 1.0, "delta": 0.0}
    more = {"latency": {"tolerance": 0.0}}
    return tuple(with_settings(spec, {**nothing, **more.get(spec.name, {})}) for spec in specs)


def _log_e(state: dict[str, Any], name: str) -> tuple[float, float]:
    """As judge.log_e, (fail, pass), without the sentence that it would write for people."""
    evidence, gate = state[name]["evidence"], gates.get(name)
    assert isinstance(gate, ComparisonGate)
    return mixture.log_e(evidence["fail"]), gate.log_pass(evidence)


def _window(arm: ArmCounts, row: int) -> Arm:
    latency = tuple(arm.latency[row].tolist())
    return Arm(sum(latency), 0, confidence=tuple(arm.confidence[row].tolist()), latency=latency)


def _when(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)
