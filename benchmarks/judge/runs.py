"""Many rollouts of one case: seeded one by one, so that more runs add to the same ones."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.judge.course import Course, Ended
from benchmarks.judge.traffic import Traffic, World
from rollout.plan import Plan


@dataclass(frozen=True)
class Case:
    """What is simulated. Run i takes world i modulo their number; the name seeds the generator."""

    name: str
    worlds: tuple[World, ...]
    plan: Plan
    seconds: float = 3600.0
    tick_seconds: float = 5.0
    window_seconds: float = 10.0
    by_gates: bool = False
    histograms: bool = True
    knows: Callable[[np.random.Generator, World], Mapping[str, Any]] | None = None  # see course.Course.known


def run_one(case: Case, seed: int, index: int) -> Ended:
    """Run number `index` of a case."""
    rng, world = generator(case.name, seed, index), case.worlds[index % len(case.worlds)]
    known = None if case.knows is None else case.knows(rng, world)
    traffic = Traffic(
        rng,
        world,
        ticks=round(case.seconds / case.tick_seconds),
        tick_seconds=case.tick_seconds,
        window_ticks=round(case.window_seconds / case.tick_seconds),
        histograms=case.histograms,
    )
    return Course(traffic, case.plan, by_gates=case.by_gates, known=known).run()


def generator(name: str, seed: int, index: int) -> np.random.Generator:
    """The same for the same name, seed and index, whatever else is run."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), index])


@dataclass(frozen=True)
class Runner:
    """How many runs, from which seed, for how long at most, and where their ends are kept."""

    seed: int = 0
    runs: int | None = None  # instead of each row's own number
    minutes: float | None = None  # a row that takes longer makes do with the runs it has
    keep: Path | None = None  # runs whose ends are kept there are not run again

    def all(self, case: Case, runs: int) -> list[Ended]:
        """The ends of that many runs of the case."""
        *_, done = self.growing(case, runs, every=runs)
        return done

    def growing(self, case: Case, runs: int, every: int) -> Iterator[list[Ended]]:
        """The ends so far, after each `every` runs and at the end."""
        wanted = self.wanted(runs)
        done = self._kept(case)[:wanted]
        over = self.over()
        while len(done) < wanted:
            ended = run_one(case, self.seed, len(done))
            done.append(ended)
            self._keep(case, ended)
            if time.monotonic() > over:
                break
            if len(done) % every == 0 and len(done) < wanted:
                yield done
        yield done

    def wanted(self, runs: int) -> int:
        """The number of runs: the caller's, or the row's own."""
        return runs if self.runs is None else self.runs

    def over(self) -> float:
        """When (monotonic seconds) a row that begins now has to end."""
        return time.monotonic() + (1e9 if self.minutes is None else 60 * self.minutes)

    def _file(self, case: Case) -> Path | None:
        return None if self.keep is None else self.keep / f"{case.name}-{self.seed}.jsonl"

    def _kept(self, case: Case) -> list[Ended]:
        file = self._file(case)
        if file is None or not file.exists():
            return []
        return [Ended(**json.loads(line)) for line in file.read_text().splitlines()]

    def _keep(self, case: Case, ended: Ended) -> None:
        file = self._file(case)
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(json.dumps(asdict(ended)) + "\n")
