"""JSON for control charts."""

from __future__ import annotations

from datetime import timedelta

from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Router

from controlplane import http, problems, registry
from monitoring import references, windows
from monitoring.api.asked import asked_of
from monitoring.detectors import confidence_chart
from monitoring.statistics.p_chart import p_chart

router = Router()


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
    asked = asked_of(request, timedelta(hours=1))
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
