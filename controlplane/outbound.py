"""How does Davy call out? The only HTTP client: guarded for URLs that people enter, plain for the operator's fleet."""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from django.conf import settings
from requests.adapters import HTTPAdapter
from requests_hardened import Config, HTTPSession
from requests_hardened.ip_filter import InvalidIPAddress
from requests_hardened.ip_filter_adapter import IPFilterAdapter

ANSWER_BYTES = 16 * 2**20  # Envoy's statistics of some hundred clusters are 1-2 MB
CHUNK_BYTES = 65_536
USER_AGENT = "davy"
_local = threading.local()


class OutboundError(Exception):
    """No usable answer. `retry` says whether the same call may succeed later."""

    def __init__(self, message: str, *, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


@dataclass(frozen=True)
class Answer:
    """What the other side said; redirects are answers, they are never followed."""

    status: int
    content: bytes
    content_type: str = ""

    @property
    def text(self) -> str:
        """The content as UTF-8, undecodable bytes replaced."""
        return self.content.decode("utf-8", "replace")


def check_url(url: str) -> str | None:
    """What is wrong with a URL that somebody enters, or None. Its address is checked at every call, not here."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as err:
        return str(err)
    if parts.scheme not in {"http", "https"}:
        return "must start with http:// or https://"
    if not host:
        return "has no host"
    if parts.username or parts.password:
        return "must not carry a user name or password"
    return None


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout: float | None = None,
    max_bytes: int = ANSWER_BYTES,
) -> Answer:
    """POST to a URL that a user entered: private and metadata addresses only by DAVY_OUTBOUND_ALLOWED_NETWORKS."""
    session = _session("guarded")
    return _call(session, "POST", url, body=body, headers=headers, timeout=timeout, max_bytes=max_bytes)


def get(url: str, max_bytes: int) -> Answer:
    """GET a URL that a user entered, guarded as `post`; a longer answer than `max_bytes` is an OutboundError."""
    return _call(_session("guarded"), "GET", url, max_bytes=max_bytes)


def admin_request(
    method: str,
    url: str,
    *,
    body: bytes | Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Answer:
    """Call an endpoint that the operator configured, which may be private. A mapping goes as JSON.

    Connections are kept per thread, because drivers call every second.
    """
    return _call(_session("fleet"), method, url, body=body, headers=headers or {}, timeout=timeout)


def fleet_get(url: str, timeout: float) -> Answer:
    """GET from a router or model server of a fleet; `timeout` in seconds for the whole call."""
    return admin_request("GET", url, timeout=timeout)


def fleet_post(url: str, body: bytes | Mapping[str, Any] | None, timeout: float) -> Answer:
    """POST to a router or model server of a fleet; a mapping goes as JSON, None is an empty body."""
    return admin_request("POST", url, body=body, timeout=timeout)


class GuardedAdapter(IPFilterAdapter):  # type: ignore[misc,unused-ignore]
    """The library's filter, with the operator's networks let through. Connects to the address that was checked,
    so that a name cannot point elsewhere between the check and the call."""

    def __init__(self, *, https: bool) -> None:
        super().__init__(is_https_proto=https)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        """As the library does; raises InvalidIPAddress for an address that is neither public nor allowed."""
        try:
            return super().build_connection_pool_key_attributes(request, verify, cert)
        except InvalidIPAddress as refused:
            address = ipaddress.ip_address(str(refused.args[0]))
            if not any(address in network for network in settings.OUTBOUND_ALLOWED_NETWORKS):
                raise
        host, pool = HTTPAdapter.build_connection_pool_key_attributes(self, request, verify, cert)
        named = (
            {"assert_hostname": host["host"], "server_hostname": host["host"]} if self._is_https_proto else {}
        )
        pinned = str(address) if address.version == 4 else f"[{address}]"
        return {**host, "host": pinned}, {**pool, **named}


def _session(kind: str) -> requests.Session:
    """This thread's session of that kind: no proxies or netrc from the environment, no redirects, no cookies kept."""
    session: requests.Session | None = getattr(_local, kind, None)
    if session is None:
        session = HTTPSession(
            Config(
                ip_filter_enable=False,  # the guarded session mounts our own filter below
                ip_filter_allow_loopback_ips=False,
                never_redirect=True,
                default_timeout=(settings.OUTBOUND_TIMEOUT_SECONDS, settings.OUTBOUND_TIMEOUT_SECONDS),
                user_agent_override=USER_AGENT,
            )
        )
        session.trust_env = False
        if kind == "guarded":
            session.mount("http://", GuardedAdapter(https=False))
            session.mount("https://", GuardedAdapter(https=True))
        setattr(_local, kind, session)
    return session


def _call(
    session: requests.Session,
    method: str,
    url: str,
    *,
    body: bytes | Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    max_bytes: int = ANSWER_BYTES,
) -> Answer:
    wrong = check_url(url)
    if wrong:
        raise OutboundError(f"the URL {wrong}", retry=False)
    seconds = timeout or settings.OUTBOUND_TIMEOUT_SECONDS
    deadline = time.monotonic() + seconds
    sent = dict(headers or {})
    if isinstance(body, Mapping):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    session.cookies.clear()
    try:
        with session.request(method, url, data=body, headers=sent, timeout=seconds, stream=True) as response:
            content = _read(response, max_bytes, deadline)
            return Answer(response.status_code, content, response.headers.get("Content-Type", ""))
    except InvalidIPAddress as err:
        raise OutboundError(
            f"{urlsplit(url).hostname} is {err}, a private address; DAVY_OUTBOUND_ALLOWED_NETWORKS may allow it",
            retry=False,
        ) from err
    except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as err:
        raise OutboundError(f"{method} {urlsplit(url).netloc}: {_short(err)}") from err


def _read(response: requests.Response, max_bytes: int, deadline: float) -> bytes:
    """The decoded content; OutboundError when it is too long or arrives too slowly."""
    parts: list[bytes] = []
    size = 0
    for chunk in response.iter_content(CHUNK_BYTES):
        parts.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise OutboundError(f"the answer is longer than {max_bytes} bytes", retry=False)
        if time.monotonic() > deadline:
            raise OutboundError("the answer did not end in time")
    return b"".join(parts)


def _short(err: Exception) -> str:
    """The innermost reason of a chain that repeats itself, e.g. "Connection refused"."""
    cause: BaseException = err
    while True:
        inner = getattr(cause, "reason", None) or (cause.args[0] if cause.args else None)
        if not isinstance(inner, BaseException):
            return f"{type(cause).__name__}: {cause}"[:300]
        cause = inner
