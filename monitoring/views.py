"""Does a version's live output still look like its reference? The Drift page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from davy import wire
from davy.reference import Reference as Bins
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from numpy.typing import NDArray

from controlplane.models import ModelVersion
from controlplane.views import live, signed_in
from monitoring import references, windows
from monitoring.models import Finding, Purpose, Window

HISTORY = timedelta(minutes=30)  # of D over time
FINDINGS_SHOWN = 20
DRIFTED_AT, STABLE_AT = (
    0.2,
    0.15,
)  # lines of the chart, drift.md: alarm above the first, over below the second
LOW, HIGH = 0.3, 0.6  # the band of confidence that is unsure
ENOUGH = 500  # fewer rows decide nothing

Counts = NDArray[np.int64]


@signed_in
def drift(request: HttpRequest, name: str, version: str) -> HttpResponse:
    """Per component how far live embeddings are from the reference, and the confidences against theirs."""
    shown = get_object_or_404(ModelVersion.objects.select_related("model"), model__name=name, name=version)
    states = {state.detector: state for state in shown.detector_states.defer("state").order_by("detector")}
    watched = states.get("embedding_drift")
    until = (watched.evaluated_until if watched else None) or timezone.now()
    since = until - timedelta(seconds=settings.DRIFT_WINDOW_SECONDS)
    total = windows.total(shown, since, until)
    reference = references.load(shown)
    components = component_rows(watched.result if watched else {})
    worst = components[0] if components else None
    context: dict[str, Any] = {
        "version": shown,
        "states": list(states.values()),
        "watched": watched,
        "reference": reference,
        "total": total,
        "since": since,
        "until": until,
        "components": components,
        "worst": worst,
        "findings": Finding.objects.filter(version=shown)
        .select_related("alert")
        .order_by("-at")[:FINDINGS_SHOWN],
        "drifted_at": DRIFTED_AT,
        "charts": {},
    }
    if total.n:
        context["confidence"] = confidence(total.confidence, reference)
    if reference is not None and total.embedding is not None and total.embedding.sum():
        row = worst["index"] if worst else int(grid_distances(reference.counts, total.embedding).argmax())
        context["ecdf"] = ecdf(reference, total.embedding, row)
        context["history"] = history(shown, reference, until)
    return live(request, "monitoring/drift.html", "monitoring/_drift.html", context)


def component_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The components of a detector's latest result, the furthest first."""
    return sorted(result.get("components", []), key=lambda row: -row["d"])


def grid_distances(reference: Counts, live_counts: Counts) -> NDArray[np.float64]:
    """Largest distance of the two ECDFs over the bin edges, (k+1, B) counts each → (k+1,); 0 for an empty row."""
    distances: NDArray[np.float64] = np.abs(_ecdf(reference) - _ecdf(live_counts)).max(axis=1)
    return distances


def _ecdf(counts: Counts) -> NDArray[np.float64]:
    """(k+1, B-1) share of the rows below each inner edge; 0 for an empty row."""
    below = np.cumsum(counts, axis=1)[:, :-1]
    shares: NDArray[np.float64] = below / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def ecdf(reference: Bins, live_counts: Counts, row: int) -> dict[str, Any]:
    """Both ECDFs of one component at the distinct bin edges, and the edge where they are furthest apart."""
    edges = reference.edges[row]
    kept = np.append(np.diff(edges) > 0, True)  # spare edges repeat the last one
    f, g = _ecdf(reference.counts)[row][kept], _ecdf(live_counts)[row][kept]
    edges = edges[kept]
    widest = int(np.abs(f - g).argmax())
    return {
        "component": row,
        "residual": row == len(reference.components),
        "reference": [[round(float(x), 5), round(float(y), 5)] for x, y in zip(edges, f, strict=True)],
        "current": [[round(float(x), 5), round(float(y), 5)] for x, y in zip(edges, g, strict=True)],
        "at": [round(float(edges[widest]), 5), round(float(f[widest]), 5), round(float(g[widest]), 5)],
        "d": round(float(abs(f[widest] - g[widest])), 4),
        "n": int(live_counts[row].sum()),
        "reference_n": int(reference.counts[row].sum()),
    }


def history(version: ModelVersion, reference: Bins, until: datetime) -> dict[str, Any]:
    """The largest distance over all components, minute by minute, with its n; too few rows are marked."""
    shape = reference.counts.shape
    minutes: dict[datetime, Counts] = defaultdict(lambda: np.zeros(shape, np.int64))
    rows = Window.objects.filter(
        version=version,
        purpose=Purpose.LIVE,
        reference_digest=reference.digest,
        start__gte=until - HISTORY,
        end__lte=until,
    )
    for start, packed in rows.values_list("start", "embedding"):
        if packed:
            minutes[start.replace(second=0, microsecond=0)] += wire.unpack(bytes(packed), shape)
    points = []
    for minute, counts in sorted(minutes.items()):
        n = int(counts[-1].sum())
        points.append(
            [
                int(minute.timestamp() * 1000),
                round(float(grid_distances(reference.counts, counts).max()), 4),
                n,
            ]
        )
    return {"points": points, "drifted_at": DRIFTED_AT, "stable_at": STABLE_AT, "enough": ENOUGH}


def confidence(counts: Counts, reference: Bins | None) -> dict[str, Any]:
    """Shares of the 100 confidence bins, live and reference, and the three shares that people talk about."""
    before = reference.confidence_counts if reference is not None else np.zeros_like(counts)
    return {
        "n": int(counts.sum()),
        "reference_n": int(before.sum()),
        "current": _shares(counts),
        "reference": _shares(before) if before.sum() else [],
        "unsure": [LOW, HIGH],
        "parts": [
            {
                "name": name,
                "current": float(counts[part].sum() / max(counts.sum(), 1)),
                "reference": float(before[part].sum() / before.sum()) if before.sum() else None,
            }
            for name, part in _parts()
        ],
    }


def _parts() -> Sequence[tuple[str, slice]]:
    low, high = round(LOW * 100), round(HIGH * 100)
    return (("below .3", slice(0, low)), (".3 to .6", slice(low, high)), (".6 and above", slice(high, None)))


def _shares(counts: Counts) -> list[float]:
    return [round(float(value), 6) for value in counts / max(int(counts.sum()), 1)]
