"""What does a version's normal output look like? Freeze it once; read it back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from davy import counting
from davy.reference import (
    BLOCK_ROWS,
)  # the same blocks as in counting: float32 products differ between shapes
from davy.reference import Reference as Bins
from django.db import transaction
from numpy.typing import NDArray

from controlplane import problems
from controlplane.models import ModelVersion
from monitoring.models import Reference
from monitoring.statistics import binning, projection

MINIMUM_ROWS = 100  # with fewer, chance alone moves a KS distance by .2
MAXIMUM_DIMENSIONS = 4096  # a covariance of float64 in 128 MiB
MAXIMUM_UNPACKED_BYTES = 512 * 2**20  # of an uploaded npz


@dataclass(frozen=True)
class Shape:
    """The shape (rows = k + 1, bins) of counts in the bins of the reference with this digest."""

    digest: str
    rows: int
    bins: int


def freeze(
    version: ModelVersion,
    embeddings: NDArray[Any],
    confidences: NDArray[Any],
    labels: NDArray[Any] | None = None,
) -> tuple[Reference, bool]:
    """Make and store the version's reference; returns it and whether it is new. A reference never changes.

    embeddings   (n, d) float16 or float32, n ≥ MINIMUM_ROWS
    confidences  (n,) floats in [0, 1]
    labels       (n,) or None; checked and not kept yet
    Problems name the array: wrong type, shape, length or values 422; other content than the version has 409.
    """
    _check(embeddings, confidences, labels)
    bins = measure(embeddings, confidences)
    fields = {
        "rows": bins.rows,
        "dimensions": bins.dimensions,
        "components": len(bins.components),
        "bins": bins.bins,
        "max_bin_mass": _max_bin_mass(bins),
        "digest": bins.digest,
        "data": bins.to_npz(),
    }
    with transaction.atomic():
        reference, created = Reference.objects.get_or_create(version=version, defaults=fields)
    if reference.digest != bins.digest:
        raise problems.field(
            "", "reference_differs", f"{version} has another reference; register a new version", status=409
        )
    return reference, created


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


def _check(embeddings: NDArray[Any], confidences: NDArray[Any], labels: NDArray[Any] | None) -> None:
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
    if not ((confidences >= 0) & (confidences <= 1)).all():  # false for a NaN, too
        raise problems.field("/confidences", "out_of_range", "a value is not in [0, 1]")
    if labels is not None and labels.shape != (n,):
        raise problems.field("/labels", "wrong_shape", f"{labels.shape}, want ({n},)")


def shape_of(version: ModelVersion) -> Shape | None:
    """The shape of a version's embedding counts; None when it has no reference."""
    row = Reference.objects.filter(version=version).values_list("digest", "components", "bins").first()
    return Shape(row[0], row[1] + 1, row[2]) if row else None


def dimensions(version_ids: Collection[int]) -> dict[int, int]:
    """Length of the embeddings of those versions that have a reference."""
    rows = Reference.objects.filter(version__in=version_ids).values_list("version_id", "dimensions")
    return dict(rows)


def load(version: ModelVersion) -> Bins | None:
    """The version's reference with its arrays; None when it has none."""
    return by_version([version.pk]).get(version.pk)


def by_version(version_ids: Collection[int]) -> dict[int, Bins]:
    """References by the primary key of their version; versions without one are absent."""
    rows = Reference.objects.filter(version__in=version_ids).values_list("version_id", "pk", "digest")
    return {version_id: _loaded(pk, digest) for version_id, pk, digest in rows}


@lru_cache(maxsize=64)
def _loaded(pk: int, digest: str) -> Bins:
    """A reference never changes, so a process reads its arrays once; the digest keeps a reused key apart."""
    return Bins.from_npz(bytes(Reference.objects.values_list("data", flat=True).get(pk=pk)))
