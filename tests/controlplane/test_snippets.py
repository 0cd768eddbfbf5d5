"""What newcomers copy."""

from __future__ import annotations

import ast
import json
import re
import shlex

import pytest
import typer
from davy import commands

from controlplane.snippets import first_steps

STEPS = first_steps("https://davy.test", "products", "local")


def of(tool: str) -> list[str]:
    return [snippet.text for step in STEPS.values() for snippet in step if snippet.tool == tool]


def test_every_step_is_shown_for_every_tool() -> None:
    assert all([snippet.tool for snippet in step] == ["davy", "curl", "Python"] for step in STEPS.values())


@pytest.mark.parametrize("text", of("davy"))
def test_the_davy_command_knows_every_word(text: str) -> None:
    app = typer.Typer()
    commands.add_to(app)
    command, words = typer.main.get_command(app), shlex.split(text)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    assert command.make_context("davy", words).params  # an unknown option is refused


@pytest.mark.parametrize("text", of("curl"))
def test_a_body_for_curl_is_json_and_the_url_is_this_davy(text: str) -> None:
    assert "https://davy.test/api/v1/" in text
    for body in re.findall(r"-d '([^']+)'", text):
        json.loads(body)


def test_the_python_lines_are_python() -> None:
    ast.parse("\n".join(of("Python")))
