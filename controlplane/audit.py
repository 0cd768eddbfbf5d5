"""Who did what, when and why?"""

from __future__ import annotations

from typing import Any

from controlplane.models import AuditEntry


def record(
    actor: str, act: str, subject: str, reason: str = "", detail: dict[str, Any] | None = None
) -> AuditEntry:
    """Append one act, e.g. `record("ann", "rollout.abort", "rollout 7", "wrong version")`.

    Call it inside the transaction of the act itself, so that neither exists without the other.
    """
    return AuditEntry.objects.create(
        actor=actor, act=act, subject=subject[:255], reason=reason, detail=detail or {}
    )
