"""Along which directions do normal embeddings vary most? PCA that does not flatter its own rows. PURE.

Source: Jolliffe, Principal Component Analysis, 2nd ed., 2002; scikit-learn's PCA. Why not plain PCA: components are
fitted to the rows that are then counted, so those rows leave less out than any later ones. With 2,000 rows of 512
dimensions and no drift at all that alone can move the KS distance of the residual by .45, an alarm without end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

MAXIMUM_COMPONENTS = 32
MEMORY_BYTES = (
    2**28
)  # of rows in float64 that are handed to scikit-learn at once; more are added up block by block
BLOCK_ROWS = 8192  # rows converted to float64 at once
OPTIMISM = (
    0.05  # KS distance between rows that were fitted and rows that were not, beyond chance, that is borne
)
CHANCE = 1.36  # sqrt(n·m / (n + m)) times a KS distance that chance exceeds once in 20


def fit(
    embeddings: NDArray[np.floating], maximum: int = MAXIMUM_COMPONENTS, memory_bytes: int = MEMORY_BYTES
) -> tuple[Float32, Float32]:
    """Mean (d,) and k = min(maximum, d, n - 1) directions (k, d), orthonormal rows.

    embeddings    (n, d) any float type, finite, n ≥ 2; accumulated in float64.
    memory_bytes  8·n·d bytes above it: the same components from a covariance that is added up block by block.
    The first directions are the principal components, as many as fit rows that they were not fitted to; those that
    the rows are too few to find are replaced by fixed ones, chosen without looking at the rows. A principal
    component's sign makes its largest absolute loading positive. O(n·d² + d³).
    """
    n, d = embeddings.shape
    if n < 2:
        raise ValueError("a projection needs at least two rows")
    k = min(maximum, d, n - 1)
    mean, components = _principal(embeddings, k, memory_bytes)
    kept = components[: _supported(embeddings, k, memory_bytes)]
    return mean.astype(np.float32), _completed(kept, k).astype(np.float32)


def _principal(embeddings: NDArray[np.floating], k: int, memory_bytes: int) -> tuple[Float64, Float64]:
    """Mean and the first k principal components, plain PCA."""
    mean: Float64 = np.mean(embeddings, axis=0, dtype=np.float64)
    if embeddings.size * 8 <= memory_bytes:
        return mean, _principal_at_once(embeddings, mean, k)
    return mean, _principal_by_blocks(embeddings, mean, k)


def _principal_at_once(embeddings: NDArray[np.floating], mean: Float64, k: int) -> Float64:
    from sklearn.decomposition import PCA  # takes a second to import: not at every start

    with np.errstate(invalid="ignore"):  # rows that are all alike explain 0 of 0
        fitted = PCA(k, svd_solver="covariance_eigh").fit(embeddings.astype(np.float64) - mean)
    components: Float64 = fitted.components_
    return components


def _principal_by_blocks(embeddings: NDArray[np.floating], mean: Float64, k: int) -> Float64:
    """Exact, unlike IncrementalPCA, for d² numbers of memory; signs as scikit-learn chooses them."""
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(embeddings), BLOCK_ROWS):
        block = embeddings[start : start + BLOCK_ROWS].astype(np.float64) - mean
        covariance += block.T @ block
    _, vectors = np.linalg.eigh(covariance)  # ascending
    components = vectors[:, ::-1].T[:k]
    largest = components[np.arange(k), np.abs(components).argmax(axis=1)]
    signed: Float64 = components * np.where(largest < 0, -1.0, 1.0)[:, None]
    return signed


def _supported(embeddings: NDArray[np.floating], k: int, memory_bytes: int) -> int:
    """How many principal components look alike on rows they were fitted to and on rows they were not.

    Fitted to every other row; compared by KS distance: each component, and the norm that it and those before leave
    out. Fitted to all rows the difference is about half of what is seen here.
    """
    fitted, other = embeddings[::2], embeddings[1::2]
    mean, components = _principal(fitted, min(k, len(fitted) - 1), memory_bytes)
    limit = OPTIMISM + CHANCE * np.sqrt(1 / len(fitted) + 1 / len(other))
    seen, unseen = _values(fitted, mean, components), _values(other, mean, components)
    for count, ((score, left), (new_score, new_left)) in enumerate(zip(seen, unseen, strict=True)):
        if max(_distance(score, new_score), _distance(left, new_left)) > limit:
            return count
    return len(components)


def _values(rows: NDArray[np.floating], mean: Float64, components: Float64) -> list[tuple[Float64, Float64]]:
    """Per component: its scores (n,), and the squared norms (n,) that it and those before leave out."""
    centred = rows.astype(np.float64) - mean
    scores = components @ centred.T
    total = np.einsum("ij,ij->i", centred, centred)
    left = np.maximum(total - np.cumsum(scores**2, axis=0), 0)
    left[left <= 1e-9 * total] = 0  # rounding, where nothing is left out
    return list(zip(scores, left, strict=True))


def _distance(a: Float64, b: Float64) -> float:
    from scipy import stats  # takes a second to import: not at every start

    return float(stats.ks_2samp(a, b, method="asymp").statistic)


def _completed(kept: Float64, k: int) -> Float64:
    """The kept components (m, d), and k − m fixed directions made orthogonal to them."""
    d = kept.shape[1]
    fixed = np.random.default_rng(0).normal(size=(k - len(kept), d))
    basis, _ = np.linalg.qr(np.concatenate([kept, fixed]).T)
    return np.concatenate([kept, basis.T[len(kept) :]])
