"""Approvals: who may say yes to what, what a no does, and that nothing goes around them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from controlplane import access
from controlplane.models import Alert, AuditEntry, User
from controlplane.problems import Problem
from rollout import commands
from rollout.models import Approval, Rollout, RolloutEvent
from tests.rollout.scene import Behaviour, Scene
from tests.rollout.test_asking import plan, verdict

pytestmark = pytest.mark.django_db
PATIENCE_SECONDS = 60


def approval(**settings: Any) -> dict[str, Any]:
    return {"name": "approval", "settings": settings}


@pytest.fixture(autouse=True)
def people() -> None:
    for name, role in (("bob", "approver"), ("cleo", "admin"), ("eve", "engineer"), ("vic", "viewer")):
        User.objects.create_user(name, role=role)


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    scene = Scene(request.node.name[:60].lower())
    scene.live()
    return scene


def waiting(scene: Scene, **settings: Any) -> Rollout:
    """A rollout of v2 at its last step, whose other gates have passed."""
    rollout = scene.start(scene.version("v2"), plan(approval(**settings)))
    for _ in range(120):
        found = scene.run(rollout, 1)
        if found.step == 1 and "waits for approval" in found.reason:
            return found
    raise AssertionError(scene.get(rollout).reason)


def say(scene: Scene, rollout: Rollout, who: str, decision: str = "approve", **more: Any) -> Rollout:
    user = User.objects.get(username=who)
    return commands.approve(
        rollout.pk, user, decision=decision, reason=f"{who} looked at it", now=scene.now, **more
    )


def refused(status: int, code: str, call: Any) -> str:
    with pytest.raises(Problem) as caught:
        call()
    assert (caught.value.status, caught.value.code) == (status, code)
    return caught.value.detail


# Waiting: behaviour 10


def test_10_a_step_waits_for_approval_says_who_may_and_records_who_did_and_why(scene: Scene) -> None:
    rollout = waiting(scene)
    assert "0 of 1 approvals for the promotion; may approve: bob, cleo" in rollout.reason
    say(scene, rollout, "bob")
    ended = scene.run(rollout, 30)
    assert ended.state == "promoted"
    stored = Approval.objects.get(rollout=rollout)
    assert (stored.actor, stored.decision, stored.reason) == ("bob", "approve", "bob looked at it")
    line = RolloutEvent.objects.get(rollout=rollout, kind="approval")
    assert (line.actor, line.reason) == ("bob", "approved the promotion: bob looked at it")
    entry = AuditEntry.objects.get(act="rollout.approve")
    assert (entry.actor, entry.subject, entry.reason) == ("bob", f"rollout {rollout.pk}", "bob looked at it")
    assert verdict(scene, rollout, "approval")["reason"] == "bob approved the promotion: bob looked at it"


def test_waiting_for_a_person_is_not_being_stuck(scene: Scene) -> None:
    rollout = waiting(scene)
    still = scene.run(rollout, 2 * PATIENCE_SECONDS)
    assert (still.state, still.weight_percent) == ("running", 50)
    assert not Alert.objects.filter(resolved_at=None).exclude(severity="info").exists()
    assert verdict(scene, rollout, "approval")["asks_people"]


def test_silence_holds_though_a_person_is_waited_for(scene: Scene) -> None:
    rollout = waiting(scene)
    held = scene.run(rollout, 2 * PATIENCE_SECONDS, traffic=False)
    assert held.state == "held"
    assert "no evidence for errors" in held.reason


def test_approval_alone_promotes_nothing_that_the_judge_has_not_passed(scene: Scene) -> None:
    scene.collectors = False
    latency = {"name": "latency"}
    rollout = scene.start(scene.version("v2"), plan(latency, approval(before="every step")))
    scene.run(rollout, 10, until="running")
    say(scene, rollout, "bob")
    assert scene.run(rollout, 40).weight_percent == 5


def test_a_bad_canary_is_rolled_back_while_it_waits(scene: Scene) -> None:
    rollout = waiting(scene)
    scene.behaviour["v2"] = Behaviour(errors=1.0)
    assert scene.run(rollout, 30).state == "rolled_back"


def test_only_the_weights_that_the_plan_names_wait(scene: Scene) -> None:
    rollout = scene.start(scene.version("v2"), plan(approval(before=[50])))
    scene.run(rollout, 40)
    found = scene.get(rollout)
    assert (found.step, "approvals for the step to 50 %" in found.reason) == (0, True)
    say(scene, found, "cleo")
    assert scene.run(rollout, 120).state == "promoted"


# No


def test_a_no_holds_and_pages_and_the_same_person_can_take_it_back(scene: Scene) -> None:
    rollout = waiting(scene)
    say(scene, rollout, "bob", "reject")
    held = scene.run(rollout, 10, until="held")
    assert "approval says no: bob rejected the promotion" in held.reason
    assert "bob looked at it" in Alert.objects.get(resolved_at=None).summary
    say(scene, rollout, "cleo")
    assert scene.run(rollout, 10).state == "held"
    say(scene, rollout, "bob")
    assert scene.run(rollout, 30).state == "promoted"
    assert [e.detail["decision"] for e in rollout.events.filter(kind="approval")] == [
        "reject",
        "approve",
        "approve",
    ]


def test_a_no_rolls_back_where_the_plan_says_so(scene: Scene) -> None:
    rollout = scene.start(scene.version("v2"), plan({**approval(before="every step"), "on_fail": "rollback"}))
    scene.run(rollout, 10, until="running")
    say(scene, rollout, "bob", "reject")
    ended = scene.run(rollout, 10)
    assert ended.state == "rolled_back"
    assert ended.reason.startswith("approval failed: bob rejected the step to 50 %")


# Who may


@pytest.mark.parametrize("who", ["eve", "vic", "pipeline"])
def test_only_those_whom_the_plan_names_may_approve(scene: Scene, who: str) -> None:
    User.objects.get_or_create(username="pipeline", defaults={"role": "approver"})
    rollout = waiting(scene)
    assert "not pipeline, who started it" in rollout.reason
    detail = refused(403, "not_an_approver", lambda: say(scene, rollout, who))
    assert "bob, cleo" in detail
    assert not Approval.objects.exists()


@pytest.mark.parametrize(
    ("settings", "may"),
    [
        ({}, {"bob", "cleo"}),
        ({"approvers": "admin"}, {"cleo"}),
        ({"approvers": "engineer"}, {"bob", "cleo", "eve"}),
        ({"approvers": ["eve"]}, {"eve"}),
    ],
)
def test_a_role_names_those_that_have_it_or_a_higher_one(
    scene: Scene, settings: dict[str, Any], may: set[str]
) -> None:
    rollout = waiting(scene, **settings)
    for who in may:
        say(scene, rollout, who)
    for who in {"bob", "cleo", "eve", "vic"} - may:
        refused(403, "not_an_approver", lambda who=who: say(scene, rollout, who))
    assert {row.actor for row in Approval.objects.all()} == may


def test_who_started_it_may_approve_it_alone_only_where_the_plan_allows_it(scene: Scene) -> None:
    User.objects.create_user("pipeline", role="admin")
    rollout = waiting(scene, own=True)
    assert "who started it" not in rollout.reason
    say(scene, rollout, "pipeline")
    assert scene.run(rollout, 30).state == "promoted"


def test_two_have_to_say_yes_where_the_plan_wants_two(scene: Scene) -> None:
    User.objects.create_user("pipeline", role="approver")
    rollout = waiting(scene, least=2)
    say(scene, rollout, "pipeline")
    say(scene, rollout, "pipeline")
    assert "1 of 2 approvals" in scene.run(rollout, 5).reason
    say(scene, rollout, "bob")
    assert scene.run(rollout, 30).state == "promoted"


def test_the_same_word_twice_is_one_line_in_the_log(scene: Scene) -> None:
    rollout = waiting(scene)
    say(scene, rollout, "bob")
    say(scene, rollout, "bob")
    assert rollout.events.filter(kind="approval").count() == 1
    assert AuditEntry.objects.filter(act="rollout.approve").count() == 1


# When


def test_a_yes_to_one_step_is_not_a_yes_to_the_next(scene: Scene) -> None:
    rollout = scene.start(scene.version("v2"), plan(approval(before="every step")))
    scene.run(rollout, 10, until="running")
    say(scene, rollout, "bob", weight_percent=5)
    found = scene.run(rollout, 60)
    assert (found.step, "0 of 1 approvals for the promotion" in found.reason) == (1, True)
    detail = refused(409, "moved_on", lambda: say(scene, rollout, "cleo", weight_percent=5))
    assert "at 50 % now" in detail
    assert Approval.objects.filter(rollout=rollout, step=2).count() == 0


def test_where_nothing_is_asked_there_is_nothing_to_approve(scene: Scene) -> None:
    rollout = scene.start(scene.version("v2"), plan(approval()))
    refused(409, "not_now", lambda: say(scene, rollout, "bob"))
    scene.run(rollout, 10, until="running")
    refused(409, "nothing_to_approve", lambda: say(scene, rollout, "bob"))
    commands.act(rollout.pk, "abort", actor="ann", reason="enough", now=scene.now)
    scene.run(rollout, 10)
    refused(409, "not_now", lambda: say(scene, rollout, "bob"))
    free = scene.start(scene.version("v3"), plan())
    scene.run(free, 10, until="running")
    refused(409, "nothing_to_approve", lambda: say(scene, free, "bob"))


def test_a_retry_asks_anew(scene: Scene) -> None:
    rollout = waiting(scene)
    say(scene, rollout, "bob")
    commands.act(rollout.pk, "abort", actor="ann", reason="typo", now=scene.now)
    scene.run(rollout, 10)
    again = commands.retry(rollout.pk, actor="ann", reason="again", now=scene.now)
    found = scene.run(again, 60)
    assert (found.state, "0 of 1 approvals" in found.reason) == ("running", True)
    assert found.started_by == "ann"


# Promotion by hand


def test_a_promotion_by_hand_skips_gates_but_no_approval(scene: Scene) -> None:
    rollout = waiting(scene)

    def promote(actor: str) -> Rollout:
        return commands.act(rollout.pk, "promote", actor=actor, reason="now", now=scene.now)

    for actor in ("eve", "pipeline", "nobody"):
        assert "0 of 1 approvals" in refused(403, "needs_approval", lambda actor=actor: promote(actor))
    say(scene, rollout, "cleo", "reject")
    assert "cleo rejected" in refused(409, "rejected", lambda: promote("bob"))
    assert promote("cleo").state == "promoting"


def test_a_promotion_by_hand_needs_the_approvals_of_every_step_that_it_skips(scene: Scene) -> None:
    rollout = scene.start(scene.version("v2"), plan(approval(before=[50, "promotion"], least=2)))
    scene.run(rollout, 10, until="running")
    say(scene, rollout, "bob")
    refused(
        403,
        "needs_approval",
        lambda: commands.act(rollout.pk, "promote", actor="cleo", reason="now", now=scene.now),
    )


def test_an_approval_in_dry_run_stops_nobody(scene: Scene) -> None:
    rollout = scene.start(scene.version("v2"), plan({**approval(), "dry_run": True}))
    scene.run(rollout, 10, until="running")
    acted = commands.act(rollout.pk, "promote", actor="eve", reason="now", now=scene.now)
    assert acted.state == "promoting"


def test_abort_and_pause_need_no_approval(scene: Scene) -> None:
    rollout = waiting(scene)
    for command in ("pause", "resume", "abort"):
        commands.act(rollout.pk, command, actor="eve", reason="now", now=scene.now)
    assert scene.run(rollout, 10).state == "aborted"


# What a plan may say


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("least", {"least": 0}),
        ("least", {"least": 1.5}),
        ("least", {"least": True}),
        ("least", {"least": 2, "approvers": ["bob"]}),
        ("own", {"own": "yes"}),
        ("approvers", {"approvers": "viewer"}),
        ("approvers", {"approvers": "boss"}),
        ("approvers", {"approvers": []}),
        ("approvers", {"approvers": 5}),
        ("approvers/1", {"approvers": ["bob", "bob"]}),
        ("approvers/1", {"approvers": ["bob", "nobody"]}),
        ("approvers/0", {"approvers": ["vic"]}),
    ],
)
def test_terms_that_cannot_be_are_refused_at_their_field(key: str, settings: dict[str, Any]) -> None:
    with pytest.raises(Problem) as problem:
        commands.read_plan(plan(approval(**settings)))
    assert [e["pointer"] for e in problem.value.errors] == [f"/plan/gates/1/settings/{key}"]


# Over REST


def client(name: str, *scopes: str) -> Client:
    _, text = access.create_token(User.objects.get(username=name), "test", scopes)
    return Client(raise_request_exception=False, headers={"Authorization": f"Bearer {text}"})


def post(api: Client, rollout: Rollout, **body: Any) -> Any:
    path = f"/api/v1/rollouts/{rollout.pk}/approve"
    return api.post(path, body, content_type="application/json")


def test_a_token_approves_as_its_user(scene: Scene) -> None:
    rollout = waiting(scene)
    answer = post(client("bob", "deploy"), rollout, reason="fine", weight_percent=50)
    assert (answer.status_code, answer.json()["state"]) == (202, "running")
    assert answer.json()["started_by"] == "pipeline"
    assert Approval.objects.get().actor == "bob"


@pytest.mark.parametrize(
    ("who", "body", "status", "code"),
    [
        ("eve", {"reason": "x"}, 403, "not_an_approver"),
        ("bob", {"reason": " "}, 422, "required"),
        ("bob", {}, 422, "invalid"),
        ("bob", {"reason": "x", "decision": "maybe"}, 422, "invalid"),
        ("bob", {"reason": "x", "weight_percent": 5}, 409, "moved_on"),
    ],
)
def test_an_approval_that_cannot_be_is_a_problem(
    scene: Scene, who: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = post(client(who, "deploy"), waiting(scene), **body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not Approval.objects.exists()


def test_a_token_that_only_reads_approves_nothing(scene: Scene) -> None:
    assert post(client("bob", "read"), waiting(scene), reason="x").status_code == 403


def test_a_no_over_rest_and_an_unknown_rollout(scene: Scene) -> None:
    rollout = waiting(scene)
    assert post(client("bob", "deploy"), rollout, reason="not yet", decision="reject").status_code == 202
    assert Approval.objects.get().decision == "reject"
    rollout.pk = 999_999
    assert post(client("bob", "deploy"), rollout, reason="x").json()["code"] == "unknown_rollout"


# On the page


def page(name: str, rollout: Rollout) -> str:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client.get(f"/rollouts/{rollout.pk}").content.decode()


def test_only_who_may_approve_sees_the_buttons_and_everybody_who_that_is(scene: Scene) -> None:
    rollout = waiting(scene)
    assert 'value="approve"' in page("bob", rollout)
    for name in ("eve", "vic"):
        shown = page(name, rollout)
        assert 'value="approve"' not in shown
        assert "may approve: bob, cleo" in shown


def test_a_hold_s_row_says_that_it_is_no_evidence_and_what_a_no_does(scene: Scene) -> None:
    shown = re.sub(r"\s+", " ", page("vic", waiting(scene)))
    assert "asked, no evidence: a no holds" in shown


def test_a_person_approves_on_the_page_what_the_page_showed(scene: Scene) -> None:
    rollout = waiting(scene)
    browser = Client()
    browser.force_login(User.objects.get(username="bob"))
    path = f"/rollouts/{rollout.pk}/act"
    for weight in ("5", "", "5.0"):
        browser.post(path, {"command": "approve", "reason": "fine", "weight_percent": weight})
    assert not Approval.objects.exists()
    browser.post(path, {"command": "approve", "reason": "fine", "weight_percent": "50.0"})
    assert Approval.objects.get().reason == "fine"
    browser.post(path, {"command": "reject", "reason": "no, wait", "weight_percent": "50.0"})
    assert (Approval.objects.get().decision, Approval.objects.get().reason) == ("reject", "no, wait")
