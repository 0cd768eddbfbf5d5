"""How much has a version ever done on each fleet? Counters for Prometheus, which must never shrink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np
from davy import counting, wire
from numpy.typing import NDArray

from monitoring.models import VersionTotal

Array = NDArray[np.int64]


class Place(NamedTuple):
    """Whose total: of a version, on a fleet ("" where the reporter does not know its fleet)."""

    version_id: int
    fleet: str


@dataclass
class Added:
    """What is to be added to a total. Detections of a model that counts none are all 0."""

    n: int = 0
    errors: int = 0
    confidence: Array = field(default_factory=lambda: np.zeros(counting.CONFIDENCE_BINS, np.int64))
    detections: Array = field(default_factory=lambda: np.zeros(counting.DETECTION_BINS, np.int64))

    def add(self, counts: wire.WindowCounts) -> None:
        """Add a window's counts, in place."""
        self.n += counts.n
        self.errors += counts.errors
        self.confidence += counts.confidence
        if counts.detections is not None:
            self.detections += counts.detections


def add(added: Mapping[Place, Added], now: datetime) -> None:
    """Add to the stored totals; inside the caller's transaction, which holds their rows until it commits."""
    places = sorted(added)
    identity = ["version", "fleet"]
    VersionTotal.objects.bulk_create(
        [VersionTotal(**place._asdict(), updated_at=now) for place in places],
        update_conflicts=True,
        unique_fields=identity,
        update_fields=["updated_at"],
    )
    wanted = VersionTotal.objects.filter(version__in={place.version_id for place in places})
    for row in wanted.filter(fleet__in={place.fleet for place in places}):
        if mine := added.get(Place(row.version_id, row.fleet)):
            row.n += mine.n
            row.errors += mine.errors
            row.confidence = wire.pack(mine.confidence + stored(row.confidence, counting.CONFIDENCE_BINS))
            row.detections = wire.pack(mine.detections + stored(row.detections, counting.DETECTION_BINS))
            row.save(update_fields=["n", "errors", "confidence", "detections"])


def stored(packed: bytes | memoryview, bins: int) -> Array:
    """(bins,) of a total's column; zeros before anything was added."""
    return wire.unpack(bytes(packed), (bins,)) if packed else np.zeros(bins, np.int64)
