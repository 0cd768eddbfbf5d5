"""How much does normal output vary from hour to hour, beyond what chance alone explains? PURE.

Source: the method of moments for a random effect (DerSimonian & Laird, Controlled Clinical Trials 7, 1986): the spread
of the hours' means, less what their sizes let expect.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monitoring.statistics import scores

ENOUGH_HOURS = 12  # of fewer, the spread says next to nothing
ENOUGH_ROWS = 30  # in an hour that counts


def natural_variation(reference: ArrayLike, hours: ArrayLike) -> NDArray[np.float32]:
    """(2(k+1),) standard deviation of the hourly mean scores beyond sampling error; see statistics.scores.

    reference  (k+1, B) counts of the reference in its own bins
    hours      (h, k+1, B) counts of its hours in the same bins; hours of fewer than ENOUGH_ROWS rows do not count
    NaN in all places when fewer than ENOUGH_HOURS hours count. 0: no more variation than chance brings.
    """
    counts = np.asarray(hours, np.int64)
    table = scores.score_table(reference)
    if not len(counts) or (enough := counts.sum(axis=2).min(axis=1) >= ENOUGH_ROWS).sum() < ENOUGH_HOURS:
        return np.full(2 * table.shape[1], np.nan, np.float32)
    counts = counts[enough]
    n = counts.sum(axis=2)[:, :1]
    means = scores.embedding_scores(table, counts)
    pooled = counts.sum(axis=0)
    average = scores.embedding_scores(table, pooled[None])[0]
    squares = scores.score_sums(table**2, pooled) / n.sum()
    chance = np.maximum(squares - average**2, 0.0) * (1 / n).mean()
    beyond = means.var(axis=0, ddof=1) - chance
    return np.asarray(np.sqrt(np.maximum(beyond, 0.0)), np.float32)
