"""Did two versions give the same answer to one image? Labels, boxes and embeddings. PURE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

LEAST_IOU = 0.5  # from which two boxes are of the same object (PASCAL VOC, Everingham et al., IJCV 2010)
LONGEST_TEXT = 255

Detections = Sequence[Mapping[str, Any]]  # {"label", "confidence", "box"?: left, top, width, height}


@dataclass(frozen=True)
class Match:
    """Two versions' detections of one image: whether all boxes match, and the matched ones' mean IoU (0: none)."""

    agreed: bool
    iou: float


def match_boxes(one: Detections, other: Detections, least_iou: float = LEAST_IOU) -> Match:
    """Match boxes one to one, greedily by IoU, same label, IoU ≥ `least_iou`. O(n·m), n and m ≤ 1,000.

    They agree when no box on either side is left over. Two images without boxes agree with IoU 1. Boxes that are
    missing on both sides (a server that only counts objects) match by their labels alone.
    """
    if not one and not other:
        return Match(True, 1.0)
    found = sorted(
        (
            (_iou(a.get("box"), b.get("box")), i, j)
            for i, a in enumerate(one)
            for j, b in enumerate(other)
            if a["label"] == b["label"]
        ),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    left, right = set(range(len(one))), set(range(len(other)))
    matched = []
    for iou, i, j in found:
        if iou >= least_iou and i in left and j in right:
            left.remove(i)
            right.remove(j)
            matched.append(iou)
    return Match(not left and not right, sum(matched) / len(matched) if matched else 0.0)


def _iou(one: Sequence[float] | None, other: Sequence[float] | None) -> float:
    """Intersection over union of two boxes (left, top, width, height)."""
    if one is None or other is None:
        return float(one is None and other is None)
    (left, top, width, height), (left2, top2, width2, height2) = one, other
    across = min(left + width, left2 + width2) - max(left, left2)
    down = min(top + height, top2 + height2) - max(top, top2)
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    return both / (width * height + width2 * height2 - both)


def in_words(detections: Detections) -> str:
    """ "2 hat, 1 shoe": what was found, the same text for the same objects; "nothing" for none."""
    counts = Counter(str(found["label"]) for found in detections)
    text = ", ".join(
        f"{n} {label}" for label, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    return text[:LONGEST_TEXT] or "nothing"


def cosine(one: ArrayLike, other: ArrayLike) -> float | None:
    """Cosine of two embeddings, -1 to 1; None where they differ in length or one is zero."""
    a, b = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if a.shape != b.shape or a.size == 0:
        return None
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    if not length > 0 or not np.isfinite(length):
        return None
    return float(np.clip(a @ b / length, -1.0, 1.0))
