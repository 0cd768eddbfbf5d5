"""POST /judgements: the state goes along signed or is kept under a key, and Prometheus may be read for the counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from django.core import signing
from django.test import Client

from rollout import judge_alone
from rollout.models import KeptJudgement
from tests.labeling.threads import together
from tests.rollout.api.test_rollouts import client, named, post
from tests.sdk.peer import Asked, Peer, Reply, running

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def body(i: int = 0, canary: tuple[int, int] = (1000, 1), **changes: Any) -> dict[str, Any]:
    begin = START + timedelta(seconds=30 * i)
    return {
        "arms": {
            "stable": {"n": 19_000, "errors": 19},
            "canary": dict(zip(("n", "errors"), canary, strict=True)),
        },
        "gates": [{"name": "errors"}],
        "weight_percent": 5,
        "interval": {"from": begin.isoformat(), "to": (begin + timedelta(seconds=30)).isoformat()},
    } | changes


@pytest.fixture
def api() -> Client:
    return client("read")


@pytest.mark.django_db
def test_the_state_goes_along_until_the_verdict(api: Client) -> None:
    state, verdicts = {}, []
    for i in range(20):
        answer = post(api, "/judgements", **body(i, canary=(200, 0)) | state)
        assert answer.status_code == 200, answer.content
        verdicts.append(answer.json()["verdict"])
        state = {"state": answer.json()["state"]}
    assert verdicts[0] == "INCONCLUSIVE"
    assert verdicts[-1] == "PASS"
    assert not KeptJudgement.objects.exists()


@pytest.mark.django_db
def test_a_bad_canary_fails_and_the_answer_says_why(api: Client) -> None:
    found = post(api, "/judgements", **body(canary=(1000, 60))).json()
    assert (found["verdict"], found["used"], found["weight_percent"]) == ("FAIL", True, 5)
    assert found["E"] >= 100
    assert found["log_e"] == pytest.approx(np.log(found["E"]))
    assert "canary 60 of 1,000 requests failed" in found["reason"]
    assert found["gates"][0]["verdict"] == "FAIL"


@pytest.mark.django_db
def test_a_state_is_a_few_kilobytes(api: Client) -> None:
    gates = [{"name": name} for name in ("errors", "latency", "confidence")]
    arms = {
        arm: {"n": n, "errors": 1, "latency": [n // 96] * 96, "confidence": [n // 100] * 100}
        for arm, n in (("stable", 19_000), ("canary", 1_000))
    }
    found = post(api, "/judgements", **body(arms=arms, gates=gates)).json()
    assert len(found["state"]) < 8_000


@pytest.mark.django_db
@pytest.mark.parametrize(
    "forge", [lambda s: s[:-3] + "abc", lambda s: s[5:], lambda s: "x", lambda s: s + ":"]
)
def test_a_state_that_davy_did_not_sign_is_refused(api: Client, forge: Any) -> None:
    state = post(api, "/judgements", **body()).json()["state"]
    assert named(post(api, "/judgements", **body(1, state=forge(state)))) == (422, "bad_state", ["/state"])


@pytest.mark.django_db
def test_what_was_signed_for_something_else_is_no_state(api: Client) -> None:
    other = signing.dumps({"terms": {}}, salt="something else")
    assert named(post(api, "/judgements", **body(state=other))) == (422, "bad_state", ["/state"])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        ((422, "differs", ["/gates"]), {"gates": [{"name": "errors", "settings": {"theta0": 2}}]}),
        ((422, "differs", ["/alpha"]), {"alpha": 0.05}),
        ((422, "differs", ["/assignment"]), {"assignment": "key"}),
    ],
)
def test_the_terms_of_a_judgement_stay_as_they_were(
    api: Client, answer: tuple[int, str, list[str]], changes: dict[str, Any]
) -> None:
    state = post(api, "/judgements", **body()).json()["state"]
    assert named(post(api, "/judgements", **body(1, state=state, **changes))) == answer


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        ((422, "bad_plan", ["/gates"]), {"gates": []}),
        ((422, "bad_plan", ["/gates/0/name"]), {"gates": [{"name": "colour"}]}),
        (
            (422, "bad_plan", ["/gates/0/settings/theta0"]),
            {"gates": [{"name": "errors", "settings": {"theta0": 0}}]},
        ),
        ((422, "bad_plan", ["/alpha"]), {"alpha": 2}),
        ((422, "invalid", ["/weight_percent"]), {"weight_percent": 100}),
        ((422, "invalid", ["/weight_percent"]), {"weight_percent": "much"}),
        ((422, "required", ["/interval"]), {"interval": None}),
        ((422, "invalid", ["/interval/to"]), {"interval": {"from": 1}}),
        ((422, "invalid", ["/interval/from"]), {"interval": {"from": "noon", "to": 5}}),
        ((422, "bad_period", ["/interval/to"]), {"interval": {"from": 5, "to": 5}}),
        ((422, "invalid", ["/arms/canary"]), {"arms": {"stable": {"n": 1}}}),
        ((422, "invalid", ["/arms/canary/n"]), {"arms": {"stable": {"n": 1}, "canary": {"n": -1}}}),
        ((422, "invalid", ["/arms/canary/n"]), {"arms": {"stable": {"n": 1}, "canary": {"n": True}}}),
        (
            (422, "impossible", ["/arms/canary/errors"]),
            {"arms": {"stable": {"n": 1}, "canary": {"n": 1, "errors": 2}}},
        ),
        (
            (422, "invalid", ["/arms/stable/latency"]),
            {"arms": {"stable": {"n": 1, "latency": [1]}, "canary": {"n": 1}}},
        ),
        ((422, "query_missing", ["/arms/stable/n"]), {"arms": {"stable": {"n": 1}, "canary": {"n": "up"}}}),
        ((422, "state_or_key", ["/state"]), {"state": "x", "key": "y"}),
        ((422, "invalid", ["/key"]), {"key": ""}),
        ((422, "invalid", ["/colour"]), {"colour": "red"}),
    ],
)
def test_what_cannot_be_judged_is_refused_at_its_field(
    api: Client, answer: tuple[int, str, list[str]], changes: dict[str, Any]
) -> None:
    assert named(post(api, "/judgements", **body(**changes))) == answer
    assert not KeptJudgement.objects.exists()


@pytest.mark.django_db
def test_a_hold_cannot_be_judged_alone(api: Client) -> None:
    gates = [{"name": "errors"}, {"name": "open_alert"}]
    assert named(post(api, "/judgements", **body(gates=gates))) == (422, "not_statistical", ["/gates/1/name"])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("scopes", "status"), [(("read",), 200), (("deploy",), 200), (("telemetry", "label"), 403)]
)
def test_reading_or_deploying_may_ask_the_judge(scopes: tuple[str, ...], status: int) -> None:
    assert post(client(*scopes), "/judgements", **body()).status_code == status


@pytest.mark.django_db
def test_under_a_key_davy_keeps_the_state(api: Client) -> None:
    first = post(api, "/judgements", **body(0, key="shop/v2")).json()
    second = post(api, "/judgements", **body(1, key="shop/v2")).json()
    assert (first["state"], second["state"]) == (None, None)
    assert second["gates"][0]["n"] == 2 * first["gates"][0]["n"] == 2000
    assert post(api, "/judgements", **body(1, key="shop/v2")).json()["used"] is False
    assert post(api, "/judgements", **body(1, key="shop/v3")).json()["gates"][0]["n"] == 1000


@pytest.mark.django_db
def test_a_key_belongs_to_the_token_s_user(api: Client) -> None:
    post(api, "/judgements", **body(0, key="shop/v2"))
    KeptJudgement.objects.update(actor="bob")
    assert post(api, "/judgements", **body(1, key="shop/v2")).json()["gates"][0]["n"] == 1000


@pytest.mark.django_db
def test_a_key_that_was_idle_for_long_begins_anew(api: Client) -> None:
    post(api, "/judgements", **body(0, key="shop/v2"))
    KeptJudgement.objects.update(updated_at=datetime.now(UTC) - timedelta(hours=2))
    patient = post(api, "/judgements", **body(1, key="shop/v2", begin_anew_after_seconds=86400)).json()
    assert patient["gates"][0]["n"] == 2000
    KeptJudgement.objects.update(updated_at=datetime.now(UTC) - timedelta(hours=2))
    assert post(api, "/judgements", **body(2, key="shop/v2")).json()["gates"][0]["n"] == 1000


@pytest.mark.django_db
def test_a_refused_call_keeps_what_was_kept(api: Client) -> None:
    post(api, "/judgements", **body(0, key="shop/v2"))
    before = KeptJudgement.objects.get().state
    assert post(api, "/judgements", **body(1, key="shop/v2", alpha=0.05)).status_code == 422
    assert KeptJudgement.objects.get().state == before


@pytest.mark.django_db(transaction=True)
def test_two_calls_at_once_under_one_key_count_their_interval_once(api: Client) -> None:
    answers = together(lambda _: post(api, "/judgements", **body(0, key="shop/v2")).json(), 2)
    assert sorted(answer["used"] for answer in answers) == [False, True]
    assert KeptJudgement.objects.count() == 1


@pytest.mark.django_db
def test_the_weight_is_the_observed_share_where_nobody_says_it(api: Client) -> None:
    found = post(api, "/judgements", **body(weight_percent=None)).json()
    assert found["weight_percent"] == 5
    assert post(api, "/judgements", **body(weight_percent="25")).json()["weight_percent"] == 25


# Prometheus


class Counters:
    """A Prometheus whose queries are names of counters."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {"sn": 1e6, "se": 1000.0, "cn": 0.0, "ce": 0.0}
        self.times: list[str] = []

    def __call__(self, asked: Asked) -> Reply:
        form = parse_qs(asked.body.decode())
        self.times.append(form["time"][0])
        value = self.values.get(form["query"][0])
        result = [] if value is None else [{"metric": {}, "value": [0, str(value)]}]
        return Reply(200, {"status": "success", "data": {"resultType": "vector", "result": result}})

    def serve(self, stable: tuple[int, int], canary: tuple[int, int]) -> None:
        for name, gained in zip(("sn", "se", "cn", "ce"), (*stable, *canary), strict=True):
            self.values[name] += gained


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def prometheus(counters: Counters, settings: Any) -> Iterator[Peer]:
    with running(counters) as peer:
        settings.PROMETHEUS_URLS = [peer.url]
        yield peer


QUERIES = {
    "arms": {"stable": {"n": "sn", "errors": "se"}, "canary": {"n": "cn", "errors": "ce"}},
    "gates": [{"name": "errors"}],
    "weight_percent": 5,
    "key": "k",
}


@pytest.mark.django_db
def test_counters_are_read_from_prometheus_at_one_moment(
    api: Client, prometheus: Peer, counters: Counters
) -> None:
    first = post(api, "/judgements", **QUERIES).json()
    assert (first["verdict"], first["used"]) == ("INCONCLUSIVE", False)
    counters.serve((19_000, 19), (1_000, 60))
    second = post(api, "/judgements", **QUERIES).json()
    assert (second["verdict"], second["used"]) == ("FAIL", True)
    assert len(set(counters.times)) == 2
    assert prometheus.asked[0].path == "/api/v1/query"


@pytest.mark.django_db
def test_a_prometheus_that_does_not_answer_changes_nothing(
    api: Client, prometheus: Peer, counters: Counters
) -> None:
    post(api, "/judgements", **QUERIES)
    kept = KeptJudgement.objects.get().state
    del counters.values["ce"]
    assert named(post(api, "/judgements", **QUERIES))[:2] == (502, "prometheus")
    assert KeptJudgement.objects.get().state == kept


@pytest.mark.django_db
def test_only_a_listed_prometheus_is_asked(api: Client, prometheus: Peer, settings: Any) -> None:
    other = QUERIES | {"prometheus": "http://169.254.169.254"}
    assert named(post(api, "/judgements", **other)) == (422, "no_such_prometheus", ["/prometheus"])
    settings.PROMETHEUS_URLS = []
    assert named(post(api, "/judgements", **QUERIES)) == (422, "no_such_prometheus", ["/prometheus"])
    assert not prometheus.asked


def test_a_state_that_would_be_too_long_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(Exception, match="too long"):
        judge_alone.sign({"numbers": rng.random(20_000).tolist()})
