"""The web application, as an ASGI callable: Django, and beside it the door for Envoys, which wait long."""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
_django = get_asgi_application()

from controlplane.limits import LimitBody  # noqa: E402
from rollout.xds import discovery  # noqa: E402

_limited = LimitBody(_django)


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[Mapping[str, Any]]],
    send: Callable[[Mapping[str, Any]], Awaitable[None]],
) -> None:
    """Every request; what urls.py does not name is `/v3/discovery:*`, see rollout.xds.discovery for why."""
    waits = scope["type"] == "http" and scope["path"].startswith(discovery.PREFIX)
    await (discovery.application if waits else _limited)(scope, receive, send)
