"""The commands: one file each; `add_to` puts them on the command line."""

from __future__ import annotations

import typer

from davy.commands import doctor, register, rollout, status, telemetry


def add_to(app: typer.Typer) -> None:
    """Add every command. To add one, write a file here and a line below."""
    app.command("register")(register.register)
    app.command("status")(status.status)
    app.command("doctor")(doctor.doctor)
    app.add_typer(rollout.app, name="rollout")
    app.add_typer(telemetry.app, name="telemetry")
