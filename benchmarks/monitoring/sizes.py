"""How many bytes does a server cost a day, on the wire and on disk, and what do 10,000 servers cost?

python -m benchmarks.monitoring sizes [--images-per-second 50 500]

Reports are encoded as collectors do, stored, folded and rolled up by Davy's own code into a PostgreSQL of its own. The
bytes of a row are those of its table (rows, indexes, TOAST) after VACUUM FULL, divided by its rows; a day is so many
rows, on paper. k = 32, B = 256, images spread evenly over the segments. HTTP's headers and bloat are not in.
"""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from davy import counting, wire

from benchmarks.monitoring import database

if TYPE_CHECKING:
    from django.db.models import Model

    from monitoring.models import Report

ROWS, BINS = 33, 256
SEGMENTS = (1, 90)  # 15 countries × 6 devices
SERVERS = (1, 10_000)
INTERVAL, MINUTE, HOUR, DAY = 10, 60, 3600, 86400  # seconds
MOST_STORED = 50e9  # bytes a day of 10,000 servers
T0 = datetime(2026, 11, 20, tzinfo=UTC)
DIGEST = "0" * 64


@dataclass(frozen=True)
class Fleet:
    """Servers that answer so many images a second each, in so many segments together."""

    servers: int
    segments: int
    images_per_second: float

    def images(self, seconds: int) -> int:
        """Of one segment in that time."""
        return max(round(self.servers * self.images_per_second * seconds / self.segments), 1)


@dataclass(frozen=True)
class Bytes:
    """Of one row; `report` is what a folded one leaves: its own row and its part of the row that says who reported."""

    report: float
    window: float
    minute: float
    hour: float

    def day(self, fleet: Fleet) -> dict[str, float]:
        """Bytes that a day of the fleet leaves, by what leaves them."""
        return {
            "reports": fleet.servers * (DAY / INTERVAL) * self.report,
            "windows": fleet.segments * (DAY / INTERVAL) * self.window,
            "minutes": fleet.segments * (DAY / MINUTE) * self.minute,
            "hours": fleet.segments * (DAY / HOUR) * self.hour,
        }


def main(argv: list[str]) -> int:
    """Print both tables; 0 when 10,000 servers store at most 50 GB a day."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitoring sizes")
    parser.add_argument("--images-per-second", type=float, nargs="+", default=[50.0, 500.0])
    options = parser.parse_args(argv)
    fleets = [
        Fleet(servers, segments, rate)
        for rate in options.images_per_second
        for segments in SEGMENTS
        for servers in SERVERS
    ]
    rng = np.random.default_rng(0)
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, python -m benchmarks.monitoring sizes", *argv)
    _print_wire([fleet for fleet in fleets if fleet.servers == 1], rng)
    with database.scratch():
        stored = {fleet: measure(fleet, rng).day(fleet) for fleet in fleets}
        _print_disk(stored)
    return 0 if all(sum(day.values()) <= MOST_STORED for day in stored.values()) else 1


def report(fleet: Fleet, rng: np.random.Generator, start: datetime, seconds: int) -> wire.Report:
    """What one reporter would send of all of the fleet's images."""
    n = fleet.images(seconds)
    sure = np.bincount((100 * rng.beta(8, 2, 100_000)).astype(int), minlength=counting.CONFIDENCE_BINS)
    fast = counting.count_latency(rng.lognormal(-4.5, 0.4, 100_000))
    windows = [
        wire.WindowCounts(
            segment={"country": f"c{number % 15}", "device": f"d{number // 15}"}
            if fleet.segments > 1
            else {},
            n=n,
            confidence=rng.multinomial(n, sure[: counting.CONFIDENCE_BINS] / sure.sum()),
            latency=rng.multinomial(n, fast / fast.sum()),
            embedding=rng.multinomial(n, np.full(BINS, 1 / BINS), size=ROWS),
        )
        for number in range(fleet.segments)
    ]
    end = start + timedelta(seconds=seconds)
    return wire.Report(
        reporter=str(uuid.UUID(bytes=rng.bytes(16))),
        sequence=1,
        sent_at=end.timestamp(),
        model="products",
        version="v1",
        reference_digest=DIGEST,
        start=start.timestamp(),
        end=end.timestamp(),
        windows=windows,
    )


def measure(fleet: Fleet, rng: np.random.Generator) -> Bytes:
    """Store what a few intervals of each length leave; inside `database.scratch`."""
    from monitoring.models import Rollup, Window

    few = 1 if fleet.segments > 1 else 20  # so that every table gets some dozens of rows
    _fill(fleet, rng, INTERVAL, 4 * few)
    window = _bytes_per_row(Window)
    _fill(fleet, rng, MINUTE, 2 * few)
    minute = _bytes_per_row(Rollup)
    _fill(fleet, rng, HOUR, few)
    hour = _bytes_per_row(Rollup)
    return Bytes(_report_bytes(fleet, rng), window, minute, hour)


def _fill(fleet: Fleet, rng: np.random.Generator, seconds: int, intervals: int) -> None:
    """Fold, and roll up, so many intervals of an empty database; the day they belong to is not over."""
    from controlplane.models import Model, ModelVersion
    from monitoring import rollups, windows
    from monitoring.models import Report

    ModelVersion.objects.all().delete()
    model, _ = Model.objects.get_or_create(name="products")
    ModelVersion.objects.create(model=model, name="v1", artifact_uri="file:///v1", digest=DIGEST)
    for index in range(intervals):
        one = report(fleet, rng, T0 + timedelta(seconds=index * seconds), seconds)
        received = datetime.fromtimestamp(one.sent_at, UTC)
        Report.objects.create(
            reporter=one.reporter, sequence=1, body=wire.encode_report(one), received_at=received
        )
    windows.fold(T0)
    closed = T0 + timedelta(seconds=intervals * seconds)
    if seconds > INTERVAL:
        rollups.roll(closed + rollups.GRACE)


def _report_bytes(fleet: Fleet, rng: np.random.Generator) -> float:
    from controlplane.models import ModelVersion
    from monitoring import windows
    from monitoring.models import Report, Reporting

    Report.objects.all().delete()
    Report.objects.bulk_create(_folded(10_000, rng))
    version = ModelVersion.objects.get()
    together = min(fleet.servers, windows.REPORTS_PER_TRANSACTION)
    Reporting.objects.all().delete()
    Reporting.objects.bulk_create(
        Reporting(version=version, start=T0, end=T0, reporters=_uuids(together, rng)) for _ in range(1000)
    )
    return _bytes_per_row(Report) + _bytes_per_row(Reporting) / together


def _uuids(count: int, rng: np.random.Generator) -> list[uuid.UUID]:
    return [uuid.UUID(bytes=rng.bytes(16)) for _ in range(count)]


def _folded(rows: int, rng: np.random.Generator) -> Iterator[Report]:
    from monitoring.models import Report

    for sequence in range(rows):
        yield Report(reporter=_uuids(1, rng)[0], sequence=sequence, received_at=T0, folded_at=T0, body=b"")


def _bytes_per_row(model: type[Model]) -> float:
    from django.db import connection

    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM FULL {table}")
        cursor.execute(f"SELECT pg_total_relation_size('{table}'), count(*) FROM {table}")
        size, rows = cursor.fetchone()
    return float(size / rows)


def _print_wire(fleets: list[Fleet], rng: np.random.Generator) -> None:
    print("\n| images/s of a server | segments | a report, KiB | a server and day, MiB |\n|---|---|---|---|")
    for fleet in fleets:
        size = len(wire.encode_report(report(fleet, rng, T0, INTERVAL)))
        day = size * DAY / INTERVAL
        print(f"| {fleet.images_per_second:g} | {fleet.segments} | {size / 2**10:.1f} | {day / 2**20:,.0f} |")


def _print_disk(stored: dict[Fleet, dict[str, float]]) -> None:
    from monitoring import retention, rollups

    kept = {"reports": retention.REPORT, "windows": retention.WINDOW}
    kept |= {"minutes": retention.ROLLUPS[rollups.MINUTE], "hours": retention.ROLLUPS[rollups.HOUR]}
    print("\nStored a day, in MB; there after a year, with what is deleted meanwhile:\n")
    print(
        "| images/s of a server | segments | servers | reports | windows | minutes | hours | all | there, GB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for fleet, day in stored.items():
        there = sum(value * min(kept[name] / timedelta(days=1), 365) for name, value in day.items())
        parts = [f"{value / 1e6:,.1f}" for value in (*day.values(), sum(day.values()))]
        parts.append(f"{there / 1e9:,.1f}")
        place = f"{fleet.images_per_second:g} | {fleet.segments} | {fleet.servers:,}"
        print(f"| {place} | {' | '.join(parts)} |")
