"""What is a plan? Steps with weights and dwell times, the gates that must pass, and what silence means. PURE."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rollout.gates.base import GateSpec


class PlanError(ValueError):
    """A plan that cannot run; `pointer` is the JSON pointer of the wrong field."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer}: {detail}")
        self.pointer = pointer
        self.detail = detail


@dataclass(frozen=True)
class Step:
    """A weight, and the least time that it is held."""

    weight_percent: float
    dwell_seconds: float = 30.0


@dataclass(frozen=True)
class Shadow:
    """Mirrored traffic before the first step: users get stable's answers only."""

    percent: float  # of live requests
    least_seconds: float = 60.0


@dataclass(frozen=True)
class Plan:
    """A rollout's plan, frozen when the rollout starts."""

    name: str
    steps: tuple[Step, ...]
    gates: tuple[GateSpec, ...]
    alpha: float = 0.01  # most a healthy rollout's chance ever to be rolled back
    patience_seconds: float = 600.0  # how long INCONCLUSIVE or an unready canary may last before a page
    on_silence: str = "hold"  # then "hold" or "rollback"
    watch_seconds: float = 600.0
    keep_warm_seconds: float = 3600.0
    rollback_window_seconds: float = 0.0  # a version that was stable so lately skips steps and analysis
    holdback_percent: float = 0.0  # stays on the old version during the watch, as its concurrent comparison
    on_hand_change: str = "correct"  # a weight that somebody set by hand: "correct" it, or "hold" and page
    shadow: Shadow | None = None  # mirror live requests to the canary before the first step
    number: int = 0  # which edit of a stored plan; 0: a shipped or an inline one

    @property
    def statistical(self) -> tuple[GateSpec, ...]:
        """The gates that share α: the judge's."""
        return tuple(gate for gate in self.gates if gate.kind == "statistical")

    @property
    def holds(self) -> tuple[GateSpec, ...]:
        """The gates that are asked: see rollout.holds."""
        return tuple(gate for gate in self.gates if gate.kind == "hold")

    def to_json(self) -> dict[str, Any]:
        """The plan as it is stored and shown."""
        return asdict(self)


_NUMBERS = {
    "alpha": (1e-6, 0.5),
    "patience_seconds": (1.0, 7 * 86400.0),
    "watch_seconds": (0.0, 7 * 86400.0),
    "keep_warm_seconds": (0.0, 30 * 86400.0),
    "rollback_window_seconds": (0.0, 90 * 86400.0),
    "holdback_percent": (0.0, 50.0),
}
_STEP_KEYS = {"weight_percent", "dwell_seconds"}
_GATE_KEYS = {
    "name",
    "weight",
    "required",
    "dry_run",
    "settings",
    "on_fail",
    "patience_seconds",
    "segments",
}
_PATIENCE = _NUMBERS["patience_seconds"]

CheckGate = Callable[[str, Mapping[str, Any]], str]


def parse(raw: Mapping[str, Any], check_gate: CheckGate) -> Plan:
    """Read a plan and check every field.

    check_gate(name, settings) returns the gate's kind; it raises LookupError for an unknown gate and
    ValueError("<key>: …") for a bad setting.
    Raises PlanError with the pointer of the first wrong field. A final step of 100 % is the promotion itself and
    may be left out.
    """
    allowed = {"name", "steps", "gates", "on_silence", "on_hand_change", "shadow", *_NUMBERS}
    for key in raw:
        if key not in allowed:
            raise PlanError(f"/{key}", f"unknown; known are {', '.join(sorted(allowed))}")
    name = raw.get("name", "inline")
    if not isinstance(name, str) or not 1 <= len(name) <= 63:
        raise PlanError("/name", "1 to 63 characters are needed")
    numbers: dict[str, Any] = {
        key: _number(raw, "", key, *limits) for key, limits in _NUMBERS.items() if key in raw
    }
    steps, gates = _steps(raw.get("steps")), _gates(raw.get("gates"), check_gate)
    _check_before(steps, gates, mirrored=raw.get("shadow") is not None)
    return Plan(
        name,
        steps,
        gates,
        on_silence=_choice(raw, "", "on_silence", ("hold", "rollback")),
        on_hand_change=_choice(raw, "", "on_hand_change", ("correct", "hold")),
        shadow=_shadow(raw.get("shadow")),
        **numbers,
    )


def _choice(raw: Mapping[str, Any], at: str, key: str, choices: tuple[str, ...]) -> str:
    """One of the choices; the first where nothing is said."""
    value = raw.get(key, choices[0])
    if value not in choices:
        raise PlanError(f"{at}/{key}", f"either {' or '.join(choices)}")
    return str(value)


def _shadow(raw: object) -> Shadow | None:
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        raise PlanError("/shadow", "an object is needed")
    for key in raw:
        if key not in ("percent", "least_seconds"):
            raise PlanError(f"/shadow/{key}", "unknown; known are percent, least_seconds")
    if "percent" not in raw:
        raise PlanError("/shadow/percent", "is missing")
    percent = _number(raw, "/shadow", "percent", 0.01, 100)
    return Shadow(
        percent, **{k: _number(raw, "/shadow", k, 0, 86400) for k in ("least_seconds",) if k in raw}
    )


def _number(raw: Mapping[str, Any], at: str, key: str, low: float, high: float) -> float:
    value = raw[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PlanError(f"{at}/{key}", "a number is needed")
    if not low <= value <= high:
        raise PlanError(f"{at}/{key}", f"{value:g} is outside {low:g}–{high:g}")
    return float(value)


def _objects(raw: object, at: str, allowed: set[str]) -> list[dict[str, Any]]:
    if not isinstance(raw, list | tuple) or not raw:
        raise PlanError(at, "a list with at least one entry is needed")
    for i, entry in enumerate(raw):
        if not isinstance(entry, dict):
            raise PlanError(f"{at}/{i}", "an object is needed")
        for key in entry:
            if key not in allowed:
                raise PlanError(f"{at}/{i}/{key}", f"unknown; known are {', '.join(sorted(allowed))}")
    return list(raw)


def _flag(raw: Mapping[str, Any], at: str, key: str, default: bool) -> bool:
    value = raw.get(key, default)
    if not isinstance(value, bool):
        raise PlanError(f"{at}/{key}", "true or false is needed")
    return value


def _steps(raw: object) -> tuple[Step, ...]:
    steps: list[Step] = []
    for i, entry in enumerate(_objects(raw, "/steps", _STEP_KEYS)):
        at = f"/steps/{i}"
        if "weight_percent" not in entry:
            raise PlanError(f"{at}/weight_percent", "is missing")
        weight = _number(entry, at, "weight_percent", 0.01, 100)
        if steps and weight <= steps[-1].weight_percent:
            before = steps[-1].weight_percent
            raise PlanError(
                f"{at}/weight_percent", f"{weight:g} does not rise above the step before ({before:g})"
            )
        dwell = _number(entry, at, "dwell_seconds", 0, 7 * 86400) if "dwell_seconds" in entry else 30.0
        steps.append(Step(weight, dwell))
    if steps[-1].weight_percent == 100:
        steps.pop()
    if not steps:
        raise PlanError(
            "/steps", "at least one step below 100 % is needed: at 100 % there is nothing to compare with"
        )
    return tuple(steps)


def _gates(raw: object, check_gate: CheckGate) -> tuple[GateSpec, ...]:
    gates: list[GateSpec] = []
    for i, entry in enumerate(_objects(raw, "/gates", _GATE_KEYS)):
        at = f"/gates/{i}"
        name, settings = entry.get("name"), entry.get("settings", {})
        if not isinstance(name, str):
            raise PlanError(f"{at}/name", "the name of a gate is needed")
        if name in {gate.name for gate in gates}:
            raise PlanError(f"{at}/name", f"{name} stands twice")
        if not isinstance(settings, dict):
            raise PlanError(f"{at}/settings", "an object is needed")
        gates.append(_gate(entry, at, name, settings, _kind(at, name, settings, check_gate)))
    if not any(gate.required and not gate.dry_run for gate in gates):
        raise PlanError("/gates", "at least one required gate is needed: silence never promotes")
    return tuple(gates)


def _check_before(steps: tuple[Step, ...], gates: tuple[GateSpec, ...], *, mirrored: bool) -> None:
    """A hold that is asked before a weight which no step rises to would never be asked.

    The first step follows from no other, but where live requests are mirrored before it.
    """
    reached = [100.0, *(step.weight_percent for step in (steps if mirrored else steps[1:]))]
    for i, gate in enumerate(gates):
        before = gate.settings.get("before") if gate.kind == "hold" else None
        for j, weight in enumerate(before if isinstance(before, list) else []):
            if isinstance(weight, int | float) and weight not in reached:
                known = ", ".join(f"{w:g}" for w in sorted(reached))
                raise PlanError(
                    f"/gates/{i}/settings/before/{j}", f"no step rises to {weight:g} %; there are {known}"
                )


def _kind(at: str, name: str, settings: Mapping[str, Any], check_gate: CheckGate) -> str:
    try:
        return check_gate(name, settings)
    except LookupError as err:
        raise PlanError(f"{at}/name", str(err.args[0])) from None
    except ValueError as err:
        key, _, detail = str(err).partition(": ")
        raise PlanError(f"{at}/settings/{key}", detail or str(err)) from None


def _gate(entry: Mapping[str, Any], at: str, name: str, settings: Mapping[str, Any], kind: str) -> GateSpec:
    if kind != "hold" and "on_fail" in entry:
        raise PlanError(f"{at}/on_fail", f"{name} is a statistical gate: its FAIL always rolls back")
    segments = entry.get("segments", "")
    if not isinstance(segments, str) or len(segments) > 63:
        raise PlanError(f"{at}/segments", "the name of a segment key, such as device, is needed")
    patience = _number(entry, at, "patience_seconds", *_PATIENCE) if "patience_seconds" in entry else None
    return GateSpec(
        name,
        _number(entry, at, "weight", 0.001, 1000) if "weight" in entry else 1.0,
        required=_flag(entry, at, "required", True),
        dry_run=_flag(entry, at, "dry_run", False),
        settings=settings,
        kind=kind,
        on_fail=_choice(entry, at, "on_fail", ("hold", "rollback")),
        patience_seconds=patience,
        segments=segments,
    )


def load(stored: Mapping[str, Any]) -> Plan:
    """A plan read back from a rollout's row (it was checked when it was frozen)."""
    raw = dict(stored)
    steps = tuple(Step(**step) for step in raw.pop("steps"))
    gates = tuple(GateSpec(**gate) for gate in raw.pop("gates"))
    shadow = raw.pop("shadow", None)
    return Plan(steps=steps, gates=gates, shadow=Shadow(**shadow) if shadow else None, **raw)
