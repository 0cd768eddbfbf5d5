"""The examples of docs/judge-only.md, asked as the tools' documentation says that they ask.

Argo Rollouts: https://argo-rollouts.readthedocs.io/en/stable/analysis/web/ (a web metric: method, url, headers, body or
jsonBody, jsonPath, conditions on `result`). Flagger: https://docs.flagger.app/usage/webhooks (POST of name, namespace,
phase, checksum, metadata; 2xx is yes).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from django.test import Client

from controlplane import access
from controlplane.models import User
from rollout.models import KeptJudgement
from tests.rollout.api.test_rollouts import V1, client, named, post
from tests.sdk.peer import Asked, Peer, Reply, running

pytestmark = pytest.mark.django_db
PAGE = Path(__file__).resolve().parents[2] / "docs" / "judge-only.md"
WEB_METRIC = {"method", "url", "headers", "body", "jsonBody", "timeoutSeconds", "jsonPath", "insecure"}
HOOK = {"name", "type", "url", "timeout", "metadata", "retries", "muteAlert"}
TEXT = PAGE.read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def documents(kind: str) -> dict[str, Any]:
    (found,) = (each for each in map(yaml.safe_load, blocks("yaml")) if each["kind"] == kind)
    return found


class Fleet:
    """A Prometheus that counts http_requests_total of two workloads."""

    def __init__(self) -> None:
        self.totals = {"stable": [500_000, 500], "canary": [0, 0]}
        self.canary = re.compile(r'hash="new"|app="podinfo"')

    def __call__(self, asked: Asked) -> Reply:
        query = parse_qs(asked.body.decode())["query"][0]
        assert query.startswith("sum(http_requests_total{")
        arm = "canary" if self.canary.search(query) else "stable"
        failed = 'code=~"5.."' in query
        assert failed == query.endswith("or vector(0)")
        value = self.totals[arm][1 if failed else 0]
        result = [{"metric": {}, "value": [0, str(value)]}]
        return Reply(200, {"status": "success", "data": {"resultType": "vector", "result": result}})

    def serve(self, canary_percent: float, error_rate: float, requests: int = 20_000) -> None:
        for arm, share, rate in (
            ("stable", 1 - canary_percent / 100, 0.001),
            ("canary", canary_percent / 100, error_rate),
        ):
            self.totals[arm][0] += round(requests * share)
            self.totals[arm][1] += round(requests * share * rate)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture(autouse=True)
def prometheus(fleet: Fleet, settings: Any) -> Iterator[Peer]:
    with running(fleet) as peer:
        settings.PROMETHEUS_URLS = [peer.url]
        yield peer


# Counts


def test_the_example_of_counts_is_judged() -> None:
    answer = post(client("read"), "/judgements", **json.loads(blocks("json")[0]))
    assert answer.status_code == 200, answer.content
    for name in ("verdict", "E", "log_e", "reason", "gates", "used", "state"):
        assert f"`{name}`" in TEXT
        assert name in answer.json()


# Argo Rollouts


def filled(value: Any, arguments: dict[str, str]) -> Any:
    """What Argo does with {{args.name}}; an argument that nobody gave stays, and fails the test."""
    if isinstance(value, dict):
        return {key: filled(each, arguments) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, arguments) for each in value]
    if isinstance(value, str):
        return re.sub(r"{{ *args\.([\w-]+) *}}", lambda found: arguments[found[1]], value)
    return value


class Argo:
    """Makes a web metric's measurements, and reads them by its conditions."""

    def __init__(self, weight: str = "5") -> None:
        user, _ = User.objects.get_or_create(username="argo")
        _, token = access.create_token(user, "argo", ["read"])
        spec = documents("AnalysisTemplate")["spec"]
        self.step = next(
            s for s in documents("Rollout")["spec"]["strategy"]["canary"]["steps"] if "analysis" in s
        )
        given = {argument["name"] for argument in self.step["analysis"]["args"]} | {"token"}
        assert given == {argument["name"] for argument in spec["args"]}
        values = {
            "service": "products",
            "weight": weight,
            "stable-hash": "old",
            "canary-hash": "new",
            "token": token,
        }
        (self.metric,) = filled(spec["metrics"], values)
        assert set(self.metric["provider"]["web"]) <= WEB_METRIC

    def measure(self) -> str:
        web = self.metric["provider"]["web"]
        headers = {header["key"]: header["value"] for header in web["headers"]}
        call = getattr(Client(headers=headers), web["method"].lower())
        response = call(urlsplit(web["url"]).path, web["jsonBody"], content_type="application/json")
        assert response.status_code == 200, response.content
        (field,) = re.fullmatch(r"\{\$\.(\w+)\}", web["jsonPath"]).groups()
        return self.phase(response.json()[field])

    def phase(self, result: Any) -> str:
        """https://argo-rollouts.readthedocs.io/en/stable/features/analysis/: neither condition met is Inconclusive."""
        for condition, phase in (("failureCondition", "Failed"), ("successCondition", "Successful")):
            (wanted,) = re.fullmatch(r'result == "(\w+)"', self.metric[condition]).groups()
            if result == wanted:
                return phase
        return "Inconclusive"


def test_argo_leaves_the_step_of_a_good_canary(fleet: Fleet) -> None:
    argo, phases = Argo(), []
    for _ in range(10):
        phases.append(argo.measure())
        fleet.serve(5, 0.001)
    assert phases[0] == "Inconclusive"
    assert "Successful" in phases
    assert "Failed" not in phases


def test_argo_aborts_a_bad_canary(fleet: Fleet) -> None:
    argo = Argo()
    assert argo.measure() == "Inconclusive"
    fleet.serve(5, 0.06)
    assert argo.measure() == "Failed"


def test_argo_s_next_step_is_judged_at_its_weight_with_the_evidence_of_harm_so_far(fleet: Fleet) -> None:
    argo = Argo()
    for _ in range(10):
        argo.measure()
        fleet.serve(5, 0.001)
    following = Argo("25")
    assert following.measure() == "Inconclusive"
    kept = KeptJudgement.objects.get()
    assert (kept.state["weight_percent"], kept.state["judge"]["errors"]["until"] is None) == (25, False)


def test_silence_of_prometheus_is_an_error_to_argo_and_no_verdict(prometheus: Peer) -> None:
    prometheus.respond = lambda _: Reply(500, b"down")
    argo = Argo()
    web = argo.metric["provider"]["web"]
    headers = {header["key"]: header["value"] for header in web["headers"]}
    response = Client(headers=headers).post(
        urlsplit(web["url"]).path, web["jsonBody"], content_type="application/json"
    )
    assert response.status_code == 502


# Flagger


class Flagger:
    """Calls the hooks of a Canary as its documentation says."""

    def __init__(self, checksum: str = "85d557f47b", **metadata: str) -> None:
        user, _ = User.objects.get_or_create(username="flagger")
        _, token = access.create_token(user, "flagger", ["read"])
        self.canary = documents("Canary")
        self.checksum = checksum
        self.metadata = {"token": token, **metadata}

    def call(self, kind: str, **changes: Any) -> Any:
        (hook,) = (h for h in self.canary["spec"]["analysis"]["webhooks"] if h["type"] == kind)
        assert set(hook) <= HOOK
        payload = {
            "name": self.canary["metadata"]["name"],
            "namespace": self.canary["metadata"]["namespace"],
            "phase": "Progressing",
            "checksum": self.checksum,
            "metadata": hook["metadata"] | self.metadata,
        } | changes
        return Client().post(urlsplit(hook["url"]).path, payload, content_type="application/json")

    def says_yes(self, kind: str, **changes: Any) -> bool:
        response = self.call(kind, **changes)
        assert response.status_code in (200, 409), response.content
        return bool(response.status_code == 200)


INCREASE, PROMOTION, ROLLBACK = "confirm-traffic-increase", "confirm-promotion", "rollback"


def test_flagger_s_first_increase_needs_no_evidence_and_the_next_one_does(fleet: Fleet) -> None:
    flagger = Flagger()
    assert flagger.says_yes(INCREASE)
    assert not flagger.says_yes(INCREASE)
    assert not flagger.says_yes(ROLLBACK)


def test_flagger_raises_a_good_canary_step_by_step_and_promotes_it(fleet: Fleet) -> None:
    flagger = Flagger()
    assert flagger.says_yes(INCREASE)
    for weight, question in ((5, INCREASE), (25, INCREASE), (50, PROMOTION)):
        answers = []
        for _ in range(60):
            assert not flagger.says_yes(ROLLBACK)
            answers.append(flagger.says_yes(question))
            if answers[-1]:
                break
            fleet.serve(weight, 0.001)
        assert answers[-1]
        assert len(answers) > 2  # each step needs evidence of its own


def test_flagger_rolls_a_bad_canary_back_and_never_raises_it(fleet: Fleet) -> None:
    flagger = Flagger()
    assert flagger.says_yes(INCREASE)
    flagger.says_yes(ROLLBACK)
    fleet.serve(5, 0.06)
    assert flagger.says_yes(ROLLBACK)
    assert not flagger.says_yes(INCREASE)
    assert not flagger.says_yes(PROMOTION)


def test_flagger_s_no_carries_the_reason_for_its_events(fleet: Fleet) -> None:
    flagger = Flagger()
    flagger.says_yes(INCREASE)
    refusal = flagger.call(PROMOTION)
    assert named(refusal)[:2] == (409, "inconclusive")
    assert "waits for errors" in refusal.json()["detail"]


def test_another_revision_of_the_canary_has_evidence_of_its_own(fleet: Fleet) -> None:
    for checksum in ("85d557f47b", "0123456789"):
        assert Flagger(checksum).says_yes(INCREASE)
    assert KeptJudgement.objects.count() == 2


def test_what_newer_flaggers_send_besides_is_let_through(fleet: Fleet) -> None:
    assert Flagger().says_yes(INCREASE, failedChecks=0, buildId="7")


@pytest.mark.parametrize(
    ("answer", "metadata"),
    [
        ((401, "not_authenticated", []), {"token": "dvy_x_y"}),
        ((401, "not_authenticated", []), {"token": ""}),
        ((422, "required", ["/metadata/canary_n"]), {"canary_n": " "}),
        ((422, "bad_weight", ["/metadata/weight_percent"]), {"weight_percent": "100"}),
        ((422, "bad_weight", ["/metadata/weight_percent"]), {"weight_percent": "heavy"}),
        ((422, "no_such_prometheus", ["/metadata/prometheus"]), {"prometheus": "http://169.254.169.254"}),
    ],
)
def test_a_hook_that_cannot_be_answered_is_refused(
    answer: tuple[int, str, list[str]], metadata: dict[str, str]
) -> None:
    assert named(Flagger(**metadata).call(INCREASE)) == answer
    assert not KeptJudgement.objects.exists()


def test_a_hook_s_token_needs_a_scope() -> None:
    user, _ = User.objects.get_or_create(username="flagger")
    _, token = access.create_token(user, "label", ["label"])
    assert named(Flagger(token=token).call(INCREASE))[:2] == (403, "missing_scope")


def test_other_hooks_are_not_answered(fleet: Fleet) -> None:
    response = Client().post(f"{V1}/judgements/flagger/rollout", {}, content_type="application/json")
    assert response.status_code == 422


def test_the_page_does_not_promise_more_than_is_tested() -> None:
    assert Path(__file__).name in TEXT
    assert "do not run in the tests" in TEXT
