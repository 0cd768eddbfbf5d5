"""What is a gate? One question about the canary, answered from both arms' closed intervals. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol, runtime_checkable


class Verdict(StrEnum):
    """Three answers, never two: not enough data is not fine."""

    PASS = "PASS"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Arm:
    """One arm's counts of one interval. What is None its source does not count."""

    n: int
    errors: int = 0
    confidence: tuple[int, ...] | None = None  # 100 bins of .01
    latency: tuple[int, ...] | None = None  # 96 log bins, 0.1 ms to 100 s
    detections: tuple[int, ...] | None = None  # images with 0, 1, … 62, 63 or more objects
    embedding: tuple[tuple[int, ...], ...] | None = None  # (rows, B) in bins of the arm's own reference
    reference: tuple[tuple[int, ...], ...] | None = None  # (rows, B) the reference's own counts in these bins
    reference_digest: str = ""  # of the reference whose bins `embedding` counts in
    errors_by_key_bucket: tuple[int, ...] | None = None  # 16 hash buckets of the key
    segments: Mapping[str, Arm] = field(default_factory=dict)  # the same counts by "device=nano", …


@dataclass(frozen=True)
class Labelled:
    """One arm's ground truth of one stratum: `n` matured requests, labelled or not.

    classes   per inclusion probability (weight, wrong): weight = 1/probability ≥ 1, wrong = labelled and wrong
    labelled  likewise (weight, labelled), in the same order of weights
    """

    n: int
    classes: tuple[tuple[float, int], ...] = ()
    labelled: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class LabelledStratum:
    """Labels of requests of one stratum (split × minute of the *request*), fed once; never pooled."""

    stratum: str
    canary: Labelled
    stable: Labelled
    max_weight: float = 100.0  # 1/least inclusion probability, known before these requests


@dataclass(frozen=True)
class Pairs:
    """Mirrored requests whose two answers were matched: with ground truth, and compared with each other."""

    both_right: int = 0
    only_canary_wrong: int = 0
    only_stable_wrong: int = 0
    both_wrong: int = 0
    compared: int = 0
    agreed: int = 0  # of these, same top-1 label (classification) or boxes that match (detection)
    cosine: tuple[int, ...] | None = None  # 100 bins of .01 of the embeddings' cosine, below 0 in the first


@dataclass(frozen=True)
class Interval:
    """Both arms over [start, end), unix seconds. Its identity is (gate, source, start).

    Of pairs it holds those that were *matched* in it; of labels the strata that *matured* in it, with the pairs of
    the same requests: what comes late keeps the order of intervals.
    """

    start: float
    end: float
    canary: Arm
    stable: Arm
    labels: tuple[LabelledStratum, ...] = ()
    pairs: Pairs | None = None
    aside: bool = False  # only segments and key buckets count: the whole comes from the gate's own source
    known: Mapping[str, Any] | None = None  # no counts, but what Dispersed.assume is told before them


@dataclass(frozen=True)
class GateSpec:
    """A gate as a plan uses it.

    kind  "statistical": takes a share of α and is the judge's; "hold": is asked (rollout.holds), never evidence
    on_fail  what a hold's FAIL does: "hold", or "rollback" (outside α); a statistical FAIL always rolls back
    """

    name: str
    weight: float  # share of α; normalised over the plan's statistical gates
    required: bool = True  # promotion waits for PASS
    dry_run: bool = False  # shown, changes nothing
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "statistical"
    on_fail: str = "hold"
    patience_seconds: float | None = None  # None: the plan's
    segments: str = ""  # a segment key, such as "device": each of its values is judged besides the whole


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
    asks_people: bool = False  # waits for a person: that is not being stuck
    segment: str = ""  # "device=nano" where a FAIL is about one segment only

    @property
    def failed_because(self) -> str:
        """ "errors failed on device=nano: canary 23 of …"."""
        where = f" on {self.segment}" if self.segment else ""
        return f"{self.name} failed{where}: {self.reason}"


State = dict[str, Any]  # JSON: numbers, strings, lists and dicts only


class Gate(Protocol):
    """A statistical gate. All methods are pure: a state goes in, a new state comes out."""

    name: ClassVar[str]
    source: ClassVar[str]  # "router", "collector", "labels" or "pairs"
    needs: ClassVar[tuple[str, ...]]  # the fields of Arm besides n that it reads
    default_weight: ClassVar[float]
    needs_reference: ClassVar[bool]  # a version without a frozen reference cannot have this gate

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


@runtime_checkable
class Dispersed(Protocol):
    """A gate whose events come in clusters, which it measures on the stable arm: see rollout.judge.dispersion."""

    #: The field of Arm that counts its events by hash bucket of their key; "" where nobody counts them.
    events_by_key: ClassVar[str]

    def assume(self, state: State, assignment: str, history: State) -> State:
        """Before any evidence: what the router assigns ("request", "connection", "key"); what the past says."""
        ...

    def note_dispersion(self, state: State, stable: Arm, seconds: float) -> State:
        """Learn from `events_by_key` of one closed interval, for the intervals that are absorbed later."""
        ...


def key_buckets(gate: Gate, stable: Arm) -> tuple[int, ...] | None:
    """The stable arm's events by hash bucket of their key, from which the gate learns; None where it learns nothing."""
    # Dispersed has it; isinstance of a protocol, some thirty times, took a tenth of a tick
    field = getattr(gate, "events_by_key", "")
    counts: tuple[int, ...] | None = getattr(stable, field) if field else None
    return counts
