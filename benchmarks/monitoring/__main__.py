"""Measure monitoring's numbers, a table at a time.

python -m benchmarks.monitoring NAME [options of it; --help shows them]
"""

from __future__ import annotations

import importlib
import sys

#: Each module of this package has a main(argv) that prints its table in Markdown; 0: its targets are met.
COMMANDS = {
    "alarms": "benchmarks.monitoring.alarms",
    "slow": "benchmarks.monitoring.slow",
    "attribution": "benchmarks.monitoring.attribution",
    "counting": "benchmarks.monitoring.counting",
    "sizes": "benchmarks.monitoring.sizes",
}


def main(argv: list[str]) -> int:
    """Run the benchmark that the first argument names; 2 when there is none of that name."""
    if not argv or argv[0] not in COMMANDS:
        print(__doc__, "\nNAME:", ", ".join(COMMANDS), file=sys.stderr)
        return 2
    answer: int = importlib.import_module(COMMANDS[argv[0]]).main(argv[1:])
    return answer


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
