"""JSON about two versions' answers to the same images: disagreements of a rollout, parity on a golden set."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router
from pydantic import Field

from controlplane import audit, http, problems, registry
from controlplane.models import ModelVersion
from monitoring.disagreements import Cell
from monitoring.models import ShadowPair
from rollout import commands, golden
from rollout.evidence.labelled import mirrored

router = Router()

MOST_CELLS = 100


class Parity(http.Body):
    """POST …/parity: a version's answers to a golden set, compared with another version's (by default its parent's)."""

    against: str = ""
    golden_set: str = Field(default="", max_length=255)
    compared: int = Field(ge=1)
    agreed: int = Field(ge=0)
    map_drop_points: float | None = Field(default=None, ge=-100, le=100)


@router.post("/models/{model}/versions/{version}/parity", auth=http.scope("deploy"))
def post_parity(request: HttpRequest, model: str, version: str, body: Parity) -> HttpResponse:
    """Keep a golden set's result with the version; a later one replaces it. Rollouts read it when they start."""
    found = registry.get_version(model, version)
    if body.agreed > body.compared:
        raise problems.field("/agreed", "more_than_compared", f"{body.agreed} of {body.compared} images")
    name = body.against or (found.parent.name if found.parent else "")
    if not name:
        raise problems.field(
            "/against", "missing", f"{found} has no parent: say which version it was compared with"
        )
    against = registry.get_version(model, name, pointer_version="/against")
    if against.pk == found.pk:
        raise problems.field("/against", "itself", "a version always agrees with itself")
    posted = {**body.model_dump(), "against": against.name, "at": timezone.now().isoformat()}
    with transaction.atomic():
        row = ModelVersion.objects.select_for_update(of=("self",)).get(pk=found.pk)
        row.metadata = {**row.metadata, golden.KEY: posted}
        row.save(update_fields=["metadata"])
        audit.record(http.actor(request), "version.parity", str(found), detail=posted)
    return JsonResponse(_parity_json(posted), status=201)


@router.get("/models/{model}/versions/{version}/parity", auth=http.scope("read"))
def get_parity(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """What was posted last."""
    found = registry.get_version(model, version)
    posted = found.metadata.get(golden.KEY)
    if not isinstance(posted, dict):
        raise problems.field("/version", "no_parity", f"no golden set was compared for {found}", status=404)
    return JsonResponse(_parity_json(posted))


def _parity_json(posted: dict[str, Any]) -> dict[str, Any]:
    return {**posted, "agreement": posted["agreed"] / posted["compared"]}


@router.get("/rollouts/{rollout_id}/disagreements", auth=http.scope("read"))
def list_disagreements(request: HttpRequest, rollout_id: int) -> HttpResponse:
    """Label × label counts of the mirrored requests that stable and the canary answered differently, most first.

    Where both labels are known to be right or wrong by now, it says for how many; each kind has its latest examples.
    """
    found = mirrored(commands.find(rollout_id), MOST_CELLS)
    disagreed = found.compared - found.agreed
    return JsonResponse(
        {
            "compared": found.compared,
            "agreed": found.agreed,
            "agreement": found.agreed / found.compared if found.compared else None,
            "disagreed": disagreed,
            "not_shown": disagreed - found.shown,
            "items": [_cell_json(cell) for cell in found.cells],
        }
    )


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "stable": cell.stable,
        "canary": cell.canary,
        "n": cell.n,
        "only_canary_wrong": cell.only_canary_wrong,
        "only_stable_wrong": cell.only_stable_wrong,
        "both_wrong": cell.both_wrong,
        "unlabelled": cell.unlabelled,
        "examples": [_example_json(pair) for pair in cell.examples],
    }


def _example_json(pair: ShadowPair) -> dict[str, Any]:
    return {
        "request_id": pair.request_id,
        "at": pair.at,
        "image": pair.image,
        "segment": pair.segment,
        "stable_confidence": pair.stable_confidence,
        "canary_confidence": pair.canary_confidence,
        "iou": pair.iou,
        "cosine": pair.cosine,
        "truth": pair.truth or None,
    }
