"""Does a month of somebody's history become hours, once, and never evidence for a rollout?"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from davy import counting, files, wire
from django.core.management import CommandError, call_command
from django.utils import timezone

from controlplane.models import ModelVersion
from controlplane.problems import Problem
from monitoring import references, retention, rollups, windows
from monitoring.backfill import backfill
from monitoring.models import Calibration, Report, Rollup, Window
from tests.monitoring.api import api, client_for, post, rng, v1
from tests.monitoring.build import report, window
from tests.sdk.history_files import T0, rows, write

__all__ = ["api", "client_for", "rng", "v1"]

LONG_AGO = datetime(2025, 3, 1, 7, tzinfo=UTC)
NOW = datetime.fromtimestamp(T0, UTC) + timedelta(days=40)


def hour(v1: ModelVersion, rng: np.random.Generator, start: datetime = LONG_AGO, **fields) -> wire.Report:
    return report(v1, [window(rng)], start=start, **{"seconds": 3600, **fields})


def send(api, of: wire.Report):
    return post(api, "imports", wire.encode_report(of), wire.CONTENT_TYPE)


def folded(now: datetime) -> None:
    windows.fold(now)
    rollups.roll(now)


# Over HTTP


def test_an_hour_of_any_age_is_stored_once_and_becomes_a_roll_up(api, v1, rng):
    sent = hour(v1, rng)
    assert (send(api, sent).status_code, send(api, sent).json()) == (202, {"accepted": 0, "duplicate": 1})
    folded(timezone.now())
    found = Rollup.objects.get(version=v1, seconds=3600)
    assert (found.purpose, found.start, found.n, found.errors) == ("import", LONG_AGO, 100, 3)
    assert (wire.unpack(bytes(found.confidence), (100,)) == sent.windows[0].confidence).all()


def test_history_is_no_evidence_for_a_rollout(api, v1, rng):
    last_hour = windows.aligned(timezone.now(), 3600) - timedelta(hours=1)
    send(api, hour(v1, rng, start=last_hour))
    folded(timezone.now())
    assert Window.objects.get().purpose == "import"
    assert windows.intervals(v1, last_hour, last_hour + timedelta(hours=1)) == []


def test_the_same_hour_sent_again_when_the_rest_was_forgotten_counts_nothing(api, v1, rng):
    sent = hour(v1, rng)
    send(api, sent)
    folded(timezone.now())
    retention.prune(timezone.now() + timedelta(days=300))
    assert bytes(Report.objects.get().body) == b""
    assert send(api, sent).json()["duplicate"] == 1


def test_another_file_adds_to_the_same_hour_even_a_year_later(api, v1, rng):
    send(api, hour(v1, rng, reporter=str(uuid.uuid4())))
    folded(timezone.now())
    retention.prune(timezone.now() + timedelta(days=300))
    send(api, hour(v1, rng, reporter=str(uuid.uuid4())))
    folded(timezone.now())
    assert Rollup.objects.get(seconds=3600).n == 200


@pytest.mark.parametrize(
    ("change", "status", "code", "pointer"),
    [
        ({"start": LONG_AGO + timedelta(minutes=10)}, 422, "not_aligned", "/from"),
        ({"seconds": 600}, 422, "not_aligned", "/to"),
        ({"start": windows.aligned(timezone.now(), 3600) + timedelta(hours=2)}, 422, "in_future", "/to"),
        ({"reference_digest": "ab" * 32}, 422, "unknown_reference", "/reference_digest"),
        ({"model": "shoes"}, 404, "unknown_model", "/model"),
        ({"version": "v9"}, 404, "unknown_version", "/version"),
    ],
)
def test_what_is_no_hour_of_a_known_version_is_refused_by_name(api, v1, rng, change, status, code, pointer):
    answer = send(api, hour(v1, rng, **change))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert not Report.objects.exists()


def test_history_is_of_live_requests(api, v1, rng):
    answer = send(api, report(v1, [window(rng, purpose="shadow")], start=LONG_AGO, seconds=3600))
    assert answer.json()["errors"][0]["pointer"] == "/windows/0/purpose"


def test_importing_takes_the_scope_of_whoever_may_deploy(client_for, v1, rng):
    assert send(client_for("read", "telemetry"), hour(v1, rng)).status_code == 403


# From a file on the server


@contextmanager
def no_bar(_label, _total=None):
    yield lambda _done: None


def freeze(v1, rng):
    reference, _ = references.freeze(v1, rng.normal(size=(500, 4)).astype("f4"), rng.random(500))
    return reference


def test_a_file_becomes_hours_by_segment_and_again_counts_nothing(v1, rng, tmp_path):
    reference = freeze(v1, rng)
    content = rows(800, hours=24 * 30)
    path = write(tmp_path / "month.parquet", content)
    found = [backfill(v1, path, files.columns_of(path), NOW, no_bar) for _ in range(2)]
    hours = len(np.unique(content["at"] // 3600))
    assert [dict(f) for f in found] == [
        {"rows": 800, "accepted": hours, "duplicate": 0},
        {"rows": 800, "accepted": 0, "duplicate": hours},
    ]
    made = Rollup.objects.filter(version=v1, seconds=3600)
    assert sum(made.values_list("n", flat=True)) == 800
    good = ~content["error"]
    counts = sum(wire.unpack(bytes(row.confidence), (100,)) for row in made)
    assert (counts == counting.count_confidence(content["confidence"][good])).all()
    assert {row.reference_digest for row in made} == {reference.digest}
    assert sum(row.embedded for row in made) == good.sum()
    assert {row.segment["country"] for row in made} == {"de", "fr"}


def test_three_weeks_of_history_are_enough_to_calibrate(v1, rng, tmp_path):
    hours = 21 * 24
    at = np.repeat(T0 + 3600.0 * np.arange(hours), 500)
    path = write(tmp_path / "weeks.npz", {"at": at, "confidence": rng.beta(8, 2, len(at))})
    now = datetime.fromtimestamp(T0 + 3600 * hours, UTC) + timedelta(minutes=5)
    backfill(v1, path, files.columns_of(path), now, no_bar)
    made = Calibration.objects.get(version=v1, family="confidence")
    assert (made.state, made.hours) == ("active", hours)


def test_a_wrong_row_anywhere_stores_nothing(v1, rng, tmp_path):
    freeze(v1, rng)
    content = rows(300)
    content["error"][:] = False
    content["embedding"][299, 2] = np.nan
    path = write(tmp_path / "rows.npz", content)
    with pytest.raises(files.FileError, match="row 300, column embedding"):
        backfill(v1, path, files.columns_of(path), NOW, no_bar)
    assert not Report.objects.exists()


def test_embeddings_without_a_reference_are_refused(v1, tmp_path):
    path = write(tmp_path / "rows.npz", rows(30))
    with pytest.raises(Problem, match="no reference"):
        backfill(v1, path, files.columns_of(path), NOW, no_bar)


def test_the_command_says_what_became_of_the_file(v1, rng, tmp_path, capsys):
    freeze(v1, rng)
    path = write(tmp_path / "rows.csv", rows(50) | {"note": np.full(50, "x")})
    call_command("backfill", str(path), "--model", "products", "--version-name", "v1")
    assert "not read: note" in (said := capsys.readouterr().out)
    assert "50 rows: 3 hours accepted, 0 known already" in said


@pytest.mark.parametrize(
    ("of", "column", "said"),
    [
        (("shoes", "v1"), [], "shoes"),
        (("products", "v1"), ["--column", "confidence"], "FIELD=COLUMN"),
        (("products", "v1"), ["--column", "confidence=score"], "score"),
    ],
)
def test_the_command_names_what_is_wrong(v1, tmp_path, of, column, said):
    path = write(tmp_path / "rows.csv", rows(5))
    with pytest.raises(CommandError, match=said):
        call_command("backfill", str(path), "--model", of[0], "--version-name", of[1], *column)
