"""Which picture should take a reference's place: last week's windows, or an artifact of the version's MLflow run?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from davy import counting, wire
from davy.reference import Reference as Bins
from numpy.typing import NDArray

from controlplane import mlflow_sync, problems
from controlplane.models import ModelVersion
from monitoring import npz, references
from monitoring.models import Reference, Rollup
from monitoring.references import HOUR_SECONDS, Extras
from monitoring.statistics.natural_variation import natural_variation

SOURCES = (Rollup.Source.LIVE, Rollup.Source.LATE, Rollup.Source.IMPORT)

Counts = NDArray[np.int64]


def from_windows(
    version: ModelVersion, since: datetime, until: datetime, segment: Mapping[str, str]
) -> tuple[Reference, bool]:
    """Propose what was live in the whole hours within [since, until) as the version's reference; see references.store.

    Projection and bins stay those of the reference in force, only the counts are new: the bins are then no longer of
    equal mass, and bounds of D are as wide as the heaviest. `segment` keeps hours that have all of its keys and values.
    """
    present = references.active(version)
    if present is None:
        raise problems.field(
            "/source", "no_reference", f"{version} has no reference to count with", status=404
        )
    bins = references.arrays_of(present.pk, present.digest)
    rows = Rollup.objects.filter(
        version=version,
        purpose__in=SOURCES,
        seconds=HOUR_SECONDS,
        reference_digest=present.digest,
        start__gte=since,
        start__lt=until,
    )
    if segment:
        rows = rows.filter(segment__contains=dict(segment))
    hours: dict[datetime, Counts] = {}
    confidence = np.zeros(counting.CONFIDENCE_BINS, np.int64)
    detections = np.zeros(counting.DETECTION_BINS, np.int64)
    for row in rows.only("start", "embedding", "confidence", "detections"):
        _add(hours.setdefault(row.start, np.zeros(bins.counts.shape, np.int64)), row.embedding)
        _add(confidence, row.confidence)
        _add(detections, row.detections)
    counts = sum(hours.values(), np.zeros(bins.counts.shape, np.int64))
    n = int(counts[-1].sum())
    if n < references.MINIMUM_ROWS:
        raise problems.field(
            "/from",
            "too_few_rows",
            f"{n} embeddings in {len(hours)} closed hours, a reference needs {references.MINIMUM_ROWS}",
        )
    merged = Bins.build(bins.mean, bins.components, bins.edges, counts, confidence, rows=n)
    variation = natural_variation(counts, np.stack(list(hours.values()))).astype("<f4").tobytes()
    extras = Extras(variation, b"", wire.pack(detections) if detections.any() else b"")
    detail = {
        "from": since.isoformat(),
        "to": until.isoformat(),
        "segment": dict(segment),
        "hours": len(hours),
        "bins_of": present.number,
    }
    return references.store(version, merged, extras, Reference.Source.WINDOWS, detail)


def _add(counts: Counts, packed: bytes | memoryview) -> None:
    if packed:
        counts += wire.unpack(bytes(packed), counts.shape)


def mlflow_arrays(version: ModelVersion, artifact: str) -> dict[str, Any]:
    """The arrays for references.freeze in the npz `artifact`, a path among the artifacts of the version's MLflow run.

    Asks MLflow: not inside a transaction. A 502 problem when it does not answer, or has no such artifact.
    """
    parts = PurePosixPath(artifact).parts
    if not parts or artifact.startswith("/") or ".." in parts or "\\" in artifact:
        raise problems.field("/artifact", "bad_path", f"{artifact!r} is no path within a run's artifacts")
    if not version.mlflow_run_id:
        raise problems.field("/source", "no_run", f"{version} was registered without an MLflow run")
    with tempfile.TemporaryDirectory(prefix="reference-") as scratch:
        uri = mlflow_sync.resolve(f"runs:/{version.mlflow_run_id}/{artifact}")
        return arrays_in(mlflow_sync.download(uri, Path(scratch)))


def arrays_in(path: Path) -> dict[str, Any]:
    """The arrays of a reference in an npz file; problems name what is missing or unknown."""
    if not path.is_file() or path.stat().st_size > references.MAXIMUM_UNPACKED_BYTES:
        raise problems.field("/artifact", "not_npz", f"{path.name} is no npz file that could be read")
    return arrays_of(path.read_bytes())


def arrays_of(content: bytes) -> dict[str, Any]:
    """The arrays of a reference in the bytes of an npz file; problems name what is missing or unknown."""
    try:
        arrays = npz.read(content, references.MAXIMUM_UNPACKED_BYTES)
    except ValueError as err:
        raise problems.field("", "not_npz", str(err)) from None
    for name in arrays.keys() - set(references.ARRAYS):
        raise problems.field(f"/{name}", "unknown_array", f"a reference has no array {name!r}")
    for name in ("embeddings", "confidences"):
        if name not in arrays:
            raise problems.field(f"/{name}", "missing", f"the npz has no array {name!r}")
    return arrays
