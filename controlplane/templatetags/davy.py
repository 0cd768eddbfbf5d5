"""How do facts look on a page? States as a word with a shape, numbers, times, weights: one form everywhere."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.safestring import SafeString

from controlplane import views

register = template.Library()

THIN = "\N{NARROW NO-BREAK SPACE}"
NOTHING = "–"


class Look(NamedTuple):
    """How a state is shown: never by colour alone, so each has a shape and a word."""

    icon: str
    tone: str
    word: str


LOOKS = {
    # rollouts
    "pending": Look("clock", "quiet", "Pending"),
    "running": Look("play", "live", "Running"),
    "paused": Look("pause", "warn", "Paused"),
    "held": Look("hourglass", "warn", "Held"),
    "promoting": Look("up", "live", "Promoting"),
    "watching": Look("eye", "live", "Watching"),
    "promoted": Look("check", "good", "Promoted"),
    "rolling_back": Look("undo", "bad", "Rolling back"),
    "rolled_back": Look("undo", "bad", "Rolled back"),
    "aborted": Look("stop", "quiet", "Aborted"),
    "superseded": Look("next", "quiet", "Superseded"),
    "failed": Look("cross", "bad", "Failed"),
    # detectors and gates
    "STABLE": Look("check", "good", "Stable"),
    "DRIFTED": Look("wave", "bad", "Drifted"),
    "TOO_FEW": Look("dots", "quiet", "Too few"),
    "PASS": Look("check", "good", "Pass"),
    "FAIL": Look("cross", "bad", "Fail"),
    "INCONCLUSIVE": Look("tilde", "quiet", "Inconclusive"),
    # alerts and deliveries
    "critical": Look("octagon", "bad", "Critical"),
    "error": Look("diamond", "bad", "Error"),
    "warning": Look("triangle", "warn", "Warning"),
    "info": Look("info", "live", "Info"),
    "acknowledged": Look("eye", "live", "Acknowledged"),
    "snoozed": Look("pause", "quiet", "Snoozed"),
    "resolved": Look("check", "good", "Resolved"),
    "sending": Look("play", "live", "Sending"),
    "sent": Look("check", "good", "Sent"),
    # a model's place on the Fleet page
    "attention": Look("triangle", "bad", "Needs attention"),
    "silent": Look("silent", "warn", "Silent"),
    "rolling": Look("play", "live", "Rolling out"),
    "serving": Look("check", "good", "Serving"),
    "idle": Look("dots", "quiet", "Not serving"),
}
DETECTORS = {"embedding_drift": "embeddings", "confidence_chart": "confidence"}


@register.simple_tag
def icon(name: str) -> SafeString:
    """A shape from static/icons.svg; it says nothing to a screen reader, the word beside it does."""
    return format_html(
        '<svg class="icon" aria-hidden="true"><use href="{}#{}"></use></svg>', static("icons.svg"), name
    )


@register.simple_tag
def state(name: str, size: str = "") -> SafeString:
    """A state as a pill: shape, colour and word. A state without a look is shown by its own name."""
    look = LOOKS.get(name, Look("info", "quiet", name))
    return format_html('<span class="pill {} {}">{}{}</span>', look.tone, size, icon(look.icon), look.word)


@register.simple_tag
def detector_chip(found: Any) -> SafeString:
    """A DetectorState as a small chip."""
    look = LOOKS[found.status]
    return format_html(
        '<span class="chip {}" title="{}">{}{} {}</span>',
        look.tone,
        found.reason,
        icon(look.icon),
        detector_name(found.detector),
        look.word.lower(),
    )


@register.filter
def detector_name(name: str) -> str:
    """A detector's name as people say it."""
    return DETECTORS.get(name, name.replace("_", " "))


@register.filter
def words(name: str) -> str:
    """`rolled_back` as `rolled back`."""
    return str(name).replace("_", " ")


@register.filter
def plain(value: object) -> str:
    """A value of a JSON detail: numbers as figures, times as times, everything else as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return figure(value)
    return clock(_moment(value)) if isinstance(value, str) and _moment(value) else str(value)


def _moment(text: object) -> datetime | None:
    """The time in an ISO 8601 text with its zone; None for any other text."""
    try:
        found = parse_datetime(str(text))
    except ValueError:
        return None
    return found if found is not None and timezone.is_aware(found) else None


@register.filter
def count(value: int | None) -> str:
    """4000 as 4,000."""
    return NOTHING if value is None else f"{value:,}"


@register.filter
def figure(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, without the zero before the point: .143, 4.61, 1,204."""
    if value is None or not isinstance(value, int | float) or not math.isfinite(value):
        return NOTHING
    if value == 0 or isinstance(value, int):
        return f"{value + 0:,.0f}"  # + 0: −0 is 0
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{abs(value):,.{min(places, 6)}f}"
    if abs(value) < 1 and not float(text):
        return "0"
    if abs(value) < 1:
        text = text.removeprefix("0").rstrip("0").rstrip(".")
    return ("\N{MINUS SIGN}" if value < 0 else "") + text


@register.filter
def places(value: float | None, digits: int = 3) -> str:
    """A number from 0 to 1 with fixed places, so that columns line up: .143, .120, 1.000."""
    return NOTHING if value is None else f"{value:.{digits}f}".removeprefix("0")


@register.filter
def percent(value: float | None) -> str:
    """A weight in percent: 25 %, 24.8 %."""
    return NOTHING if value is None else f"{round(value, 1) + 0:g}{THIN}%"


@register.filter
def share(value: float | None) -> str:
    """A share of 1 in percent: .312 as 31.2 %."""
    return NOTHING if value is None else f"{figure(100 * value)}{THIN}%"


@register.filter
def probability(value: float | None, equals: str = "") -> str:
    """A p- or q-value: .004, after `equals`; below .001 only that."""
    return f"<{THIN}.001" if value is not None and value < 0.001 else equals + figure(value, 2)


@register.filter
def from_milliseconds(value: float) -> datetime:
    """Milliseconds since 1970, as charts have them, as a time."""
    return datetime.fromtimestamp(value / 1000, UTC)


@register.filter
def seconds(value: float | None) -> str:
    """A duration: 45 s, 12 min, 3 h, 2 d."""
    if value is None:
        return NOTHING
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= 2 * length or value == length:
            return f"{value / length:.0f}{THIN}{unit}"
    return f"{value:.0f}{THIN}s"


@register.filter
def age(at: datetime | None) -> str:
    """How long ago: 12 min."""
    return NOTHING if at is None else seconds(max(0.0, (timezone.now() - at).total_seconds()))


@register.filter
def clock(at: datetime | None) -> str | SafeString:
    """A time as 11:02:10 UTC, with its day when that is not today."""
    if at is None:
        return NOTHING
    today = at.date() == timezone.now().date()
    return format_html(
        '<time class="nowrap" datetime="{}">{}</time>',
        at.isoformat(timespec="seconds"),
        f"{at:%H:%M:%S} UTC" if today else f"{at.day} {at:%b %H:%M} UTC",
    )


@register.simple_tag
def weight_bar(asked: float, observed: float | None) -> SafeString:
    """The canary's share as a bar: filled is what the router applies, the mark is what was asked for."""
    seen = "not observed" if observed is None else f"observed {percent(observed)}"
    filled = max(0.0, min(100.0, observed or 0.0))
    return format_html(
        '<svg class="weight" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="asked {}, {}">'
        '<rect class="track" width="100" height="8"/><rect class="fill" width="{}" height="8"/>'
        '<rect class="asked" x="{}" width="0.8" height="8"/></svg>',
        percent(asked),
        seen,
        f"{filled:.2f}",
        f"{min(99.2, max(0.0, asked - 0.4)):.2f}",
    )


@register.simple_tag
def evidence_bar(log_e: float | None, line: float, side: str) -> SafeString:
    """How far log e has come to its line; `side` is "against" or "for" the canary."""
    share = max(0.0, min(1.0, (log_e or 0.0) / line))
    return format_html(
        '<svg class="evidence-bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" '
        'aria-label="{} of {}"><rect class="track" width="100" height="6"/>'
        '<rect class="{}" width="{}" height="6"/></svg>',
        figure(log_e),
        figure(line),
        side,
        f"{100 * share:.1f}",
    )


@register.simple_tag
def distance_bar(low: float, high: float | None, line: float) -> SafeString:
    """A distance from 0 to 1: filled to its lower bound, light to its upper one, a mark at the alarm's line."""
    return format_html(
        '<svg class="evidence-bar distance" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="6"/><rect class="upper" width="{}" height="6"/>'
        '<rect class="{}" width="{}" height="6"/><rect class="mark" x="{}" width="1" height="6"/></svg>',
        f"{100 * (high if high is not None else low):.1f}",
        "against" if low > line else "plain",
        f"{100 * low:.1f}",
        f"{100 * line:.1f}",
    )


@register.inclusion_tag("controlplane/_bar.html", takes_context=True)
def bar(context: template.Context) -> dict[str, Any]:
    """The top bar's facts. Three queries, on every page."""
    request = context["request"]
    return {"request": request, "user": request.user, **views.bar_facts()}
