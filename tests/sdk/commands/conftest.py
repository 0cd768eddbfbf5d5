"""The command as it is typed: its exit code, what it prints, and a server that plays along."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from davy import cli

from tests.sdk.peer import Asked, Peer, Reply, running


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    with running() as peer:
        monkeypatch.setenv("DAVY_URL", peer.url)
        monkeypatch.setenv("DAVY_TOKEN", "dvy_1_secret")
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        yield peer


@pytest.fixture
def davy(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def davy(*arguments: str) -> Ran:
        code = cli.run(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return davy


def routes(answers: dict[str, Any]) -> Callable[[Asked], Reply]:
    """A respond by "METHOD /path": a document (200), a Reply, or a list of these, one after another."""

    def respond(asked: Asked) -> Reply:
        answer = answers[f"{asked.method} {asked.path.split('?')[0].removeprefix('/api/v1')}"]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        return answer if isinstance(answer, Reply) else Reply(200, answer)

    return respond


def a_rollout(state: str, **more: Any) -> dict[str, Any]:
    return {
        "id": 12,
        "model": "products",
        "version": "v2",
        "fleet": "local",
        "state": state,
        "step": 1,
        "weight_percent": 5.0,
        "observed_weight_percent": None,
        "reason": "",
        "gates": [{"name": "errors", "verdict": "INCONCLUSIVE"}],
        **more,
    }
