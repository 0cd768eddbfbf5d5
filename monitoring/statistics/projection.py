"""Along which directions do normal embeddings vary most? PCA with a deterministic sign. PURE.

Source: Jolliffe, Principal Component Analysis, 2nd ed., 2002.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAXIMUM_COMPONENTS = 32
BLOCK_ROWS = 8192  # rows converted to float64 at once


def fit(
    embeddings: NDArray[np.floating], maximum: int = MAXIMUM_COMPONENTS
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean (d,) and the first k = min(maximum, d, n - 1) principal components (k, d), orthonormal rows.

    embeddings  (n, d) any float type, finite, n ≥ 2; accumulated in float64.
    The sign of a component is such that its largest absolute loading is positive. O(n·d² + d³).
    """
    n, d = embeddings.shape
    if n < 2:
        raise ValueError("a projection needs at least two rows")
    mean: NDArray[np.float64] = np.mean(embeddings, axis=0, dtype=np.float64)
    covariance = np.zeros((d, d))
    for start in range(0, n, BLOCK_ROWS):
        block = embeddings[start : start + BLOCK_ROWS].astype(np.float64) - mean
        covariance += block.T @ block
    _, vectors = np.linalg.eigh(covariance)  # ascending
    components = vectors[:, ::-1].T[: min(maximum, d, n - 1)]
    largest = components[np.arange(len(components)), np.abs(components).argmax(axis=1)]
    components = components * np.where(largest < 0, -1.0, 1.0)[:, None]
    return mean.astype(np.float32), components.astype(np.float32)
