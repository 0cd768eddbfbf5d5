"""Is the canary worse than stable, all gates taken together, and which gate says so?

E = Σ w_m·E_m over the plan's statistical gates, weights normalised; E ≥ 1/α rolls back. By Ville's
inequality P(ever a false rollback) ≤ α whatever the peeking, the ramp or the stopping, and under any
dependence of the gates. A gate with segments is a mixture of its own: see segments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rollout import gates as table
from rollout.gates.base import Dispersed, Gate, GateSpec, GateVerdict, Interval, State, key_buckets
from rollout.judge import segments
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
    evidence. One that is `aside` adds its segments and its errors by key, with an order of their own: the gate's
    whole may come from another source. Raises EvidenceError (a ValueError) for counts that cannot be; the caller holds.
    """
    if gate_name not in state:
        raise ValueError(f"{gate_name}: not a gate of this rollout")
    if not (math.isfinite(interval.start) and interval.start < interval.end < math.inf):
        raise EvidenceError(f"{gate_name}: [{interval.start}, {interval.end}) is not an interval")
    entry, gate = state[gate_name], table.get(gate_name)
    if interval.known is not None:
        return {**state, gate_name: _assumed(gate, entry, interval.known)}
    if not interval.aside and _is_new(entry["until"], interval):
        entry = {**entry, "evidence": gate.absorb(entry["evidence"], interval), "until": interval.end}
    return {**state, gate_name: _absorbed_beside(gate, entry, interval)}


def unassumed(state: State) -> list[str]:
    """The gates that want to be told, by an interval with `known`, what the router assigns: see Dispersed."""
    return [
        name
        for name, entry in state.items()
        if entry["evidence"].get("dispersion") is None and isinstance(table.get(name), Dispersed)
    ]


def _is_new(until: float | None, interval: Interval) -> bool:
    return until is None or interval.start >= until - CLOCK_GRAIN_SECONDS


def _assumed(gate: Gate, entry: State, known: Mapping[str, Any]) -> State:
    """The entry of a gate that has been told; once, since later evidence has taught it more."""
    if not isinstance(gate, Dispersed) or entry["evidence"].get("dispersion") is not None:
        return entry
    return {**entry, "evidence": gate.assume(entry["evidence"], known["assignment"], known["history"])}


def _absorbed_beside(gate: Gate, entry: State, interval: Interval) -> State:
    """Segments, then what the interval teaches about clusters: later intervals are weighed by it, this one is not."""
    spec, beside = GateSpec(**entry["spec"]), entry.get("beside", {"until": None, "segments": []})
    parted = bool(spec.segments and interval.canary.segments and interval.stable.segments)
    keyed = key_buckets(gate, interval.stable) is not None
    if not (parted or keyed) or not _is_new(beside["until"], interval):
        return entry
    seen = beside["segments"]
    if parted:
        seen = segments.absorb(gate, spec, seen, interval, entry["evidence"])
    evidence = entry["evidence"]
    if keyed and isinstance(gate, Dispersed):
        evidence = gate.note_dispersion(evidence, interval.stable, interval.end - interval.start)
    return {**entry, "evidence": evidence, "beside": {"until": interval.end, "segments": seen}}


def log_e(state: State, gate_name: str) -> dict[str, float]:
    """One gate's log e-values so far: "fail" before the weighting over gates, "pass" of the present step."""
    if gate_name not in state:
        raise ValueError(f"{gate_name}: not a gate of this rollout")
    verdict = _verdict(gate_name, state[gate_name])
    return {"fail": verdict.log_e_fail, "pass": verdict.log_e_pass}


def conclude(state: State, alpha: float) -> Judgement:
    """Roll back at E ≥ 1/α, naming the gate with the largest w·E. Gates in dry run weigh nothing."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: {alpha} is not between 0 and 1")
    specs = {name: GateSpec(**entry["spec"]) for name, entry in state.items()}
    verdicts = {name: _verdict(name, entry) for name, entry in state.items()}
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
            verdicts[name] = _failure(name, state[name])
    return Judgement(combined, None if blamed is None else verdicts[blamed], tuple(verdicts.values()))


def _verdict(name: str, entry: State) -> GateVerdict:
    """The gate's answer about the whole; its evidence of harm is that of the whole and its segments."""
    found = table.get(name).verdict(entry["evidence"], GateSpec(**entry["spec"]))
    if not entry["spec"]["segments"]:
        return found
    return replace(found, log_e_fail=segments.log_e(found.log_e_fail, _segments(entry)))


def _failure(name: str, entry: State) -> GateVerdict:
    """The FAIL with the numbers of what speaks loudest: the whole, or one segment."""
    gate, spec = table.get(name), GateSpec(**entry["spec"])
    whole = gate.failure(entry["evidence"], spec)
    if not spec.segments:
        return whole
    mixed = segments.log_e(whole.log_e_fail, _segments(entry))
    place = segments.loudest(whole.log_e_fail, _segments(entry))
    if place is None:
        return replace(whole, log_e_fail=mixed)
    label, evidence = _segments(entry)[place]
    told = gate.failure(evidence, spec)
    return replace(told, segment=label, log_e_fail=mixed, log_e_pass=whole.log_e_pass)


def _segments(entry: State) -> segments.Segments:
    found: segments.Segments = entry.get("beside", {"segments": []})["segments"]
    return found


def _plain(spec: GateSpec) -> dict[str, Any]:
    """The spec as JSON has it: mappings become dicts."""
    return {**asdict(spec), "settings": _dict(spec.settings)}


def _dict(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _dict(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
