"""How did the evidence of every run move? One picture of log e against its line, from the runs' raw evidence.

python -m benchmarks.fleet.plot --raw var/runs --out docs/measurements/log_e.png
"""

from __future__ import annotations

import argparse
import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

GATES = ("errors", "latency", "confidence")
ROLL_BACK = math.log(100)
COLOURS = {"promoted": "#0072B2", "rolled_back": "#D55E00"}


def draw(axis: Any, run: dict[str, Any], gate: str) -> None:
    """One run's log e towards a rollback, by seconds since its first evidence."""
    rows = [row for row in run["evidence"] if row["gate"] == gate]
    times = [datetime.fromisoformat(row["to"]).timestamp() for row in rows]
    if times:
        seconds = [time - times[0] for time in times]
        axis.plot(seconds, [row["fail"] for row in rows], color=COLOURS.get(run["outcome"], "black"), lw=0.8)


def main() -> None:
    """Draw every run of the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in sorted(options.raw.glob("*.json"))]
    figure, axes = plt.subplots(1, len(GATES), figsize=(13, 4), sharey=True)
    for axis, gate in zip(axes, GATES, strict=True):
        for run in runs:
            draw(axis, run, gate)
        axis.axhline(ROLL_BACK, color="#D55E00", ls="--", lw=1)
        axis.set_title(f"{gate}: log e towards a rollback")
        axis.set_xlabel("seconds since the first evidence")
        axis.set_ylim(-4, 12)
    axes[0].text(2, ROLL_BACK + 0.2, "roll back at 4.61 (before weights)", fontsize=8, color="#D55E00")
    counts = {outcome: sum(run["outcome"] == outcome for run in runs) for outcome in COLOURS}
    figure.suptitle(f"blue: {counts['promoted']} promoted; vermillion: {counts['rolled_back']} rolled back")
    figure.tight_layout()
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
