"""Does the command answer what is typed wrongly with code 1, never with a trace?"""

from __future__ import annotations

import pytest
from davy import cli


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["rollout", "start"], ["rollout", "watch", "x"], ["status", "--x"]]
)
def test_a_usage_error_is_code_1(arguments, capsys):
    assert cli.run(arguments) == 1
    assert "Usage" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["rollout", "start", "--help"]])
def test_help_is_no_error(arguments, capsys):
    assert cli.run(arguments) == 0
    assert "davy" in capsys.readouterr().out


def test_a_variable_that_is_missing_or_wrong_is_named(capsys, monkeypatch):
    monkeypatch.delenv("DAVY_TOKEN", raising=False)
    monkeypatch.setenv("DAVY_URL", "http://127.0.0.1:9")
    assert cli.run(["status"]) == 1
    assert "DAVY_TOKEN is not set" in capsys.readouterr().err
    monkeypatch.setenv("DAVY_TOKEN", "t")
    monkeypatch.setenv("DAVY_URL", "davy.example")
    assert cli.run(["status"]) == 1
    assert "'davy.example' is no http" in capsys.readouterr().err


def test_a_server_that_is_gone_is_code_5(capsys, monkeypatch):
    monkeypatch.setenv("DAVY_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("DAVY_TOKEN", "t")
    assert cli.run(["status"]) == 5
    assert "does not answer" in capsys.readouterr().err
