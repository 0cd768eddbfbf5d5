"""JSON for monitoring: references, telemetry in, drift, charts and accuracy out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router

from controlplane import audit, http, problems, registry
from controlplane.models import ModelVersion
from monitoring import accuracy, bodies, ingest, npz, references, windows
from monitoring.detectors import confidence_chart, embedding_drift
from monitoring.detectors.base import Live
from monitoring.models import DetectorState, Reference
from monitoring.predictions import moment
from monitoring.statistics.p_chart import p_chart

router = Router()

NPZ = "application/x-npz"


@router.put("/models/{model}/versions/{version}/reference", auth=http.scope("deploy"))
def put_reference(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """Freeze the version's reference from an npz of `embeddings`, `confidences` and optional `labels`.

    201 when it is new, 200 for the same content again, 409 for another content, 422 naming the array.
    """
    owner = registry.get_version(model, version)
    try:
        arrays = npz.read(request.body, references.MAXIMUM_UNPACKED_BYTES)
    except ValueError as err:
        raise problems.field("", "not_npz", str(err)) from None
    for name in arrays.keys() - {"embeddings", "confidences", "labels"}:
        raise problems.field(f"/{name}", "unknown_array", f"a reference has no array {name!r}")
    for name in ("embeddings", "confidences"):
        if name not in arrays:
            raise problems.field(f"/{name}", "missing", f"the npz has no array {name!r}")
    with transaction.atomic():
        reference, created = references.freeze(owner, **arrays)
        if created:
            audit.record(
                http.actor(request), "reference.freeze", str(owner), detail=_reference_json(reference)
            )
    return JsonResponse(_reference_json(reference), status=201 if created else 200)


@router.get("/models/{model}/versions/{version}/reference", auth=http.scope("read", "telemetry"))
def get_reference(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """The reference's numbers, or with `Accept: application/x-npz` the arrays that a collector counts with."""
    owner = registry.get_version(model, version)
    reference = Reference.objects.filter(version=owner).first()
    if reference is None:
        raise problems.field("/version", "no_reference", f"{owner} has no reference", status=404)
    if request.headers.get("Accept", "").partition(";")[0].strip() == NPZ:
        response = HttpResponse(bytes(reference.data), content_type=NPZ)
    else:
        response = JsonResponse(_reference_json(reference) | {"created_at": reference.created_at})
    response["ETag"] = f'"{reference.digest}"'
    return response


def _reference_json(reference: Reference) -> dict[str, Any]:
    return {
        "rows": reference.rows,
        "dimensions": reference.dimensions,
        "components": reference.components,
        "bins": reference.bins,
        "max_bin_mass": reference.max_bin_mass,
        "digest": reference.digest,
    }


@router.post("/telemetry/windows", auth=http.scope("telemetry"))
def post_windows(request: HttpRequest) -> HttpResponse:
    """Store a collector's report (msgpack), once per (reporter, sequence); 202 after the commit.

    While requests are mirrored to or from this version the answer holds `shadow_share`: what share to sample.
    """
    answer = ingest.store_report(_body(request), timezone.now())
    body = {"accepted": answer.accepted, "duplicate": answer.duplicate}
    if answer.shadow_share:
        return JsonResponse({**body, "shadow_share": answer.shadow_share}, status=202)
    return JsonResponse(body, status=202)


@router.post("/telemetry/predictions", auth=http.scope("telemetry"))
def post_predictions(request: HttpRequest) -> HttpResponse:
    """Store up to 10,000 predictions (JSON, NDJSON or msgpack): good rows are kept, bad ones are listed."""
    rows = bodies.rows(_body(request), request.headers.get("Content-Type", ""), ingest.MAX_ROWS)
    return JsonResponse(asdict(ingest.store_predictions(rows, timezone.now())), status=202)


def _body(request: HttpRequest) -> bytes:
    return bodies.inflate(
        request.body, request.headers.get("Content-Encoding", "").lower(), settings.MAX_BODY_BYTES
    )


@dataclass(frozen=True)
class Asked:
    """What `?from&to&segment.<name>=<value>` asks for."""

    since: datetime
    until: datetime
    segment: Mapping[str, str]

    def live(self, version: ModelVersion) -> tuple[Live, windows.Total]:
        """The version's windows of that period and segment, added up."""
        total = windows.total(version, self.since, self.until, segment=self.segment)
        return Live(total.start, total.end, total.n, total.confidence, total.embedding), total

    def json(self) -> dict[str, Any]:
        """What was asked, to stand beside the numbers."""
        return {"asked": {"from": self.since, "to": self.until, "segment": self.segment}}


def _asked(request: HttpRequest, default: timedelta) -> Asked:
    until = _time(request, "to", timezone.now())
    since = _time(request, "from", until - default)
    if since >= until:
        raise problems.field("/from", "bad_period", "from must be before to")
    segment = {
        name.removeprefix("segment."): str(value)
        for name, value in request.GET.items()
        if name.startswith("segment.") and name != "segment."
    }
    return Asked(since, until, segment)


def _time(request: HttpRequest, name: str, default: datetime) -> datetime:
    text = request.GET.get(name)
    if text is None:
        return default
    try:
        found = moment(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValueError as err:
        raise problems.field(f"/{name}", "bad_time", f"{name}={text!r}: {err}") from None
    if not 1970 < found.year < 2100:
        raise problems.field(f"/{name}", "bad_time", f"{name}={text!r} is not between 1970 and 2100")
    return found.astimezone(UTC)


def _state_json(version: ModelVersion, detector: str) -> dict[str, Any]:
    """The detector's own answer, which is about all segments and the sliding window that it last looked at."""
    state = DetectorState.objects.filter(version=version, detector=detector).first()
    return {
        "model": version.model.name,
        "version": version.name,
        "detector": detector,
        "status": state.status if state else DetectorState.Status.TOO_FEW,
        "reason": state.reason if state else "no detector has looked at this version yet",
        "evaluated_until": state.evaluated_until if state else None,
    }


@router.get("/models/{model}/versions/{version}/drift", auth=http.scope("read"))
def get_drift(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """The detector's answer, and the numbers of a period: by default the sliding window that ends now.

    `worst` holds both ECDFs of the furthest component at the bin edges.
    """
    owner = registry.get_version(model, version)
    asked = _asked(request, _sliding())
    live, _ = asked.live(owner)
    bins = references.load(owner)
    body = {**_state_json(owner, embedding_drift.EmbeddingDrift.name), **asked.json()}
    if bins is None:
        return JsonResponse({**body, "n": 0, "reference": None, "components": [], "worst": None})
    result = embedding_drift.measure(live, bins)
    return JsonResponse(
        {
            **body,
            **result,
            "reference": {"rows": bins.rows, "digest": bins.digest},
            "worst": embedding_drift.ecdf(live, bins, result["component"]),
        }
    )


@router.get("/models/{model}/versions/{version}/confidence", auth=http.scope("read"))
def get_confidence(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """Histogram of live confidences (100 bins of .01) beside the reference's, and the shares that are watched."""
    owner = registry.get_version(model, version)
    asked = _asked(request, _sliding())
    live, total = asked.live(owner)
    bins = references.load(owner)
    measured = (
        confidence_chart.measure(live, bins) if bins else {"n": int(live.confidence.sum()), "shares": []}
    )
    return JsonResponse(
        {
            **_state_json(owner, confidence_chart.ConfidenceChart.name),
            **asked.json(),
            "from": total.start,
            "to": total.end,
            "requests": total.n,
            "errors": total.errors,
            **measured,
            "counts": live.confidence.tolist(),
            "reference_counts": bins.confidence_counts.tolist() if bins else None,
        }
    )


@router.get("/models/{model}/versions/{version}/spc/{chart}", auth=http.scope("read"))
def get_chart(request: HttpRequest, model: str, version: str, chart: str) -> HttpResponse:
    """A control chart, one point per interval: chart `p`, of `?share=below_0.6` (default) or `0.3_to_0.6`.

    The centre is the reference's share; without a reference that of all points.
    """
    owner = registry.get_version(model, version)
    if chart != "p":
        raise problems.field("/chart", "unknown_chart", f"no chart {chart!r}; there is 'p'", status=404)
    name = request.GET.get("share", "below_0.6")
    if name not in confidence_chart.SHARES:
        raise problems.field(
            "/share", "unknown_share", f"no share {name!r}; {', '.join(confidence_chart.SHARES)}"
        )
    asked = _asked(request, timedelta(hours=1))
    counts = windows.intervals(owner, asked.since, asked.until, segment=asked.segment)
    points = [(row, int(row.confidence.sum())) for row in counts if row.confidence.any()]
    bins = references.load(owner)
    head = {"model": model, "version": version, "chart": chart, "share": name, "sigmas": 3.0, **asked.json()}
    if not points:
        return JsonResponse({**head, "n": 0, "center": None, "points": []})
    center = confidence_chart.share(bins.confidence_counts, name) / bins.rows if bins else None
    events = [confidence_chart.share(row.confidence, name) for row, _ in points]
    made = p_chart(events, [n for _, n in points], center)
    return JsonResponse(
        {
            **head,
            "n": sum(n for _, n in points),
            "center": made.center,
            "center_from": "reference" if bins else "points",
            "points": [
                {
                    "from": row.start,
                    "to": row.end,
                    "n": n,
                    "share": float(made.share[index]),
                    "lower": float(made.lower[index]),
                    "upper": float(made.upper[index]),
                    "outside": bool(made.outside[index]),
                }
                for index, (row, n) in enumerate(points)
            ],
        }
    )


@router.get("/models/{model}/versions/{version}/accuracy", auth=http.scope("read"))
def get_accuracy(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """Accuracy from *measure* labels of requests in the period (by default 30 days), with its 95 % interval."""
    owner = registry.get_version(model, version)
    asked = _asked(request, timedelta(days=30))
    found = accuracy.measured(owner, asked.since, asked.until, asked.segment)
    return JsonResponse(
        {
            "model": model,
            "version": version,
            **asked.json(),
            **asdict(found),
            "confidence": 0.95,
            "method": "Hájek estimate; Wilson interval at the effective sample size",
        }
    )


def _sliding() -> timedelta:
    return timedelta(seconds=settings.DRIFT_WINDOW_SECONDS)
