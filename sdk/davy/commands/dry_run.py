"""What does a person read of a dry run: the change to the fleet, the steps, and how long each will take?"""

from __future__ import annotations

from typing import Any

from davy.client import Json


def lines(model: str, version: str, fleet: str, found: Json) -> list[str]:
    """A dry run's answer in lines; what an older server does not say is left out."""
    plan = (found.get("plan") or {}).get("name")
    would = found.get("would") or {}
    said = [f"would move {model} on {fleet} from {found.get('stable')} to {version} by plan {plan}"]
    said += [f"  {would['detail']}"] if would.get("detail") else []
    said += _change(found.get("change") or {})
    for number, step in enumerate(found.get("steps") or [], start=1):
        said += _step(number, step)
    if found.get("holds"):
        said.append(f"  asks: {', '.join(found['holds'])}")
    counted_by = found.get("errors_counted_by") or {}
    said += [f"  {counted_by['detail']}"] if counted_by.get("detail") else []
    if found.get("steps"):
        said.append(f"  in all about {_time(found.get('seconds'))}, {_rate(found.get('traffic') or {})}")
        said += [f"  {found['precision']}"] if found.get("precision") else []
    return said


def _change(change: Json) -> list[str]:
    if not change:
        return []
    gives_way = [change[key] for key in ("replaces", "ends_keep_warm") if change.get(key)]
    instead = f" instead of {', '.join(gives_way)}" if gives_way else ""
    splits = [
        ", ".join(f"{slot} {percent:g} %" for slot, percent in w.items()) for w in change.get("weights", [])
    ]
    mirrors = change.get("mirrors_percent")
    return [
        f"  slot {change.get('slot')} loads {change.get('loads')}{instead}",
        *([f"  {mirrors:g} % of live requests are mirrored to it first"] if mirrors else []),
        f"  weights: {' → '.join(splits)}",
    ]


def _step(number: int, step: Json) -> list[str]:
    head = f"  step {number}: {step['weight_percent']:g} %, at least {_time(step['dwell_seconds'])}"
    gates = [f"    {gate['name']}: {_need(gate)}" for gate in step.get("gates", [])]
    fault = step.get("detects")
    detects = [f"    notices {fault['fault']}: {_need(fault)}"] if fault else []
    return [f"{head}, about {_time(step.get('seconds'))}", *gates, *detects]


def _need(need: Json) -> str:
    requests: Any = need.get("requests")
    if requests is None:
        return f"unknown: {need.get('reason')}"
    return f"about {requests:,} canary requests, {_time(need.get('seconds'))}"


def _rate(traffic: Json) -> str:
    rate = traffic.get("requests_per_second")
    at = "at an unknown request rate" if rate is None else f"at {rate:,.0f} requests a second"
    return f"{at} (known from {traffic.get('known_from')})"


def _time(seconds: float | None) -> str:
    """ "40 s", "12 min", "6.0 h"; "an unknown time" for None."""
    if seconds is None:
        return "an unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
