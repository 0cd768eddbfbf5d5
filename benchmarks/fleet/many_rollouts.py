"""What does a tick cost with everything in it? Many concurrent rollouts on memory fleets, ticked one after another.

    python -m benchmarks.fleet.many_rollouts --rollouts 1000 --rounds 3

Starts a PostgreSQL of its own. Every route has live traffic, split as the fleet is set: the router's counters of both
arms, and a collector's window of each arm every five seconds. A round ticks every rollout once, five simulated seconds
after the last. The first rounds are not told: collectors' first intervals close when their grace is over, and until
then a tick reads a third of its evidence. The aim is 1,000 rollouts in 5 s of one core.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import os
import pstats
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

ROUND_SECONDS = 5
AIM_MILLISECONDS = 5.0
RATE = 200  # requests a second on every route
WARM_UP_ROUNDS = 5  # the grace of collectors' first intervals, and the round that makes up for it


@contextlib.contextmanager
def database() -> Iterator[None]:
    """An empty database with Davy's tables, and Django set up on it."""
    folder = Path(tempfile.mkdtemp(prefix="davy-bench-"))
    folder.chmod(0o755)
    os.environ |= {"DAVY_VAR": str(folder), "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
    from controlplane import embedded

    os.environ["DATABASE_URL"] = embedded.start_postgres(folder)
    os.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"
    try:
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        yield
    finally:
        embedded.stop_postgres(folder)
        shutil.rmtree(folder, ignore_errors=True)


class World:
    """So many routes, each with a rollout of v2 over v1 at 5 %."""

    def __init__(self, rollouts: int) -> None:
        import numpy as np
        from davy import wire

        from controlplane.models import Fleet, Model, ModelVersion, Route
        from rollout.drivers.memory import MemoryDriver

        self.now = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
        self.fleet = Fleet.objects.create(name="many", driver="memory", config={"name": "many"})
        self.memory = MemoryDriver(self.fleet.config).fleet
        self.memory.clock = lambda: self.now.timestamp()  # noqa: PLW0108 - `now` moves
        confidence, latency = np.zeros(100, np.int64), np.zeros(96, np.int64)
        confidence[[45, 95]], latency[40:44] = (10, 90), 25
        self.histograms = wire.pack(confidence), wire.pack(latency)
        self.routes: list[tuple[str, ModelVersion, ModelVersion]] = []
        for i in range(rollouts):
            model = Model.objects.create(name=f"model-{i}")
            old, new = (
                ModelVersion.objects.create(
                    model=model,
                    name=name,
                    artifact_uri=f"mem:{name}",
                    digest=f"{i:08x}{name}".encode().hex().ljust(64, "0"),
                )
                for name in ("v1", "v2")
            )
            Route.objects.create(model=model, fleet=self.fleet, stable=old)
            self.routes.append((model.name, old, new))

    def start(self) -> list[int]:
        """A rollout on every route, at its first step."""
        from rollout import commands, look, tick

        plan = commands.read_plan("standard")
        pks = []
        for name, old, new in self.routes:
            self.memory.loaded[(name, "a")] = look.bundle(old)
            pks.append(commands.start(new, self.fleet, plan, actor="bench", now=self.now)[0].pk)
        for _ in range(4):
            self.now += timedelta(seconds=1)
            for pk in pks:
                tick.tick(pk, self.now)
        return pks

    def traffic(self) -> None:
        """Five seconds of requests on every route."""
        from monitoring.models import Reporting, Window

        self.now += timedelta(seconds=ROUND_SECONDS)
        confidence, latency = self.histograms
        windows, told = [], []
        span = {"start": self.now - timedelta(seconds=ROUND_SECONDS), "end": self.now}
        for name, old, new in self.routes:
            split = self.memory.weights.get(name, {"a": 100.0, "b": 0.0})
            for slot, version in (("a", old), ("b", new)):
                n = round(RATE * ROUND_SECONDS * split[slot] / 100)
                self.memory.count(name, slot, n)
                told.append(Reporting(version=version, reporters=[UUID(int=version.pk)], **span))
                windows.append(
                    Window(
                        version=version,
                        **span,
                        n=n,
                        errors=0,
                        confidence=confidence,
                        latency=latency,
                    )
                )
        Reporting.objects.bulk_create(told)
        Window.objects.bulk_create(windows)


def postgres_seconds() -> float:
    """CPU seconds that the server's processes have used so far (Linux)."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        postmaster = _stat(cursor.fetchone()[0])[1]
    found = [_stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return sum(seconds for _, parent, seconds in found if parent == postmaster)


def _stat(pid: int) -> tuple[int, int, float]:
    """(pid, parent, CPU seconds) of a process; zeros where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return pid, 0, 0.0
    return pid, int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Print milliseconds of a tick, and the functions that take them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with database():
        from rollout import tick
        from rollout.models import Rollout

        world = World(options.rollouts)
        pks = world.start()
        at_work = Rollout.objects.filter(state="running").count()
        profile = cProfile.Profile() if options.profile else None
        for _ in range(WARM_UP_ROUNDS):
            world.traffic()
            for pk in pks:
                tick.tick(pk, world.now)
        for _ in range(options.rounds):
            world.traffic()
            served = postgres_seconds()
            begun, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
            if profile:
                profile.enable()
            for pk in pks:
                tick.tick(pk, world.now)
            if profile:
                profile.disable()
            used = resource.getrusage(resource.RUSAGE_SELF)
            own = 1e3 * (used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime) / len(pks)
            wall = 1e3 * (time.perf_counter() - begun) / len(pks)
            theirs = 1e3 * (postgres_seconds() - served) / len(pks)
            print(
                f"{at_work} running; a tick: {own:.2f} ms of Davy's core (aim {AIM_MILLISECONDS:g}),"
                f" {theirs:.2f} ms of PostgreSQL's, {wall:.2f} ms on the clock"
            )
        if profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    return 0


if __name__ == "__main__":
    sys.exit(main())
