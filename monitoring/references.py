"""What does a version's normal output look like? Freeze it; read it back.

A version's references are numbered and one is in force. A first one is in force at once; another is proposed until a
person approves it (`approve`), because a changed baseline hides whatever drifted before.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
from davy import counting, wire
from davy.reference import (
    BLOCK_ROWS,
)  # the same blocks as in counting: float32 products differ between shapes
from davy.reference import Reference as Bins
from django.db import transaction
from django.db.models import Max
from numpy.typing import NDArray

from controlplane import problems
from controlplane.models import ModelVersion
from monitoring.models import Reference
from monitoring.statistics import binning, projection
from monitoring.statistics.natural_variation import natural_variation

MINIMUM_ROWS = 100  # with fewer, chance alone moves a KS distance by .2
MAXIMUM_DIMENSIONS = 4096  # a covariance of float64 in 128 MiB
MAXIMUM_UNPACKED_BYTES = 512 * 2**20  # of an uploaded npz
MAXIMUM_HOURS = 24 * 92  # that one reference may span: 64 KiB of counts each
HOUR_SECONDS = 3600
ARRAYS = ("embeddings", "confidences", "labels", "predictions", "detections", "times")  # of an npz
MAX_TIME = 4_102_444_800.0  # the year 2100, in unix seconds
ACTIVE, PROPOSED, RETIRED = Reference.State.ACTIVE, Reference.State.PROPOSED, Reference.State.RETIRED

Array = NDArray[Any]


@dataclass(frozen=True)
class Shape:
    """The shape (rows = k + 1, bins) of counts in the bins of the reference with this digest; is it in force?"""

    digest: str
    rows: int
    bins: int
    active: bool = True


@dataclass(frozen=True)
class Extras:
    """What a reference knows beyond its bins; b"" where it was not told.

    variation         float32 (2(k+1),): see statistics.natural_variation; NaN where it is not known
    correct           packed (2, 100): right answers, and all, by confidence bin
    detection_counts  packed (64,) images by number of detections
    """

    variation: bytes = b""
    correct: bytes = b""
    detection_counts: bytes = b""


def freeze(
    version: ModelVersion,
    embeddings: Array,
    confidences: Array,
    *,
    labels: Array | None = None,
    predictions: Array | None = None,
    detections: Array | None = None,
    times: Array | None = None,
    source: Reference.Source = Reference.Source.FILE,
    detail: dict[str, Any] | None = None,
) -> tuple[Reference, bool]:
    """Make and store a reference of the version; returns it and whether it is new.

    embeddings   (n, d) float16 or float32, n ≥ MINIMUM_ROWS
    confidences  (n,) floats in [0, 1]
    labels, predictions  (n,) the truth and the model's answer, of one kind: how often is each confidence right
    detections   (n,) objects found in each image
    times        (n,) unix seconds: how much hours vary
    Problems name the array: wrong type, shape, length or values 422. `detail` says where it came from.
    """
    _check(embeddings, confidences)
    _check_extras(len(embeddings), labels, predictions, detections, times)
    known = Reference.objects.filter(version=version).values_list("dimensions", flat=True).first()
    if known is not None and known != embeddings.shape[1]:
        raise problems.field(
            "/embeddings",
            "wrong_dimension",
            f"{embeddings.shape[1]} dimensions, {version} has references of {known}",
        )
    bins = measure(embeddings, confidences)
    extras = Extras(
        b"" if times is None else _variation(bins, embeddings, times),
        b"" if labels is None or predictions is None else _correct(confidences, labels == predictions),
        b"" if detections is None else wire.pack(counting.count_detections(detections)),
    )
    return store(version, bins, extras, source, detail or {})


def store(
    version: ModelVersion, bins: Bins, extras: Extras, source: Reference.Source, detail: dict[str, Any]
) -> tuple[Reference, bool]:
    """The version's reference of these arrays, and whether it is new: the first is in force, others are proposed.

    What a known one was not told yet is added to it; 409 when it was told otherwise.
    """
    with transaction.atomic():
        ModelVersion.objects.select_for_update(no_key=True).get(pk=version.pk)  # numbers are given one by one
        numbered = Reference.objects.filter(version=version)
        known = numbered.filter(digest=bins.digest).first()
        if known is not None:
            _tell(known, extras)
            return known, False
        last = numbered.aggregate(last=Max("number"))["last"] or 0
        created = Reference.objects.create(
            version=version,
            number=last + 1,
            state=PROPOSED if last else ACTIVE,
            source=source,
            source_detail=detail,
            rows=bins.rows,
            dimensions=bins.dimensions,
            components=len(bins.components),
            bins=bins.bins,
            max_bin_mass=_max_bin_mass(bins),
            digest=bins.digest,
            data=bins.to_npz(),
            variation=extras.variation,
            correct=extras.correct,
            detection_counts=extras.detection_counts,
        )
    return created, True


def _tell(known: Reference, extras: Extras) -> None:
    """Add to a reference what it does not know yet."""
    news = {
        name: value for name, value in vars(extras).items() if value and bytes(getattr(known, name)) != value
    }
    if any(getattr(known, name) for name in news):
        raise problems.field(
            "",
            "reference_differs",
            f"{known} has the same embeddings with other {', '.join(news)}",
            status=409,
        )
    if news:
        Reference.objects.filter(pk=known.pk).update(**news)


def approve(version: ModelVersion, number: int, by: str, reason: str, now: datetime) -> Reference:
    """Put a proposed reference, or a retired one again, in force; the one before is retired.

    What was counted with any of a version's references stays good; detectors look only at the one in force.
    """
    if not reason.strip():
        raise problems.field("/reason", "missing", "a changed baseline needs a reason")
    with transaction.atomic():
        ModelVersion.objects.select_for_update(no_key=True).get(pk=version.pk)
        reference = find(version, number)
        if reference.state == ACTIVE:
            raise problems.Problem(409, "already_active", f"{reference} is in force")
        Reference.objects.filter(version=version, state=ACTIVE).update(state=RETIRED)
        reference.state, reference.approved_by = ACTIVE, by
        reference.approved_at, reference.reason = now, reason.strip()
        reference.save(update_fields=["state", "approved_by", "approved_at", "reason"])
    return reference


def find(version: ModelVersion, number: int) -> Reference:
    """The version's reference of that number; a 404 problem when it has none."""
    reference = Reference.objects.filter(version=version, number=number).first()
    if reference is None:
        raise problems.field("/number", "no_reference", f"{version} has no reference {number}", status=404)
    return reference


def measure(embeddings: NDArray[Any], confidences: NDArray[Any]) -> Bins:
    """Projection, bins and counts of valid rows. Deterministic on one machine; PURE."""
    mean, components = projection.fit(embeddings)
    rows = len(components) + 1
    unbinned = Bins.build(
        mean, components, np.zeros((rows, 1)), np.zeros((rows, 2)), np.zeros(counting.CONFIDENCE_BINS), 0
    )
    blocks = [
        unbinned.project(embeddings[start : start + BLOCK_ROWS])
        for start in range(0, len(embeddings), BLOCK_ROWS)
    ]
    projected = np.concatenate(blocks, axis=1)
    edges = np.stack([binning.edges(row) for row in projected])
    counts = np.stack([binning.count(row, inner) for row, inner in zip(projected, edges, strict=True)])
    return Bins.build(
        mean, components, edges, counts, counting.count_confidence(confidences), rows=len(embeddings)
    )


def _max_bin_mass(bins: Bins) -> float:
    """The heaviest bin's share of the reference: how wide the bounds of D may be. With as many components as
    dimensions nothing is left out, and the last row, all zero, does not count."""
    rows = bins.counts[: bins.dimensions]
    return float((rows.max(axis=1) / rows.sum(axis=1)).max())


def _variation(bins: Bins, embeddings: Array, times: Array) -> bytes:
    """Natural variation of rows (n, d) at `times` (n,) unix seconds, as bytes."""
    hours, places = np.unique(np.asarray(times, np.float64) // HOUR_SECONDS, return_inverse=True)
    if len(hours) > MAXIMUM_HOURS:
        raise problems.field("/times", "out_of_range", f"{len(hours)} hours, at most {MAXIMUM_HOURS}")
    order = np.argsort(places, kind="stable")
    cuts = np.searchsorted(places[order], np.arange(1, len(hours)))
    counts = np.stack([bins.count(embeddings[rows]) for rows in np.split(order, cuts)])
    return natural_variation(bins.counts, counts).astype("<f4").tobytes()


def _correct(confidences: Array, right: Array) -> bytes:
    counts = [counting.count_confidence(confidences[right]), counting.count_confidence(confidences)]
    return wire.pack(np.stack(counts))


def _check(embeddings: Array, confidences: Array) -> None:
    if embeddings.dtype not in (np.float16, np.float32) or embeddings.ndim != 2:
        raise problems.field(
            "/embeddings",
            "wrong_shape",
            f"{embeddings.dtype} {embeddings.shape}, want (n, d) float16 or float32",
        )
    n, d = embeddings.shape
    if not 1 <= d <= MAXIMUM_DIMENSIONS:
        raise problems.field("/embeddings", "wrong_shape", f"{d} dimensions, want 1 to {MAXIMUM_DIMENSIONS}")
    if n < MINIMUM_ROWS:
        raise problems.field("/embeddings", "too_few_rows", f"{n} rows, a reference needs {MINIMUM_ROWS}")
    if not np.isfinite(embeddings).all():
        raise problems.field("/embeddings", "not_finite", "a value is NaN or infinite")
    if float(np.abs(embeddings).max()) > 1e15:
        raise problems.field("/embeddings", "out_of_range", "a value is beyond 1e15; its square overflows")
    if confidences.dtype.kind != "f" or confidences.shape != (n,):
        raise problems.field(
            "/confidences", "wrong_shape", f"{confidences.dtype} {confidences.shape}, want ({n},) floats"
        )
    if not np.isfinite(confidences).all():
        raise problems.field("/confidences", "not_finite", "a value is NaN or infinite")
    if not ((confidences >= 0) & (confidences <= 1)).all():
        raise problems.field("/confidences", "out_of_range", "a value is not in [0, 1]")


def _check_extras(
    n: int, labels: Array | None, predictions: Array | None, detections: Array | None, times: Array | None
) -> None:
    given = {"labels": labels, "predictions": predictions, "detections": detections, "times": times}
    for name, array in given.items():
        if array is not None and array.shape != (n,):
            raise problems.field(f"/{name}", "wrong_shape", f"{array.shape}, want ({n},)")
    if predictions is not None:
        if labels is None:
            raise problems.field("/labels", "missing", "whether predictions are right needs labels")
        if (
            "U" in (labels.dtype.kind, predictions.dtype.kind)
        ) and labels.dtype.kind != predictions.dtype.kind:
            raise problems.field(
                "/predictions", "wrong_type", f"{predictions.dtype}, but labels are {labels.dtype}"
            )
    if detections is not None and (detections.dtype.kind not in "iu" or (detections < 0).any()):
        raise problems.field("/detections", "wrong_type", f"{detections.dtype}, want integers from 0 up")
    if times is not None:
        if times.dtype.kind not in "iuf":
            raise problems.field("/times", "wrong_type", f"{times.dtype}, want unix seconds")
        if not np.isfinite(times).all():
            raise problems.field("/times", "not_finite", "a time is NaN or infinite")
        if not ((times >= 0) & (times < MAX_TIME)).all():
            raise problems.field("/times", "out_of_range", "not unix seconds between 1970 and 2100")


def active(version: ModelVersion) -> Reference | None:
    """The version's reference in force."""
    return Reference.objects.filter(version=version, state=ACTIVE).first()


def shape_of(version: ModelVersion) -> Shape | None:
    """The shape of counts by the version's reference in force; None when it has none."""
    return next((shape for shape in shapes_of(version).values() if shape.active), None)


def shapes_of(version: ModelVersion) -> dict[str, Shape]:
    """By digest, the shapes of counts by all of the version's references: a collector may hold any of them."""
    rows = Reference.objects.filter(version=version).values_list("digest", "components", "bins", "state")
    return {digest: Shape(digest, k + 1, bins, state == ACTIVE) for digest, k, bins, state in rows}


def dimensions(version_ids: Collection[int]) -> dict[int, int]:
    """Length of the embeddings of those versions that have a reference; all of a version's have the same."""
    rows = Reference.objects.filter(version__in=version_ids, state=ACTIVE)
    return dict(rows.values_list("version_id", "dimensions"))


def load(version: ModelVersion) -> Bins | None:
    """The version's reference in force with its arrays; None when it has none."""
    return by_version([version.pk]).get(version.pk)


def by_version(version_ids: Collection[int]) -> dict[int, Bins]:
    """References in force by the primary key of their version; versions without one are absent."""
    rows = Reference.objects.filter(version__in=version_ids, state=ACTIVE)
    return {
        version_id: arrays_of(pk, digest)
        for version_id, pk, digest in rows.values_list("version_id", "pk", "digest")
    }


@lru_cache(maxsize=64)
def arrays_of(pk: int, digest: str) -> Bins:
    """The arrays of the reference with this key: they never change, so a process reads them once.

    The digest keeps a key that is used again apart.
    """
    return Bins.from_npz(bytes(Reference.objects.values_list("data", flat=True).get(pk=pk)))


def correct_counts(reference: Reference) -> NDArray[np.int64] | None:
    """(2, 100) right answers, and all, by confidence bin; None when the reference was not told."""
    packed = bytes(reference.correct)
    return wire.unpack(packed, (2, counting.CONFIDENCE_BINS)) if packed else None
