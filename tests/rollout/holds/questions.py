"""A question as a rollout asks it: v2 of `products` at 50 % on `edge`, before its promotion."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rollout.holds.base import Question

NOW = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
BEFORE_PROMOTION = Question(
    rollout=7,
    model="products",
    version="v2",
    stable="v1",
    fleet="edge",
    step=1,
    weight_percent=50,
    next_step=2,
    next_weight_percent=100,
    step_entered_at=NOW,
    now=NOW,
    started_by="pipeline",
)


def question(**changes: Any) -> Question:
    return replace(BEFORE_PROMOTION, **changes)
