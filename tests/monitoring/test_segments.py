from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from davy.batch import OTHER_SEGMENT
from django.db import connections, transaction

from controlplane import alerts
from controlplane.models import Alert, Model
from monitoring import segments, windows
from monitoring.models import Segment, Window
from tests.monitoring.build import T0, report, store, version, window

CAUSE = "segments/products"


@pytest.fixture
def rng():
    return np.random.default_rng(17)


@pytest.fixture
def v1(db):
    return version()


def of(*devices):
    return [{"device": device} for device in devices]


def counted(model_id, named, limit):
    return [dict(found) for found in segments.admit(model_id, named, T0, limit).values()]


def test_the_first_segments_are_kept_and_further_ones_are_other(v1):
    model = v1.model_id
    assert counted(model, of("a", "b"), 3) == of("a", "b")
    assert counted(model, of("e", "d", "c"), 3) == [{"segment": "other"}, {"segment": "other"}, *of("c")]
    assert counted(model, of("a", "d"), 3) == [*of("a"), {"segment": "other"}]
    assert Segment.objects.count() == 3


def test_no_segment_and_other_take_no_room(v1):
    free = [{}, {"segment": "other"}]
    assert counted(v1.model_id, [*free, *of("a")], 1) == [*free, *of("a")]


def test_each_model_has_its_own_room(v1):
    other = Model.objects.create(name="faces").pk
    assert counted(v1.model_id, of("a"), 1) == of("a")
    assert counted(other, of("b"), 1) == of("b")


def test_the_collector_has_the_same_word():
    assert OTHER_SEGMENT.values == segments.OTHER


def test_counts_beyond_the_bound_are_folded_into_one_window_and_an_alert_says_so_once(v1, rng, settings):
    settings.SEGMENTS_MOST = 2
    for device in "abcde":
        store(report(v1, [window(rng, segment={"device": device}), window(rng, 50)]))
    windows.fold(T0)
    store(report(v1, [window(rng, segment={"device": "f"})]))
    windows.fold(T0)
    found = {row.segment_key: (row.segment, row.n) for row in Window.objects.all()}
    assert sorted(n for _, n in found.values()) == [100, 100, 250, 400]
    assert found['{"segment":"other"}'] == ({"segment": "other"}, 400)
    alert = Alert.objects.get(cause=CAUSE)
    assert (alert.count, alert.model) == (1, v1.model)
    assert "device=c" in alert.summary


def test_a_resolved_alert_comes_back_after_a_day_and_not_at_once(v1):
    counted(v1.model_id, of("a", "b"), 1)
    alerts.resolve(CAUSE, resolution="seen", now=T0)
    counted(v1.model_id, of("b"), 1)
    assert Alert.objects.filter(cause=CAUSE).count() == 1
    segments.admit(v1.model_id, of("b"), T0 + timedelta(days=2), 1)
    assert Alert.objects.filter(cause=CAUSE).count() == 2


@pytest.mark.django_db(transaction=True)
def test_workers_that_admit_at_once_do_not_exceed_the_bound():
    model = version().model_id
    together = threading.Barrier(4)

    def work(worker):
        try:
            together.wait()
            for index in range(5):
                with transaction.atomic():
                    segments.admit(model, of(f"{worker}-{index}"), T0, 7)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, worker) for worker in range(4)]:
            future.result()
    assert Segment.objects.count() == 7
