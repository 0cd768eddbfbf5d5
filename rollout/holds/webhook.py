"""What does another system say? A change calendar, a load test, a pipeline: asked by a signed webhook."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from django.conf import settings as django_settings

from controlplane import channels, outbound
from controlplane.models import Channel
from controlplane.pagers.webhook import signed
from controlplane.problems import Problem
from rollout.gates.base import Verdict
from rollout.holds import settings as read
from rollout.holds.base import NOT_ASKED, Answer, Question, sentence

TIMEOUT_SECONDS = 3.0  # a tick waits so long, and no longer
ANSWER_BYTES = 65_536
VERDICTS = {"pass": Verdict.PASS, "fail": Verdict.FAIL, "wait": Verdict.INCONCLUSIVE}
STATUSES = {403: Verdict.FAIL, 409: Verdict.FAIL}


class WebhookHold:
    """Settings: channel (the name of a webhook channel) or url (then unsigned), answer, every_seconds, before.

    The question goes as {"type": "rollout.question", "timestamp", "data": {…Question, "page"}}, with a channel signed
    after Standard Webhooks 1.0. What counts as an answer:

    answer "body" (default)  any 2xx with {"verdict": "pass" | "fail" | "wait", "reason": "…"}
    answer "status"          any 2xx is PASS, 403 and 409 are FAIL

    Everything else, silence and redirects included, is INCONCLUSIVE: a wrong URL is not a no.
    """

    name: ClassVar[str] = "webhook"
    every_seconds: ClassVar[float] = 10.0

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError("<key>: …"), also for a channel that is not there or is no webhook."""
        read.check_known(settings, ("channel", "url", "answer", "before", "every_seconds"))
        read.check_before(settings)
        read.check_number(settings, "every_seconds", *read.EVERY_SECONDS)
        if settings.get("answer", "body") not in ("body", "status"):
            raise ValueError("answer: either body or status")
        if ("channel" in settings) == ("url" in settings):
            raise ValueError("channel: either a channel's name, or a url without a secret, is needed")
        if "channel" in settings:
            if not isinstance(settings["channel"], str):
                raise ValueError("channel: the name of a webhook channel is needed")
            _channel(settings["channel"])
        else:
            url = settings["url"]
            wrong = outbound.check_url(url) if isinstance(url, str) else "has to be text"
            if wrong:
                raise ValueError(f"url: the URL {wrong}")

    def ask(self, settings: Mapping[str, Any], question: Question) -> Answer:
        """The other system's answer, within TIMEOUT_SECONDS."""
        if not read.asked(settings, question, read.EVERY_STEP):
            return NOT_ASKED
        try:
            answer = _post(settings, question)
        except (ValueError, Problem, outbound.OutboundError) as err:
            return Answer(Verdict.INCONCLUSIVE, sentence(f"the webhook could not be asked: {err}"))
        by_status = settings.get("answer", "body") == "status"
        return _read_status(answer) if by_status else _read_body(answer)


def _channel(name: str) -> Channel:
    """The webhook channel of that name. Raises ValueError("channel: …")."""
    found = Channel.objects.filter(name=name).first()
    if found is None or found.kind != "webhook":
        raise ValueError(f"channel: no webhook channel {name!r}")
    if not found.enabled:
        raise ValueError(f"channel: {name} is disabled: {found.disabled_reason}")
    return found


def _post(settings: Mapping[str, Any], question: Question) -> outbound.Answer:
    facts = asdict(question) | {"page": f"{django_settings.PUBLIC_URL}/rollouts/{question.rollout}"}
    facts |= {key: facts[key].isoformat() for key in ("step_entered_at", "now")}
    body = json.dumps({"type": "rollout.question", "timestamp": question.now.isoformat(), "data": facts})
    headers = {"Content-Type": "application/json"}
    url = settings.get("url")
    if url is None:
        channel = _channel(settings["channel"])
        url = channel.config["url"]
        message = f"rollout-{question.rollout}-{question.next_step}-{question.now.timestamp():.3f}"
        headers |= signed(channels.secret_of(channel), message, body)
    return outbound.post(url, body.encode(), headers, timeout=TIMEOUT_SECONDS, max_bytes=ANSWER_BYTES)


def _read_body(answer: outbound.Answer) -> Answer:
    if not 200 <= answer.status < 300:
        return Answer(Verdict.INCONCLUSIVE, sentence(f"the webhook answered {answer.status} {answer.text}"))
    try:
        said = json.loads(answer.content)
    except (ValueError, RecursionError):
        return Answer(Verdict.INCONCLUSIVE, sentence(f"the webhook's answer is not JSON: {answer.text}"))
    verdict = said.get("verdict") if isinstance(said, dict) else None
    if not isinstance(verdict, str) or verdict.lower() not in VERDICTS:
        unclear = f"the webhook gave no verdict (pass, fail or wait): {answer.text}"
        return Answer(Verdict.INCONCLUSIVE, sentence(unclear))
    reason = said.get("reason")
    words = reason if isinstance(reason, str) and reason.strip() else "without a reason"
    return Answer(VERDICTS[verdict.lower()], sentence(f"the webhook says {verdict.lower()}: {words}"))


def _read_status(answer: outbound.Answer) -> Answer:
    passed = 200 <= answer.status < 300
    verdict = Verdict.PASS if passed else STATUSES.get(answer.status, Verdict.INCONCLUSIVE)
    return Answer(verdict, sentence(f"the webhook answered {answer.status} {answer.text}"))
