"""Where does an alarm come from, read from stored hours?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from davy import counting, wire

from monitoring import causes, references
from monitoring.models import Episode, Rollup, Segment
from tests.monitoring.build import version
from tests.monitoring.statistics.fleet_of_cells import NAMES, PAST_HOURS, Fleet, where

pytestmark = pytest.mark.django_db

BEGAN = datetime(2026, 11, 20, 12, tzinfo=UTC)
SPLIT = counting.CONFIDENCE_BINS // 2


@pytest.fixture
def v1():
    return version()


@pytest.fixture
def reference(v1):
    rng = np.random.default_rng(3)
    references.freeze(v1, rng.normal(size=(300, 2)).astype("f4"), rng.random(300))
    return references.shape_of(v1)


def store(v1, images, means, reference=None, *, hours=None, names=NAMES, fleet="edge"):
    """Hourly roll-ups before and after BEGAN; without a reference means are the share of confidences above .5."""
    starts = range(-len(images), 0) if hours is None else hours
    rows = []
    for at, n_row, mean_row in zip(starts, images, means, strict=True):
        for name, n, mean in zip(names, n_row, mean_row, strict=True):
            segment = dict(zip(("country", "device"), name, strict=True))
            row = Rollup(
                version=v1,
                segment=segment,
                segment_key=wire.segment_key(segment),
                start=BEGAN + timedelta(hours=at),
                seconds=3600,
                fleet=fleet,
                n=int(n),
                errors=0,
            )
            if reference is not None:
                row.reference_digest, row.embedded = reference.digest, int(n)
                row.score_sums = (int(n) * mean).astype("<f8").tobytes()
            else:
                counts = np.zeros(counting.CONFIDENCE_BINS, np.int64)
                counts[SPLIT + 20] = round(float(n * mean[0]))
                counts[SPLIT - 10] = int(n) - counts[SPLIT + 20]
                row.confidence = wire.pack(counts)
            rows.append(row)
    Rollup.objects.bulk_create(rows, batch_size=2000)
    for name in names:
        segment = dict(zip(("country", "device"), name, strict=True))
        Segment.objects.get_or_create(
            model=v1.model, key=wire.segment_key(segment), defaults={"values": segment}
        )


def embeddings(v1, reference, shift=0.0, past=PAST_HOURS, now=3):
    """A fleet's past, and hours since BEGAN with a shift of one score."""
    fleet = Fleet(np.random.default_rng(4), coordinates=2 * reference.rows)
    store(v1, *fleet.hours(np.arange(past)), reference)
    images, means = fleet.hours(np.arange(past, past + now))
    means[:, :, 1] += shift
    store(v1, images, means, reference, hours=range(now))


def explain(v1, family="embedding", hours=3):
    return causes.explain(v1, family, BEGAN, BEGAN + timedelta(hours=hours))


def test_a_device_that_changed_is_named_from_stored_hours(v1, reference):
    embeddings(v1, reference, 0.3 * where("device", "cam2"))
    found = explain(v1)
    assert (found.sentence, found.target) == ("device cam2 only", {"device": "cam2"})
    assert found.effect == pytest.approx(0.3, abs=0.03)


def test_hours_as_before_blame_nobody(v1, reference):
    embeddings(v1, reference)
    assert explain(v1).sentence == "no country or device stands out, nor does the mix"


def test_an_earlier_episode_is_no_part_of_what_is_usual(v1, reference):
    embeddings(v1, reference, 0.3 * where("country", "de"), past=PAST_HOURS)
    before = Rollup.objects.filter(start__gte=BEGAN - timedelta(days=12), start__lt=BEGAN)
    for row in before.filter(segment__country="de"):
        sums = np.frombuffer(row.score_sums, "<f8").copy()
        sums[1] += 0.3 * row.n
        row.score_sums = sums.tobytes()
        row.save(update_fields=["score_sums"])
    hidden = explain(v1)
    Episode.objects.create(
        version=v1,
        family="embedding",
        began=BEGAN - timedelta(days=12),
        last=BEGAN - timedelta(hours=1),
        ended=BEGAN,
        statistic="largest",
        value=9,
        limit=5,
    )
    assert (hidden.kind, explain(v1).sentence) == ("none", "country de only")


def test_confidences_are_explained_without_a_reference(v1):
    rng = np.random.default_rng(5)
    images = np.full((400, len(NAMES)), 2000.0)
    share = 0.8 + rng.normal(0, 0.01, (400, len(NAMES), 1))
    store(v1, images, share)
    store(v1, images[:2], share[:2] - 0.1 * where("device", "cam1")[:, None], hours=range(2))
    assert explain(v1, "confidence", hours=2).sentence == "device cam1 only"


def test_one_of_several_fleets_is_named(v1):
    rng = np.random.default_rng(6)
    names = NAMES[:1]
    for fleet, fall in (("north", 0.0), ("south", 0.1)):
        share = 0.8 + rng.normal(0, 0.01, (400, 1, 1))
        store(v1, np.full((400, 1), 2000.0), share, names=names, fleet=fleet)
        store(v1, np.full((2, 1), 2000.0), share[:2] - fall, hours=range(2), names=names, fleet=fleet)
    assert explain(v1, "confidence", hours=2).sentence == "fleet south only"


def test_with_too_short_a_past_it_says_so(v1, reference):
    embeddings(v1, reference, past=50)
    found = explain(v1)
    assert (found.kind, found.sentence) == (
        "none",
        "cannot tell: 50 of 72 hours of a past to compare with",
    )


def test_before_an_hour_of_the_alarm_is_rolled_up_it_says_so(v1, reference):
    embeddings(v1, reference, past=80, now=0)
    assert explain(v1).sentence == "cannot tell: no hour of the alarm has been rolled up"


def test_a_version_that_nobody_heard_of_is_not_explained(v1):
    assert explain(v1).kind == "none"
    assert explain(v1, "confidence").kind == "none"
