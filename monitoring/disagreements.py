"""On which requests did stable and canary answer differently, and which of the two was right?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Count, F, Q, QuerySet

from controlplane.models import ModelVersion
from monitoring.models import Outcome, ShadowPair

SAMPLER = "disagreement"
EXAMPLES = 3


@dataclass(frozen=True)
class Cell:
    """One cell of the table: stable said this, the canary that; n by who was wrong, as far as there are labels."""

    stable: str
    canary: str
    n: int
    only_canary_wrong: int
    only_stable_wrong: int
    both_wrong: int
    unlabelled: int
    examples: list[ShadowPair] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """All mirrored requests of a period: compared, in agreement, and the disagreements, most frequent first."""

    compared: int
    agreed: int
    cells: list[Cell]

    @property
    def shown(self) -> int:
        """Disagreements in the cells that are shown."""
        return sum(cell.n for cell in self.cells)


def between(
    version: ModelVersion, stable: ModelVersion, since: datetime, until: datetime | None
) -> QuerySet[ShadowPair]:
    """The pairs of requests made in [since, until); None: up to now."""
    pairs = ShadowPair.objects.filter(version=version, stable=stable, at__gte=since)
    return pairs if until is None else pairs.filter(at__lt=until)


def table(pairs: QuerySet[ShadowPair], most: int) -> Table:
    """Label × label counts of up to `most` kinds of disagreement, with the latest EXAMPLES of each."""
    counted = pairs.aggregate(
        compared=Count("pk", filter=Q(agreed__isnull=False)), same=Count("pk", filter=Q(agreed=True))
    )
    truth_is_stable, truth_is_canary = Q(truth=F("stable_label")), Q(truth=F("canary_label"))
    labelled = ~Q(truth="")
    rows = (
        pairs.filter(agreed=False)
        .values("stable_label", "canary_label")
        .annotate(
            n=Count("pk"),
            labelled=Count("pk", filter=labelled),
            only_canary_wrong=Count("pk", filter=labelled & truth_is_stable),
            only_stable_wrong=Count("pk", filter=labelled & truth_is_canary),
        )
        .order_by("-n", "stable_label", "canary_label")[:most]
    )
    return Table(counted["compared"], counted["same"], [_cell(pairs, row) for row in rows])


def _cell(pairs: QuerySet[ShadowPair], row: Mapping[str, Any]) -> Cell:
    labels = {name: row[name] for name in ("stable_label", "canary_label")}
    return Cell(
        stable=row["stable_label"],
        canary=row["canary_label"],
        n=row["n"],
        only_canary_wrong=row["only_canary_wrong"],
        only_stable_wrong=row["only_stable_wrong"],
        both_wrong=row["labelled"] - row["only_canary_wrong"] - row["only_stable_wrong"],
        unlabelled=row["n"] - row["labelled"],
        examples=list(pairs.filter(agreed=False, **labels).order_by("-id")[:EXAMPLES]),
    )


def settle(version: ModelVersion, request_id: str, truth: str, now: datetime) -> None:
    """Keep what the image really shows, and both versions' outcomes; inside the caller's transaction.

    Safe to repeat: the first truth stays.
    """
    pair = ShadowPair.objects.filter(version=version, request_id=request_id).first()
    if pair is None:  # older than what is kept
        return
    if not ShadowPair.objects.filter(pk=pair.pk, truth="").update(truth=truth, truth_at=now):
        return
    arms = (
        ("canary", pair.version_id, pair.canary_label),
        ("stable", pair.stable_id, pair.stable_label),
    )
    Outcome.objects.bulk_create(
        [
            Outcome(
                version_id=version_id,
                request_id=request_id,
                requested_at=pair.at,
                arm=arm,
                wrong=label != truth,
                sampler=SAMPLER,
                inclusion_probability=pair.inclusion_probability,
                created_at=now,
            )
            for arm, version_id, label in arms
        ],
        ignore_conflicts=True,
    )
