"""What do labels and mirrored requests say about both arms? Evidence that is late, sampled, or both.

Labels: a minute of requests matures `mature_seconds` after it ended. Then, once and for all, its strata (the runs of
whole windows between two changes of the split that both arms have counted) become one Interval, with the labels that
had come by then, whenever this worker looks. Pairs with their truths mature likewise. Pairs to be compared need no
label and are read as they are matched.

    sources["labels"]["cursor"]   end of the last minute of requests that was read
    sources["pairs"]["cursor"]    end of the last interval of matches that was read
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from davy.counting import CONFIDENCE_BINS
from django.db.models import Count, F, Min, Q

from controlplane.models import ModelVersion
from monitoring import accuracy, disagreements, windows
from monitoring.models import Outcome, Prediction, Purpose, ShadowPair
from rollout import gates, golden
from rollout.evidence import sources as evidence
from rollout.evidence.sources import Reading, Sources
from rollout.gates.accuracy import AccuracyGate
from rollout.gates.base import Arm, GateSpec, Interval, Labelled, LabelledStratum, Pairs
from rollout.models import Rollout
from rollout.plan import Plan

LABELS, PAIRS = SOURCES = ("labels", "pairs")
MINUTE = 60.0
MINUTES_A_LOOK = 30  # a worker that was away catches up over some looks
MATCHED_SECONDS = 10.0
MATCHED_GRACE_SECONDS = 5.0  # a match is stored so much after its time, at most
HISTORY_SECONDS = 3600.0
USUAL_WEIGHT = 100.0  # 1/the collectors' default probability, before a draw is known

Span = tuple[float, float]


@dataclass(frozen=True)
class Label:
    """One labelled request."""

    at: float
    weight: float
    wrong: bool


def read(sources: Sources, rollout: Rollout, plan: Plan, now: float) -> tuple[Sources, list[Reading]]:
    """Every minute of labels and every interval of pairs that is closed, for gates that read them, in order."""
    wanted = {gates.source(spec): spec for spec in plan.statistical}
    labels: list[Reading] = []
    pairs: list[Reading] = []
    if rollout.stable is not None and LABELS in wanted:
        sources, labels = _labels(sources, rollout, rollout.stable, wanted[LABELS], now)
    if rollout.stable is not None and PAIRS in wanted:
        sources, pairs = _pairs(sources, rollout, rollout.stable, now)
    return sources, labels + pairs


def _labels(
    sources: Sources, rollout: Rollout, stable: ModelVersion, spec: GateSpec, now: float
) -> tuple[Sources, list[Reading]]:
    began = math.floor(rollout.started_at.timestamp() / MINUTE) * MINUTE
    cursor = float(sources.get("labels", {}).get("cursor", began))
    mature = float(spec.settings.get("mature_seconds", AccuracyGate.defaults["mature_seconds"]))
    readings = []
    for _ in range(MINUTES_A_LOOK):
        end = cursor + MINUTE
        if end + mature > now:
            break
        interval = _matured(sources, rollout.version, stable, (cursor, end), mature)
        readings += [Reading(LABELS, interval)] if interval else []
        cursor = end
    return {**sources, "labels": {"cursor": cursor}}, readings


def _matured(
    sources: Sources, version: ModelVersion, stable: ModelVersion, minute: Span, mature: float
) -> Interval | None:
    """The labels of one minute's requests, and its pairs; None when there is nothing to say."""
    by = _utc(minute[1] + mature)
    strata = _strata(sources, version, stable, minute, by)
    pairs = _truths(version, stable, minute, by)
    if not strata and not pairs.compared:
        return None
    known = pairs.only_canary_wrong + pairs.only_stable_wrong + pairs.both_wrong
    canary, other = (Arm(known + n) for n in _answered(strata))  # labels: for how long were there none?
    return Interval(minute[0] + mature, minute[1] + mature, canary, other, labels=strata, pairs=pairs)


def _strata(
    sources: Sources, version: ModelVersion, stable: ModelVersion, minute: Span, by: datetime
) -> tuple[LabelledStratum, ...]:
    """The minute's strata that are fit to be evidence."""
    requests = [_windows(arm, minute) for arm in (version, stable)]
    runs = split_into_runs(sources, requests[0].keys() & requests[1].keys())
    if not runs:
        return ()
    labels = [_labels_of(arm, minute, by) for arm in (version, stable)]
    weight = _greatest_weight((version, stable), minute[0])
    strata = (
        LabelledStratum(
            f"{_utc(minute[0]):%Y-%m-%dT%H:%M}/{run}",
            canary=count(spans, requests[0], labels[0]),
            stable=count(spans, requests[1], labels[1]),
            max_weight=weight,
        )
        for run, spans in runs.items()
    )
    return tuple(stratum for stratum in strata if is_fit(stratum))


def _answered(strata: Iterable[LabelledStratum]) -> tuple[int, int]:
    """Labels of the canary's answers and of stable's."""
    pairs = [(stratum.canary.labelled, stratum.stable.labelled) for stratum in strata]
    return sum(n for canary, _ in pairs for _, n in canary), sum(n for _, stable in pairs for _, n in stable)


def split_into_runs(sources: Sources, intervals: Iterable[Span]) -> dict[int, list[Span]]:
    """Intervals by the change of the split that they follow; those that touch a change are left out."""
    ended = sorted(to for _, to in sources.get("unsettled", []) if to is not None)
    runs: dict[int, list[Span]] = defaultdict(list)
    for start, end in sorted(intervals):
        if not evidence.touches_change(sources, start, end):
            runs[sum(to <= start for to in ended)].append((start, end))
    return dict(runs)


def count(spans: Sequence[Span], requests: dict[Span, int], labels: Iterable[Label]) -> Labelled:
    """One arm of a stratum: the requests of these intervals that got an answer, and their labels."""
    starts, ends = (np.array(bounds) for bounds in zip(*spans, strict=True))
    wrong: Counter[float] = Counter()
    labelled: Counter[float] = Counter()
    for label in labels:
        place = int(np.searchsorted(starts, label.at, side="right")) - 1
        if place >= 0 and label.at < ends[place]:
            labelled[label.weight] += 1
            wrong[label.weight] += label.wrong
    weights = sorted(labelled)
    return Labelled(
        sum(requests[span] for span in spans),
        tuple((weight, wrong[weight]) for weight in weights),
        tuple((weight, labelled[weight]) for weight in weights),
    )


def is_fit(stratum: LabelledStratum) -> bool:
    """Whether a stratum may be evidence: both arms, no more labels than requests, no weight above what was known.

    Which probabilities a collector uses depends on its load, never on what a label says: leaving the first minute of a
    lower one out does not bias.
    """
    arms = (stratum.canary, stratum.stable)
    return all(
        arm.n > 0
        and sum(n for _, n in arm.labelled) <= arm.n
        and all(weight <= stratum.max_weight for weight, _ in arm.labelled)
        for arm in arms
    )


def _windows(version: ModelVersion, minute: Span) -> dict[Span, int]:
    """Answered live requests by interval. A sample is drawn of these: a failed request has no answer."""
    found = windows.intervals(version, _utc(minute[0]), _utc(minute[1]))
    return {(row.start.timestamp(), row.end.timestamp()): row.n - row.errors for row in found}


def _labels_of(version: ModelVersion, minute: Span, by: datetime) -> list[Label]:
    """Labels of the measure budget that came before `by`: a late look must not see more than a timely one."""
    rows = Outcome.objects.filter(
        version=version,
        sampler=accuracy.SAMPLER,
        inclusion_probability__isnull=False,
        requested_at__gte=_utc(minute[0]),
        requested_at__lt=_utc(minute[1]),
        created_at__lt=by,
    ).values_list("requested_at", "inclusion_probability", "wrong")
    return [Label(at.timestamp(), 1 / probability, wrong) for at, probability, wrong in rows if probability]


def _greatest_weight(versions: Sequence[ModelVersion], before: float) -> float:
    """1/the least probability that was drawn with in the hour before these requests."""
    drawn = Prediction.objects.filter(
        version__in=versions,
        sampler=accuracy.SAMPLER,
        purpose=Purpose.LIVE,
        at__gte=_utc(before - HISTORY_SECONDS),
        at__lt=_utc(before),
    )
    least = drawn.aggregate(least=Min("inclusion_probability"))["least"]
    return max(USUAL_WEIGHT, 1 / least) if least else USUAL_WEIGHT


def _truths(version: ModelVersion, stable: ModelVersion, minute: Span, by: datetime) -> Pairs:
    """The mirrored requests of the minute that were matched, and the truths that came, before `by`."""
    found = disagreements.between(version, stable, *(_utc(at) for at in minute)).filter(matched_at__lt=by)
    known = Q(agreed=False, truth_at__lt=by)
    one, other = known & Q(truth=F("stable_label")), known & Q(truth=F("canary_label"))
    counts = found.filter(agreed__isnull=False, iou__isnull=True).aggregate(
        compared=Count("pk"),
        same=Count("pk", filter=Q(agreed=True)),
        labelled=Count("pk", filter=known),
        canary_wrong=Count("pk", filter=one),
        stable_wrong=Count("pk", filter=other),
    )
    return Pairs(
        only_canary_wrong=counts["canary_wrong"],
        only_stable_wrong=counts["stable_wrong"],
        both_wrong=counts["labelled"] - counts["canary_wrong"] - counts["stable_wrong"],
        compared=counts["compared"],
        agreed=counts["same"],
    )


def _pairs(
    sources: Sources, rollout: Rollout, stable: ModelVersion, now: float
) -> tuple[Sources, list[Reading]]:
    """The pairs of each closed interval of matches; before the first, the golden set that came with the version."""
    began = math.floor(rollout.started_at.timestamp() / MATCHED_SECONDS) * MATCHED_SECONDS
    cursor = float(sources.get("pairs", {}).get("cursor", began))
    closed = math.floor((now - MATCHED_GRACE_SECONDS) / MATCHED_SECONDS) * MATCHED_SECONDS
    readings = []
    posted = None if "pairs" in sources else golden.against(rollout.version, stable)
    if posted is not None:
        readings.append(_reading((began - MATCHED_SECONDS, began), posted))
    if closed > cursor:
        rows = ShadowPair.objects.filter(
            version=rollout.version, stable=stable, matched_at__gte=_utc(cursor), matched_at__lt=_utc(closed)
        ).values_list("matched_at", "agreed", "cosine")
        by_start: dict[float, list[tuple[bool | None, float | None]]] = defaultdict(list)
        for matched_at, agreed, cosine in rows:
            by_start[matched_at.timestamp() // MATCHED_SECONDS * MATCHED_SECONDS].append((agreed, cosine))
        readings += [
            _reading((start, start + MATCHED_SECONDS), compare(found))
            for start, found in sorted(by_start.items())
        ]
        cursor = closed
    return {**sources, "pairs": {"cursor": cursor}}, readings


def compare(found: Sequence[tuple[bool | None, float | None]]) -> Pairs:
    """Pairs (agreed, cosine) as counts; None is what was not compared."""
    answers = [agreed for agreed, _ in found if agreed is not None]
    cosines = [cosine for _, cosine in found if cosine is not None]
    bins = np.clip(np.floor(np.array(cosines) * CONFIDENCE_BINS), 0, CONFIDENCE_BINS - 1).astype(int)
    histogram = tuple(np.bincount(bins, minlength=CONFIDENCE_BINS).tolist()) if cosines else None
    return Pairs(compared=len(answers), agreed=sum(answers), cosine=histogram)


def mirrored(rollout: Rollout, most: int) -> disagreements.Table:
    """The rollout's own pairs, of requests made while it lasted, with up to `most` kinds of disagreement."""
    if rollout.stable is None:
        return disagreements.Table(0, 0, [])
    own = disagreements.between(rollout.version, rollout.stable, rollout.started_at, rollout.ended_at)
    return disagreements.table(own, most)


def _reading(span: Span, pairs: Pairs) -> Reading:
    n = max(pairs.compared, sum(pairs.cosine or ()))
    return Reading(PAIRS, Interval(*span, Arm(n), Arm(n), pairs=pairs))


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)
