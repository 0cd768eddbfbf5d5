"""Measure the judge's table, row by row; what is measured is written at once.

python -m benchmarks.judge --out docs/measurements/judge.csv [--only NAME …] [--runs N] [--seed S]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.judge import clusters, cost, false_alarms, figures, forms, power, promotion
from benchmarks.judge.runs import Runner

#: Light rows first: a call that is cut short has measured most of them.
ROWS = {
    **cost.ROWS,
    **power.ROWS,
    **forms.ROWS,
    **promotion.ROWS,
    **clusters.ROWS,
    **false_alarms.ROWS,
}


def main(argv: list[str]) -> int:
    """Run the rows asked for; 0 when they all reach their targets, 1 when one does not."""
    options = _options(argv)
    runner = Runner(options.seed, options.runs, options.minutes, options.keep)
    missed = []
    for name in options.only or ROWS:
        began = time.process_time()
        rows: dict[str, figures.Row] = {}
        for row in ROWS[name](runner):
            rows[row.what] = row
            figures.write(options.out, [row], _command(name, options))
        for row in rows.values():
            print(figures.sentence(row), flush=True)
        missed += [row for row in rows.values() if row.met.startswith("missed")]
        print(f"{name}: {time.process_time() - began:.0f} s of CPU", flush=True)
    return 1 if missed else 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.judge", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the table, as CSV; other rows in it stay")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), help="these rows")
    parser.add_argument("--runs", type=int, help="instead of each row's own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="each case makes do with the runs done by then")
    parser.add_argument(
        "--keep", type=Path, help="folder of ends of runs: those of an earlier call are not run again"
    )
    return parser.parse_args(argv)


def _command(name: str, options: argparse.Namespace) -> str:
    runs = "" if options.runs is None else f" --runs {options.runs}"
    return f"python -m benchmarks.judge --only {name} --seed {options.seed}{runs}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
