"""What is a gate? One question about the canary, answered from both arms' closed intervals. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol


class Verdict(StrEnum):
    """Three answers, never two: not enough data is not fine."""

    PASS = "PASS"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Arm:
    """One arm's counts of one interval. A histogram is None when the source does not count it."""

    n: int
    errors: int = 0
    confidence: tuple[int, ...] | None = None  # 100 bins of .01
    latency: tuple[int, ...] | None = None  # 96 log bins, 0.1 ms to 100 s


@dataclass(frozen=True)
class Interval:
    """Both arms over [start, end), unix seconds. Its identity is (gate, source, start)."""

    start: float
    end: float
    canary: Arm
    stable: Arm


@dataclass(frozen=True)
class GateSpec:
    """A gate as a plan uses it."""

    name: str
    weight: float  # share of α; normalised over the plan's statistical gates
    required: bool = True  # promotion waits for PASS
    dry_run: bool = False  # shown, changes nothing
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GateVerdict:
    """A gate's answer with its numbers. `value` and `bound` are in the gate's own unit (see its reason)."""

    name: str
    verdict: Verdict
    value: float | None
    bound: float | None
    n: int  # canary requests that were evidence
    reason: str
    log_e_fail: float = 0.0
    log_e_pass: float = 0.0
    required: bool = True
    dry_run: bool = False


State = dict[str, Any]  # JSON: numbers, strings, lists and dicts only


class Gate(Protocol):
    """A statistical gate. All methods are pure: a state goes in, a new state comes out."""

    name: ClassVar[str]
    source: ClassVar[str]  # "router" or "collector"
    needs: ClassVar[tuple[str, ...]]  # the fields of Arm besides n that it reads
    default_weight: ClassVar[float]

    def fresh(self, settings: Mapping[str, Any]) -> State:
        """The state before any evidence. Raises ValueError("<key>: …") for a bad setting."""
        ...

    def enter_step(self, state: State, weight_percent: float) -> State:
        """Start the promotion (non-inferiority) process of a step; the rollback process goes on."""
        ...

    def absorb(self, state: State, interval: Interval) -> State:
        """Add one interval's evidence."""
        ...

    def verdict(self, state: State, spec: GateSpec) -> GateVerdict:
        """INCONCLUSIVE, or PASS at e ≥ 20 of the step's non-inferiority. FAIL is the judge's to say."""
        ...

    def failure(self, state: State, spec: GateSpec) -> GateVerdict:
        """The FAIL that the judge gives when E crosses its line, with the numbers since trouble began."""
        ...
