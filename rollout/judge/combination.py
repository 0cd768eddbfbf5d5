"""Is the canary worse than stable, all gates taken together, and which gate says so?

E = Σ w_m·E_m over the plan's statistical gates, weights normalised; E ≥ 1/α rolls back. By Ville's
inequality P(ever a false rollback) ≤ α whatever the peeking, the ramp or the stopping, and under any
dependence of the gates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rollout import gates as table
from rollout.gates.base import GateSpec, GateVerdict, Interval, State
from rollout.judge import mixture
from rollout.judge.counts import EvidenceError

CLOCK_GRAIN_SECONDS = 1e-3  # two intervals that meet may differ by this much in floating point


@dataclass(frozen=True)
class Judgement:
    """What the evidence so far says. `failed` is the gate named for the rollback, None while E < 1/α."""

    log_e: float
    failed: GateVerdict | None
    gates: tuple[GateVerdict, ...]


def start(gates: Sequence[GateSpec]) -> State:
    """The judge's state before any evidence, JSON throughout.

    Raises UnknownGate, or ValueError("<gate>: …") for a repeated gate, a bad weight or a bad setting.
    """
    state: State = {}
    for spec in gates:
        if spec.name in state:
            raise ValueError(f"{spec.name}: given twice")
        if not math.isfinite(spec.weight) or spec.weight <= 0:
            raise ValueError(f"{spec.name}: weight: {spec.weight} is not a positive share")
        gate = table.get(spec.name)
        try:
            evidence = gate.fresh(spec.settings)
        except ValueError as error:
            raise ValueError(f"{spec.name}: {error}") from error
        state[spec.name] = {"spec": _plain(spec), "until": None, "evidence": evidence}
    return state


def enter_step(state: State, weight_percent: float) -> State:
    """Every gate starts the promotion's process of this step; the rollback's processes go on."""
    return {
        name: {**entry, "evidence": table.get(name).enter_step(entry["evidence"], weight_percent)}
        for name, entry in state.items()
    }


def absorb(state: State, gate_name: str, interval: Interval) -> State:
    """Add one closed interval to one gate's evidence.

    An interval that starts before the end of the last one changes nothing, so replaying never multiplies
    evidence. Raises EvidenceError (a ValueError) for counts that cannot be; the caller holds.
    """
    if gate_name not in state:
        raise ValueError(f"{gate_name}: not a gate of this rollout")
    if not (math.isfinite(interval.start) and interval.start < interval.end < math.inf):
        raise EvidenceError(f"{gate_name}: [{interval.start}, {interval.end}) is not an interval")
    entry = state[gate_name]
    if entry["until"] is not None and interval.start < entry["until"] - CLOCK_GRAIN_SECONDS:
        return state
    evidence = table.get(gate_name).absorb(entry["evidence"], interval)
    return {**state, gate_name: {**entry, "evidence": evidence, "until": interval.end}}


def log_e(state: State, gate_name: str) -> dict[str, float]:
    """One gate's log e-values so far: "fail" before the weighting over gates, "pass" of the present step."""
    if gate_name not in state:
        raise ValueError(f"{gate_name}: not a gate of this rollout")
    evidence = state[gate_name]["evidence"]
    return {"fail": mixture.log_e(evidence["fail"]), "pass": mixture.log_mean(evidence["pass"])}


def conclude(state: State, alpha: float) -> Judgement:
    """Roll back at E ≥ 1/α, naming the gate with the largest w·E. Gates in dry run weigh nothing."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: {alpha} is not between 0 and 1")
    specs = {name: GateSpec(**entry["spec"]) for name, entry in state.items()}
    verdicts = {
        name: table.get(name).verdict(entry["evidence"], specs[name]) for name, entry in state.items()
    }
    whole = sum(spec.weight for spec in specs.values() if not spec.dry_run)
    shares = {
        name: math.log(spec.weight / whole) + verdicts[name].log_e_fail
        for name, spec in specs.items()
        if not spec.dry_run
    }
    combined = float(np.logaddexp.reduce(list(shares.values()))) if shares else 0.0
    line = -math.log(alpha)
    blamed = max(shares, key=shares.__getitem__) if combined >= line else None
    for name, spec in specs.items():
        alone = spec.dry_run and verdicts[name].log_e_fail >= line
        if name == blamed or alone:
            verdicts[name] = table.get(name).failure(state[name]["evidence"], spec)
    return Judgement(combined, None if blamed is None else verdicts[blamed], tuple(verdicts.values()))


def _plain(spec: GateSpec) -> dict[str, Any]:
    """The spec as JSON has it: mappings become dicts."""
    return {**asdict(spec), "settings": _dict(spec.settings)}


def _dict(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _dict(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
