"""Is the canary worse than stable? However often one looks, P(ever a false rollback) ≤ α.

`start` → `enter_step` → `absorb` each closed interval → `conclude`. The state is JSON and small; replaying
the same intervals gives the same judgement. The forms of e-values are rare_events (P), half_plane (H), categories
(C), paired and weighted_labels; dispersion and sample_ratio say whether evidence may be taken at its word.
"""

from __future__ import annotations

from rollout.judge.combination import Judgement, absorb, conclude, enter_step, log_e, start, unassumed
from rollout.judge.counts import EvidenceError

__all__ = ["EvidenceError", "Judgement", "absorb", "conclude", "enter_step", "log_e", "start", "unassumed"]
