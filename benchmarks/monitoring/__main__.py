"""Measure monitoring's numbers, a table at a time.

python -m benchmarks.monitoring [NAME [options of it; --help shows them]]; without a name: all of them
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
    """Run the benchmark that the first argument names, or all; 2 when there is none of that name."""
    if not argv:
        return max([run(name, []) for name in COMMANDS])
    if argv[0] not in COMMANDS:
        print(__doc__, "\nNAME:", ", ".join(COMMANDS), file=sys.stderr)
        return 2
    return run(argv[0], argv[1:])


def run(name: str, argv: list[str]) -> int:
    """Print one table; 0 when its targets are met."""
    answer: int = importlib.import_module(COMMANDS[name]).main(argv)
    return answer


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
