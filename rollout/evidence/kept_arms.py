"""How are an arm's counts kept, so that the judge can be asked again and a row of evidence stays small? PURE.

Histograms are lists, which people can read; matrices, and whatever a segment counts, are packed as on the wire (the
smallest integer that holds them, deflated) and in base64.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from davy import wire

from rollout.gates.base import Arm

HISTOGRAMS = ("confidence", "latency", "detections", "errors_by_key_bucket")
MATRICES = ("embedding", "reference")


def arm_json(arm: Arm, needs: Sequence[str], segment_key: str = "") -> dict[str, Any]:
    """n and the counts that a gate needs, no others; with a segment key, those of its values too."""
    kept = {"n": arm.n, **_fields(arm, needs, packed=False)}
    if segment_key:
        of_segments = [
            name for name in needs if name != "errors_by_key_bucket"
        ]  # clusters are the whole's matter
        kept["segments"] = {
            label: {"n": part.n, **_fields(part, of_segments, packed=True)}
            for label, part in arm.segments.items()
            if label.startswith(f"{segment_key}=")
        }
    return kept


def arm_from_json(kept: Mapping[str, Any]) -> Arm:
    """The arm that `arm_json` kept; histograms come back from JSON as lists."""
    found: dict[str, Any] = {
        name: _histogram(kept[name]) for name in HISTOGRAMS if kept.get(name) is not None
    }
    found |= {name: _matrix(kept[name]) for name in MATRICES if kept.get(name) is not None}
    segments = {label: arm_from_json(part) for label, part in kept.get("segments", {}).items()}
    digest = kept.get("reference_digest", "")
    return Arm(kept["n"], kept.get("errors", 0), reference_digest=digest, segments=segments, **found)


def _fields(arm: Arm, needs: Sequence[str], *, packed: bool) -> dict[str, Any]:
    kept = {name: getattr(arm, name) for name in needs}
    if kept.get("embedding") is not None:
        kept["reference_digest"] = arm.reference_digest
    return {name: _pack(value) if packed or name in MATRICES else value for name, value in kept.items()}


def _pack(value: Any) -> Any:
    """[shape, counts in base64]; numbers and texts as they are."""
    if not isinstance(value, tuple):
        return value
    counts = np.asarray(value, np.int64)
    return [list(counts.shape), base64.b64encode(wire.pack(counts)).decode()]


def _unpack(kept: Sequence[Any]) -> Any:
    shape, text = kept
    return wire.unpack(base64.b64decode(text), tuple(shape)).tolist()


def _histogram(kept: Sequence[Any]) -> tuple[int, ...]:
    return tuple(_unpack(kept) if isinstance(kept[1], str) else kept)


def _matrix(kept: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in _unpack(kept))
