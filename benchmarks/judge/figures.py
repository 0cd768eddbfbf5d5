"""What is the figure, how well is it known, and is its target met?"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from scipy.stats import beta, binom

LIMIT = 0.95  # two-sided


@dataclass(frozen=True)
class Row:
    """One line of the table. Limits are two-sided 95 %; `target` is the most that the figure may be."""

    row: str  # its name on the command line
    what: str
    figure: float
    low: float | None
    high: float | None
    unit: str
    target: float | None
    runs: int
    note: str = ""

    @property
    def met(self) -> str:
        """ "met", "missed by …", or "" without a target."""
        if self.target is None:
            return ""
        if self.figure <= self.target:
            return "met"
        if not math.isfinite(self.figure):
            return "missed: half or more of the runs never get there"
        return f"missed by {_said(self.figure - self.target)} {self.unit}"


def rate(
    row: str, what: str, hits: int, runs: int, *, most_percent: float | None = None, note: str = ""
) -> Row:
    """A share in percent, with its Clopper–Pearson limits."""
    low, high = clopper_pearson(hits, runs)
    return Row(row, what, 100 * hits / runs, 100 * low, 100 * high, "%", most_percent, runs, note)


def clopper_pearson(hits: int, runs: int) -> tuple[float, float]:
    """Exact 95 % limits of a binomial share (Clopper & Pearson, Biometrika 1934)."""
    outside = (1 - LIMIT) / 2
    low = float(beta.ppf(outside, hits, runs - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - outside, hits + 1, runs - hits)) if hits < runs else 1.0
    return low, high


def quantile(
    row: str, what: str, values: Sequence[float], share: float, unit: str, *, most: float | None = None
) -> Row:
    """A quantile with the order statistics that bracket it in 95 % of samples; infinity is a run without an end."""
    ordered = np.sort(np.asarray(values, dtype=float))
    runs = len(ordered)
    outside = (1 - LIMIT) / 2
    low = ordered[max(0, int(binom.ppf(outside, runs, share)) - 1)]
    high = ordered[min(runs - 1, int(binom.ppf(1 - outside, runs, share)))]
    figure = ordered[min(runs - 1, math.ceil(share * runs) - 1)]
    return Row(row, what, float(figure), float(low), float(high), unit, most, runs)


def write(path: Path, rows: Iterable[Row], command: str) -> None:
    """The table as CSV. Rows of earlier calls stay where this call did not measure them again."""
    header = [field.name for field in fields(Row)] + ["met", "command"]
    table: dict[tuple[str, str], dict[str, str]] = {}
    if path.exists():
        with path.open(newline="") as file:
            table = {(line["row"], line["what"]): line for line in csv.DictReader(file)}
    for row in rows:
        line = {key: _said(value) for key, value in asdict(row).items()}
        table[(row.row, row.what)] = {**line, "met": row.met, "command": command}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(table.values())


def sentence(row: Row) -> str:
    """The row as people read it."""
    limits = "" if row.low is None or row.high is None else f" [{_said(row.low)}, {_said(row.high)}]"
    target = "" if row.target is None else f"; to reach ≤ {row.target:g}: {row.met}"
    target += f" ({row.note})" if row.note else ""
    return f"{row.row}: {row.what}: {_said(row.figure)}{limits} {row.unit} in {row.runs:,} runs{target}"


def _said(value: float | int | str | None) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return "" if value is None else str(value)
