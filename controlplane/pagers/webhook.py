"""How is a page sent to any HTTP receiver? As a signed webhook, after Standard Webhooks 1.0."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from controlplane import outbound, problems
from controlplane.pagers.base import Message, PagerError

SECRET_BYTES = (24, 64)  # the standard's length of a secret
ANSWER_CHARACTERS = 500


class WebhookPager:
    """`config` is {"url"}; the secret is `whsec_` and 24-64 bytes in base64."""

    def check(self, config: Mapping[str, Any], secret: str) -> None:
        """The URL has to be http(s) without credentials; whether its address may be called is seen when sending."""
        for name in config:
            if name != "url":
                raise problems.field(
                    f"/config/{name}", "unknown_setting", "a webhook has the setting url only"
                )
        url = config.get("url")
        if not isinstance(url, str):
            raise problems.field("/config/url", "required", "the URL to post to")
        wrong = outbound.check_url(url)
        if wrong:
            raise problems.field("/config/url", "bad_url", f"the URL {wrong}")
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not SECRET_BYTES[0] <= len(key) <= SECRET_BYTES[1]:
            raise problems.field("/secret", "bad_secret", "whsec_ and 24 to 64 bytes in base64")

    def send(self, message: Message, config: Mapping[str, Any], secret: str) -> str:
        """Any 2xx is taken; 410 is gone for good; 408, 429 and 5xx may be tried again, other answers may not."""
        body = json.dumps(_payload(message))
        headers = {"Content-Type": "application/json", **signed(secret, message.id, body)}
        try:
            answer = outbound.post(config["url"], body.encode(), headers)
        except outbound.OutboundError as err:
            raise PagerError(str(err), retry=err.retry) from err
        said = f"{answer.status} {answer.text[:ANSWER_CHARACTERS]}".strip().replace("\x00", "")
        if 200 <= answer.status < 300:
            return said
        raise PagerError(
            said,
            retry=answer.status in {408, 425, 429} or answer.status >= 500,
            gone=answer.status == 410,
        )


def signed(secret: str, message_id: str, body: str) -> dict[str, str]:
    """The standard's headers for a body that is sent now; the id is the same at every attempt."""
    at = datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body),
    }


def _payload(message: Message) -> dict[str, Any]:
    """The standard's envelope: type, timestamp, data."""
    return {
        "type": f"alert.{message.event}",
        "timestamp": message.at.isoformat(),
        "data": {
            "cause": message.cause,
            "severity": message.severity,
            "summary": message.summary,
            "detail": message.detail,
            "url": message.url,
        },
    }
