"""How do the range and the standard deviation of g normal values relate to their sigma? PURE.

Source: Montgomery, Introduction to Statistical Quality Control, appendix VI. d2 has the three digits of the
published tables and d3 the values of R's qcc (within 1.3e-5 of the exact ones), because that is what textbooks and
an engineer's own sheet use.
"""

from __future__ import annotations

from math import exp, lgamma, sqrt

LARGEST_GROUP = 25  # beyond it ranges say little; take S

D2 = (
    *(1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.970, 3.078, 3.173, 3.258, 3.336),
    *(3.407, 3.472, 3.532, 3.588, 3.640, 3.689, 3.735, 3.778, 3.819, 3.858, 3.895, 3.931),
)
D3 = (
    *(0.8525033, 0.8883697, 0.8798108, 0.8640855, 0.8480442, 0.8332108, 0.8198378, 0.8078413),
    *(0.7970584, 0.7873230, 0.7784873, 0.7704257, 0.7630330, 0.7562217, 0.7499188, 0.7440627),
    *(0.7386021, 0.7334929, 0.7286980, 0.7241851, 0.7199267, 0.7158987, 0.7120802, 0.7084528),
)


def d2(g: int) -> float:
    """Mean range of g standard normal values, 2 ≤ g ≤ 25."""
    return D2[_index(g)]


def d3(g: int) -> float:
    """Standard deviation of the range of g standard normal values, 2 ≤ g ≤ 25."""
    return D3[_index(g)]


def c4(g: int) -> float:
    """Mean of the standard deviation (divisor g − 1) of g standard normal values, g ≥ 2."""
    if g < 2:
        raise ValueError(f"a group of {g} has no standard deviation")
    return sqrt(2 / (g - 1)) * exp(lgamma(g / 2) - lgamma((g - 1) / 2))


def _index(g: int) -> int:
    if not 2 <= g <= LARGEST_GROUP:
        raise ValueError(f"ranges are tabulated for groups of 2 to {LARGEST_GROUP}, not {g}")
    return g - 2
