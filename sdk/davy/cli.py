"""The `davy` command: what may be typed after it?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

USAGE = 1


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (sys.argv when None) and return its exit code.

    0 promoted or done, 1 usage, 2 rolled back, aborted or superseded, 3 timeout, 4 access, 5 server or failed.
    """
    try:
        import typer

        from davy import commands
        from davy.screen import Finished
    except ModuleNotFoundError as err:
        print(f"davy: the command needs {err.name}: pip install 'davy[cli]'", file=sys.stderr)
        return USAGE
    app = typer.Typer(
        name="davy",
        help="Register versions of vision models, roll them out, and see what is live. "
        "DAVY_URL and DAVY_TOKEN say where.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    commands.add_to(app)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="davy")
    except Finished as finished:
        return finished.code
    except SystemExit as ended:
        return USAGE if ended.code == 2 else int(ended.code or 0)  # 2 has another meaning here
    return 0


def main() -> NoReturn:
    """The entry point."""
    sys.exit(run())
