"""How is a decision stored? Position, log, roles, alerts and audit in one transaction, guarded by the revision."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import F

from controlplane import alerts
from controlplane.models import Alert, Route, Severity, Slot
from rollout.gates.base import GateVerdict
from rollout.models import Evidence, Purge, Rollout, RolloutEvent
from rollout.phases import TERMINAL, Phase, Position, overdue
from rollout.plan import load as load_plan


def utc(seconds: float) -> datetime:
    """An aware datetime from unix seconds."""
    return datetime.fromtimestamp(seconds, tz=UTC)


def position(rollout: Rollout) -> Position:
    """Where the rollout stands, as phases.py reads it."""
    return Position(
        phase=Phase(rollout.state),
        step=rollout.step,
        weight_percent=rollout.weight_percent,
        entered_at=rollout.state_entered_at,
        step_entered_at=rollout.step_entered_at or rollout.started_at,
        ending=Phase(rollout.ending) if rollout.ending else None,
        promoted_roles=rollout.route.stable_id == rollout.version_id,
        direct=rollout.direct,
        reason=rollout.reason,
    )


def moved(before: Position, after: Position) -> bool:
    """Whether something changed that the fleet, or an operator, must hear of; else only the words did."""
    return (before.phase, before.step, before.weight_percent) != (
        after.phase,
        after.step,
        after.weight_percent,
    )


def save(
    rollout: Rollout,
    before: Position,
    after: Position,
    *,
    now: datetime,
    columns: dict[str, Any],
    actor: str = "davy",
) -> bool:
    """Store `after` where the revision is still the one that was read; call inside a transaction.

    Writes the rollout, its log line when something an operator cares about changed, the route's roles and wanted
    weight, and the alerts. False (and nothing written) when somebody else acted first.
    """
    has_moved = moved(before, after)
    sources = columns.get("sources", rollout.sources)
    asks = "" if has_moved else sources.get("asks", "")
    position = {
        "state": after.phase,
        "ending": after.ending or "",
        "step": after.step,
        "weight_percent": after.weight_percent,
        "state_entered_at": after.entered_at,
        "step_entered_at": after.step_entered_at,
        "reason": after.reason,
        "ended_at": now if after.phase in TERMINAL else None,
    }
    row: dict[str, Any] = {k: v for k, v in position.items() if v != getattr(rollout, k)}
    row |= {**columns, "sources": {**sources, "asks": asks}, "revision": rollout.revision + 1}
    if not Rollout.objects.filter(pk=rollout.pk, revision=rollout.revision).update(**row):
        return False
    if has_moved:
        _log(rollout, after, now, actor)
        _set_route(rollout, before, after, now)
        _tell(rollout, before, after, now, actor)
    news = asks != rollout.sources.get("asks", "")
    if news:
        _tell_asking(rollout, after, asks, now)
    if news or not asks:  # what waits for people is not overdue
        _tell_overdue(rollout, after, has_moved or news, now)
    return True


def keep_evidence(rows: Sequence[Evidence]) -> None:
    """Store what the decision was made from; call inside its transaction.

    In SQL: every tick does it, and the ORM's bulk_create cost as much as judging the rows.
    """
    if not rows:
        return
    values = [
        (
            row.rollout_id,
            row.gate,
            row.source,
            row.start,
            row.end,
            row.step,
            row.weight_percent,
            json.dumps(row.arms),
            json.dumps(row.log_e),
        )
        for row in rows
    ]
    columns = 'rollout_id, gate, source, start, "end", step, weight_percent, arms, log_e'
    holes = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s, %s)"] * len(values))
    statement = f"INSERT INTO rollout_evidence ({columns}) VALUES {holes}"  # noqa: S608 - holes only
    with connection.cursor() as cursor:
        cursor.execute(statement, [value for row in values for value in row])


def _log(
    rollout: Rollout, after: Position, now: datetime, actor: str, *, kind: str = "state", reason: str = ""
) -> None:
    RolloutEvent.objects.create(
        rollout=rollout,
        at=now,
        kind=kind,
        state=after.phase,
        step=after.step,
        weight_percent=after.weight_percent,
        actor=actor,
        reason=reason or after.reason,
    )


def _set_route(rollout: Rollout, before: Position, after: Position, now: datetime) -> None:
    """The route's wanted weight; and its roles, when a promotion swaps them or a rollback swaps them back."""
    route = rollout.route
    changes: dict[str, Any] = {"weight_percent": after.weight_percent if after.phase not in TERMINAL else 0}
    if after.promoted_roles and not before.promoted_roles:
        changes |= {"stable": rollout.version, "canary": None, "cache_epoch": route.cache_epoch + 1}
        if route.stable_id is not None:
            warm = timedelta(seconds=load_plan(rollout.plan).keep_warm_seconds)
            changes |= {
                "stable_slot": Slot(route.stable_slot).other,
                "observed_weight_percent": 100 - F("observed_weight_percent"),
                "previous": route.stable,
                "keep_warm_until": now + warm,
            }
    elif before.promoted_roles and not after.promoted_roles and rollout.stable is not None:
        changes |= {
            "stable": rollout.stable,
            "stable_slot": Slot(route.stable_slot).other,
            "observed_weight_percent": 100 - F("observed_weight_percent"),
            "canary": rollout.version,
            "previous": None,
            "keep_warm_until": None,
            "cache_epoch": route.cache_epoch + 1,
        }
    Route.objects.filter(pk=route.pk).update(**changes)
    if "cache_epoch" in changes and settings.PURGE_URL:
        Purge.objects.get_or_create(
            route=route,
            epoch=changes["cache_epoch"],
            defaults={"version": changes["stable"], "at": now, "next_attempt_at": now},
        )


def _tell(rollout: Rollout, before: Position, after: Position, now: datetime, actor: str) -> None:
    """Open and close the route's alerts. One sentence: what, since when, which version, what Davy did, what next."""
    model, fleet = rollout.route.model.name, rollout.route.fleet.name
    held, rolled_back = f"rollout/held/{model}/{fleet}", f"rollout/rolled-back/{model}/{fleet}"
    failed = f"rollout/failed/{model}/{fleet}"
    page = f"{settings.PUBLIC_URL}/rollouts/{rollout.pk}"
    if after.phase is Phase.HELD:
        text = (
            f"{rollout.version} is held at {after.weight_percent:g} % on {fleet} since {now:%H:%M:%S} UTC: "
        )
        _open(
            held,
            rollout,
            Severity.WARNING,
            f"{text}{after.reason}; it goes on when its gates pass, promote or abort it: {page}",
            now,
        )
    elif before.phase is Phase.HELD:
        alerts.resolve(held, resolution=f"rollout {rollout.pk} is {after.phase}: {after.reason}", now=now)
    if after.phase is Phase.ROLLING_BACK and after.ending is Phase.ROLLED_BACK and actor == "davy":
        text = f"{rollout.version} was rolled back on {fleet} at {now:%H:%M:%S} UTC from {before.weight_percent:g} %: "
        back = f"{rollout.stable} gets all traffic again" if rollout.stable else "no version gets traffic"
        _open(rolled_back, rollout, Severity.ERROR, f"{text}{after.reason}; {back}; see {page}", now)
    if after.phase is Phase.FAILED:
        keeps = f"{rollout.stable} keeps all traffic" if rollout.stable else "no version gets traffic"
        text = (
            f"{rollout.version} failed on {fleet} at {now:%H:%M:%S} UTC: {after.reason}; {keeps}; see {page}"
        )
        # nobody's requests suffer: it can wait until morning
        _open(failed, rollout, Severity.WARNING, text, now)
    elif before.phase is Phase.PENDING and after.phase not in TERMINAL:
        alerts.resolve(failed, resolution=f"{rollout.version} is {after.phase}", now=now)
    if after.phase is Phase.PROMOTED:
        alerts.resolve(rolled_back, resolution=f"{rollout.version} was promoted", now=now)


def _tell_asking(rollout: Rollout, after: Position, asks: str, now: datetime) -> None:
    """Tell once that people are asked, and end it when they have answered or the rollout has moved on."""
    model, fleet = rollout.route.model.name, rollout.route.fleet.name
    cause = f"rollout/approval/{model}/{fleet}"
    if asks:
        text = f"{rollout.version} waits for people on {fleet} since {now:%H:%M:%S} UTC: {asks}"
        page = f"{settings.PUBLIC_URL}/rollouts/{rollout.pk}"
        _open(cause, rollout, Severity.INFO, f"{text}; nothing else is missing, say yes or no: {page}", now)
    else:
        alerts.resolve(cause, resolution=f"rollout {rollout.pk} is {after.phase}: {after.reason}", now=now)


def _tell_overdue(rollout: Rollout, after: Position, moved: bool, now: datetime) -> None:
    """Page once where the fleet does not do what the rollout waits for: load, promote, take the traffic back."""
    model, fleet = rollout.route.model.name, rollout.route.fleet.name
    cause = f"rollout/overdue/{model}/{fleet}"
    if moved:
        alerts.resolve(cause, resolution=f"rollout {rollout.pk} is {after.phase}: {after.reason}", now=now)
    elif overdue(load_plan(rollout.plan), after, now):
        text = f"{rollout.version} is {after.phase} on {fleet} since {after.entered_at:%H:%M:%S} UTC"
        why = rollout.trouble or after.reason
        page = f"{settings.PUBLIC_URL}/rollouts/{rollout.pk}"
        _open(
            cause,
            rollout,
            Severity.ERROR,
            f"{text}: {why}; Davy goes on trying, look at the fleet: {page}",
            now,
        )


def tell_oddities(
    rollout: Rollout, changed_by_hand: str, incident: str, mismatch: str, *, judged: bool, now: datetime
) -> None:
    """Page, once each, that somebody moves the weight, that both arms fail, that the split is not as asked.

    Closes the page when it is over.
    """
    before = rollout.sources.get("odd", [])
    if not any(before) and not changed_by_hand and not incident and not mismatch:
        return
    model, fleet = rollout.route.model.name, rollout.route.fleet.name
    page = f"{settings.PUBLIC_URL}/rollouts/{rollout.pk}"
    correct = load_plan(rollout.plan).on_hand_change == "correct"
    did = "Davy set it back" if correct else "the rollout is paused there"
    told = {
        f"rollout/hand-change/{model}/{fleet}": f"{changed_by_hand}; {did}, change it through Davy: {page}",
        f"rollout/both-arms/{model}/{fleet}": f"{incident}; the canary is not to blame and is not rolled back, "
        f"look at what both versions need: {page}",
        f"rollout/sample-ratio/{model}/{fleet}": f"{mismatch}; such evidence cannot be trusted, so the rollout is held "
        f"until the split is as asked for; look at the router, and for retries or a cache before one arm: {page}",
    }
    for (cause, text), odd in zip(told.items(), (changed_by_hand, incident, mismatch), strict=True):
        if odd and judged:
            since = f"{rollout.version} on {fleet} since {now:%H:%M:%S} UTC: "
            _open(cause, rollout, Severity.WARNING, since + text, now)
        else:
            alerts.resolve(cause, resolution="it is over", now=now)
    if changed_by_hand:
        _log(rollout, position(rollout), now, "davy", kind="hand_change", reason=changed_by_hand)


def _open(cause: str, rollout: Rollout, severity: Severity, summary: str, now: datetime) -> Alert:
    return alerts.open(
        cause,
        severity=severity,
        summary=summary,
        now=now,
        detail={"rollout": rollout.pk},
        model=rollout.route.model,
        version=rollout.version,
        fleet=rollout.route.fleet,
    )


def verdict_json(verdict: GateVerdict) -> dict[str, Any]:
    """A gate's verdict as REST and the pages show it."""
    return dict(vars(verdict))
