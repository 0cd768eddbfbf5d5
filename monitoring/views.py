"""Does a version's live output still look like its reference? The Drift page."""

from __future__ import annotations

from collections import defaultdict
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
from monitoring import accuracy, alarm_states, references, windows
from monitoring.detectors import confidence_chart, embedding_drift
from monitoring.detectors.base import Live
from monitoring.models import Finding, Purpose, Window
from monitoring.statistics import binned_ks
from monitoring.statistics.charts import attributes

HISTORY = timedelta(minutes=30)  # of D and of the p chart
LABELS_SINCE = timedelta(days=30)
FINDINGS_SHOWN = 20
CHARTED, UNSURE = "below_0.6", "0.3_to_0.6"  # shares of the confidence chart
DETECTOR = embedding_drift.EmbeddingDrift()

Counts = NDArray[np.int64]


@signed_in
def drift(request: HttpRequest, name: str, version: str) -> HttpResponse:
    """How far live embeddings and confidences are from the reference, over the window last looked at."""
    shown = get_object_or_404(ModelVersion.objects.select_related("model"), model__name=name, name=version)
    states = {state.detector: state for state in shown.detector_states.defer("state").order_by("detector")}
    watched = states.get(DETECTOR.name)
    until = (watched.evaluated_until if watched else None) or timezone.now()
    since = until - timedelta(seconds=settings.DRIFT_WINDOW_SECONDS)
    total = windows.total(shown, since, until)
    seen = Live(total.start, total.end, total.n, total.confidence, total.embedding)
    reference = references.load(shown)
    context: dict[str, Any] = {
        "version": shown,
        "states": list(states.values()),
        "watched": watched,
        "reference": reference,
        "total": total,
        "since": since,
        "until": until,
        "accuracy": accuracy.measured(shown, until - LABELS_SINCE, timezone.now()),
        "drifted_above": DETECTOR.hysteresis.drifted_above,
        "minimum_n": DETECTOR.minimum_n,
        "findings": Finding.objects.filter(version=shown)
        .select_related("alert")
        .order_by("-id")[:FINDINGS_SHOWN],
        "control": control(shown, reference, until),
        "alarms": alarm_states.shown(shown),
    }
    if total.confidence.any():
        context["confidence"] = confidence(seen, reference)
    if reference is not None and total.embedding is not None and total.embedding.any():
        context["embedding"] = embedding(seen, reference)
        context["history"] = history(shown, reference, until)
    return live(request, "monitoring/drift.html", "monitoring/_drift.html", context)


def embedding(seen: Live, reference: Bins) -> dict[str, Any]:
    """The components, the furthest first, and both ECDFs of the furthest with the edge of their largest gap."""
    result = embedding_drift.measure(seen, reference)
    found = embedding_drift.ecdf(seen, reference, result["component"])
    gaps = [abs(f - g) for f, g in zip(found["reference"], found["live"], strict=True)]
    widest = gaps.index(max(gaps))
    components = sorted(result["components"], key=lambda row: -row["d"])
    return {
        "components": components,
        "worst": components[0],
        "chart": {
            "reference": _pairs(found["edges"], found["reference"]),
            "live": _pairs(found["edges"], found["live"]),
            "at": [found[key][widest] for key in ("edges", "reference", "live")],
            "d": components[0]["d"],
        },
    }


def _pairs(x: list[float], y: list[float]) -> list[list[float]]:
    return [[round(a, 5), round(b, 5)] for a, b in zip(x, y, strict=True)]


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
        d = float(binned_ks.grid_distance(reference.counts, counts).max())
        points.append([_milliseconds(minute), round(d, 4), int(counts[-1].sum())])
    lines = DETECTOR.hysteresis
    return {
        "points": points,
        "drifted_above": lines.drifted_above,
        "stable_below": lines.stable_below,
        "enough": DETECTOR.minimum_n,
    }


def confidence(seen: Live, reference: Bins | None) -> dict[str, Any]:
    """The histogram of live confidences beside the reference's, and the shares that the detector watches."""
    counts = seen.confidence
    before = reference.confidence_counts if reference is not None else np.zeros_like(counts)
    return {
        "n": int(counts.sum()),
        "reference_n": int(before.sum()),
        "parts": [
            {
                "name": confidence_chart.WORDS[name],
                "live": confidence_chart.share(counts, name) / int(counts.sum()),
                "reference": confidence_chart.share(before, name) / int(before.sum())
                if before.any()
                else None,
            }
            for name in (CHARTED, UNSURE)
        ],
        "chart": {
            "live": _shares(counts),
            "reference": _shares(before) if before.any() else [],
            "unsure": [
                confidence_chart.SHARES[UNSURE].start / 100,
                confidence_chart.SHARES[UNSURE].stop / 100,
            ],
        },
    }


def _shares(counts: Counts) -> list[float]:
    return [round(float(value), 6) for value in counts / int(counts.sum())]


def control(version: ModelVersion, reference: Bins | None, until: datetime) -> dict[str, Any] | None:
    """The p chart of the share of confidences below .6, interval by interval; None without any."""
    counts = windows.intervals(version, until - HISTORY, until)
    points = [(row, int(row.confidence.sum())) for row in counts if row.confidence.any()]
    if not points:
        return None
    expected = None
    if reference is not None:
        expected = confidence_chart.share(reference.confidence_counts, CHARTED) / reference.rows
    events = [confidence_chart.share(row.confidence, CHARTED) for row, _ in points]
    made = attributes.p(events, [n for _, n in points], expected)
    center = float(made.center[0])
    return {
        "outside": int(made.outside.sum()),
        "count": len(points),
        "n": sum(n for _, n in points),
        "center": center,
        "from_reference": reference is not None,
        "chart": {
            "center": round(center, 5),
            "points": [
                [
                    _milliseconds(row.end),
                    round(float(made.value[i]), 5),
                    round(float(made.lower[i]), 5),
                    round(float(made.upper[i]), 5),
                    n,
                    bool(made.outside[i]),
                ]
                for i, (row, n) in enumerate(points)
            ],
        },
    }


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
