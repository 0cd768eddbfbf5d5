"""The control chart page in a real browser: drawn, nothing blocked, readable without colours, narrow screens too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controlplane.models import Role, User
from monitoring import chart_limits
from monitoring.statistics.charts import kinds
from tests.browser import Browser, browser, needs_chromium
from tests.monitoring.build import version
from tests.monitoring.charts import at, hours, place, steady

pytestmark = [pytest.mark.system, needs_chromium, pytest.mark.django_db(transaction=True)]

PASSWORD = "a long enough password"
PAGE = "/models/products/versions/v1/spc?from=2026-11-03+00:00&to=2026-11-05+00:00"


@pytest.fixture
def here(live_server) -> Iterator[Browser]:
    """A browser in which an engineer is signed in; a chart with a phase I, a gap, a signal and a point left out."""
    v1 = version()
    hours(v1, [400, *steady(24), None, 110, 112, 115, 150, *steady(15)])
    chart_limits.recalculate(place(v1), at(0), at(24), by="ann", reason="a calm day", now=at(48))
    chart_limits.exclude(v1, "low_share", at(0), by="ann", reason="lens cap on", now=at(48))
    User.objects.create_user("ada", password=PASSWORD, role=Role.ENGINEER)
    with browser() as opened:
        opened.sign_in(live_server.url, "ada", PASSWORD)
        yield opened


def open_chart(here: Browser, live_server, query: str = "") -> None:
    here.page.goto(f"{live_server.url}{PAGE}{query}", wait_until="networkidle")
    here.page.wait_for_selector("[data-chart] svg")


def test_every_kind_is_drawn_without_complaint_on_wide_and_narrow_screens(here, live_server):
    for width in (1280, 420):
        here.page.set_viewport_size({"width": width, "height": 900})
        for kind in kinds.KINDS_OF["share"]:
            open_chart(here, live_server, f"&chart={kind}")
            assert here.overflow() == 0, (kind, width)
    assert here.complaints == []


def test_limits_are_labelled_phase_1_is_named_and_a_signal_has_its_rules_number(here, live_server):
    open_chart(here, live_server)
    drawn = here.page.locator("[data-chart] svg text").all_text_contents()
    assert {"upper", "lower", "centre", "phase I", "1, 3"} <= set(drawn)


def test_a_gap_breaks_the_line(here, live_server):
    open_chart(here, live_server)
    line = here.page.evaluate(
        "echarts.getInstanceByDom(document.querySelector('[data-chart]')).getOption().series[3]"
    )
    assert line["connectNulls"] is False
    assert line["data"][25]["value"][1] is None


def test_pointing_at_a_signal_names_its_rule(here, live_server):
    open_chart(here, live_server)
    here.page.evaluate(
        "echarts.getInstanceByDom(document.querySelector('[data-chart]'))"
        ".dispatchAction({type: 'showTip', seriesIndex: 3, dataIndex: 29})"
    )
    here.page.locator("[data-chart] svg text", has_text="1: one point beyond 3 sigmas").wait_for()


def test_a_person_leaves_a_point_out_with_a_reason(here, live_server):
    open_chart(here, live_server)
    form = here.page.locator("#exclude-form")
    form.get_by_label("Reason").fill("a firmware update")
    form.get_by_role("button", name="Leave out").click()
    here.page.get_by_text("limits that used the point are recalculated").wait_for()
    here.page.locator("summary").click()
    assert here.page.get_by_text("left out: a firmware update").is_visible()
    assert here.complaints == []
