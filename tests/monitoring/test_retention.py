from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from davy import wire

from monitoring import ingest, retention, windows
from monitoring.models import Prediction, Report, Reporting, Rollup, Window
from tests.monitoring.build import T0, report, version, window


@pytest.fixture
def v1(db):
    return version()


def test_a_report_is_emptied_when_it_is_folded_and_forgotten_when_no_repeat_of_it_is_accepted(v1):
    body = wire.encode_report(report(v1, [window(np.random.default_rng(1))]))
    ingest.store_report(body, T0 + timedelta(seconds=11))
    windows.fold(T0)
    assert bytes(Report.objects.get().body) == b""
    assert ingest.store_report(body, T0 + timedelta(minutes=3)).duplicate == 1
    retention.prune(T0 + timedelta(hours=26))
    assert not Report.objects.exists()
    assert not Reporting.objects.exists()
    assert Window.objects.count() == 1


def test_what_is_not_folded_yet_stays_however_old(v1):
    ingest.store_report(wire.encode_report(report(v1, [])), T0)
    Prediction.objects.create(version=v1, request_id="raw", at=T0, received_at=T0, routed_at=T0)
    Prediction.objects.create(version=v1, request_id="s", at=T0, received_at=T0, sampler="band")
    retention.prune(T0 + timedelta(days=365))
    assert (Report.objects.count(), Prediction.objects.count()) == (1, 2)


def test_old_predictions_and_windows_go(v1):
    Prediction.objects.create(
        version=v1, request_id="raw", at=T0, received_at=T0, routed_at=T0, counted_at=T0
    )
    Prediction.objects.create(version=v1, request_id="s", at=T0, received_at=T0, sampler="band", routed_at=T0)
    Window.objects.create(version=v1, start=T0, end=T0, n=0, errors=0)
    retention.prune(T0 + timedelta(days=6))
    assert (Window.objects.count(), Prediction.objects.count()) == (1, 2)
    retention.prune(T0 + timedelta(days=9))
    assert (Window.objects.count(), Prediction.objects.count()) == (0, 0)


def test_roll_ups_outlive_windows_and_imported_windows_stay(v1):
    for purpose in ("live", "import"):
        Window.objects.create(
            version=v1, purpose=purpose, start=T0, end=T0 + timedelta(hours=1), n=1, errors=0
        )
    for seconds in (60, 3600, 86400):
        Rollup.objects.create(version=v1, start=T0, seconds=seconds, n=1, errors=0)

    def left(days):
        retention.prune(T0 + timedelta(days=days))
        return (
            list(Window.objects.values_list("purpose", flat=True)),
            sorted(Rollup.objects.values_list("seconds", flat=True)),
        )

    assert left(9) == (["import"], [3600, 86400])
    assert left(402) == (["import"], [86400])
    assert left(3 * 365 + 1) == (["import"], [])
