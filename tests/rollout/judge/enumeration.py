"""Exact expectations over every outcome of small counts."""

from __future__ import annotations

import itertools
import math

import numpy as np


def expected(log_e, canary, stable):
    """E exp(log_e(x_c, x_b)) with x ~ binomial(n, p) for (n, p) of each arm."""
    return sum(
        _binomial(x_c, *canary) * _binomial(x_b, *stable) * np.exp(log_e(x_c, x_b))
        for x_c, x_b in itertools.product(range(canary[0] + 1), range(stable[0] + 1))
    )


def outcomes(n, probabilities):
    """(counts, probability) of every outcome of a multinomial."""
    for head in itertools.product(range(n + 1), repeat=len(probabilities) - 1):
        if sum(head) <= n:
            counts = (*head, n - sum(head))
            ways = math.factorial(n) // math.prod(math.factorial(c) for c in counts)
            yield counts, ways * math.prod(p**c for p, c in zip(probabilities, counts, strict=True))


def _binomial(x, n, p):
    return math.comb(n, x) * p**x * (1 - p) ** (n - x)
