"""What may a plan set on a hold: before which steps it is asked, and how often?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rollout.holds.base import Question

PROMOTION = "promotion"
EVERY_STEP = "every step"
EVERY_SECONDS = (1.0, 3600.0)
PROMOTION_PERCENT = 100.0


def check_known(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raises ValueError("<key>: …") for a key that is not known."""
    names = list(known)
    for key in given:
        if key not in names:
            raise ValueError(f"{key}: no such setting; there are {', '.join(names)}")


def check_before(given: Mapping[str, Any]) -> None:
    """`before` is "promotion", "every step", or a list of step weights in percent and "promotion".

    That a step has such a weight is for the plan to say: see rollout.plan.
    """
    value = given.get("before", PROMOTION)
    if value in (PROMOTION, EVERY_STEP):
        return
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f'before: "{PROMOTION}", "{EVERY_STEP}", or a list such as [25, "{PROMOTION}"]')
    for i, entry in enumerate(value):
        if entry != PROMOTION and not _is_number(entry, 0.01, PROMOTION_PERCENT):
            raise ValueError(f'before/{i}: a step\'s weight in percent, or "{PROMOTION}"')


def asked(given: Mapping[str, Any], question: Question, default: str) -> bool:
    """Whether the hold is asked before the step that comes next."""
    before = given.get("before", default)
    if before == EVERY_STEP:
        return True
    wanted = [before] if before == PROMOTION else before
    return question.next_weight_percent in [PROMOTION_PERCENT if w == PROMOTION else w for w in wanted]


def check_number(given: Mapping[str, Any], key: str, least: float, most: float) -> None:
    """Raises ValueError("<key>: …") where the key is given and is not a number in the range, both ends included."""
    if key in given and not _is_number(given[key], least, most):
        raise ValueError(f"{key}: {given[key]!r} is not a number from {least:g} to {most:g}")


def _is_number(value: object, least: float, most: float) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and least <= value <= most
