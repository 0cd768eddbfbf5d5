"""How does a program speak to Davy over REST, with nothing but the standard library?"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

TERMINAL = frozenset({"promoted", "rolled_back", "aborted", "superseded", "failed"})
MAX_ANSWER_BYTES = 64 * 2**20
LONG_POLL_SECONDS = 55.0
PAUSE_SECONDS = 2.0  # at least between two looks that the server answered at once

Json = dict[str, Any]


class ClientError(Exception):
    """Davy was not reached, or refused, or did not come to an end in time."""


class Unreachable(ClientError):
    """No answer: refused, reset, timed out or not HTTP. The request may or may not have had an effect."""


class WaitTimeout(ClientError):
    """The rollout has not ended within the time given; it goes on. `rollout` is its latest state."""

    def __init__(self, rollout: Json, seconds: float) -> None:
        super().__init__(f"rollout {rollout.get('id')} is {rollout.get('state')} after {seconds:.0f} s")
        self.rollout = rollout


class ApiError(ClientError):
    """An answer other than 2xx. `problem` is the RFC 9457 body, or a title made up from the status line."""

    def __init__(self, status: int, problem: Json, retry_after_seconds: float | None = None) -> None:
        self.status = status
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds
        super().__init__(str(self))

    def __str__(self) -> str:
        text = str(self.problem.get("detail") or self.problem.get("title") or "no reason given")
        errors = self.problem.get("errors")
        fields = [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
        named = ", ".join(f"{e.get('pointer')}: {e.get('detail')}" for e in fields if e.get("pointer"))
        return f"{self.status}: {text}" + (f" ({named})" if named else "")


@dataclass(frozen=True)
class Answer:
    """A 2xx answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON, None when empty; ClientError when it is something else."""
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            raise ClientError(f"the answer is not JSON: {self.body[:80]!r}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: following it would hand the token to whoever it names."""

    def redirect_request(self, *_: Any) -> None:
        return None


def path(*parts: str | int) -> str:
    """A path under /api/v1 with each part quoted: path("models", "a/b") is "/models/a%2Fb"."""
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


class Client:
    """Davy at `url`. Every call raises Unreachable or ApiError; timeouts are in seconds.

    clock and sleep are for tests: monotonic seconds, and waiting between two looks at a rollout.
    """

    def __init__(
        self,
        url: str,
        token: str,
        timeout: float = 30.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ValueError(f"{url!r} is no http:// or https:// URL")
        if not (token.isascii() and token.isprintable()):
            raise ValueError("the token holds characters that no token has")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._token = token
        self._clock = clock
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | float] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The answer to one request to /api/v1 + `path`; ApiError when not 2xx, Unreachable when none."""
        url = f"{self.url}/api/v1{path}" + (f"?{urlencode(params)}" if params else "")
        request = urllib.request.Request(url, data=body, method=method)  # noqa: S310 - checked in __init__
        request.add_header("Accept", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=timeout or self.timeout) as answer:
                content = answer.read(MAX_ANSWER_BYTES + 1)
                found = Answer(answer.status, dict(answer.headers.items()), content)
        except urllib.error.HTTPError as err:
            raise _api_error(err) from None
        except (OSError, http.client.HTTPException) as err:
            raise Unreachable(f"{self.url} does not answer: {getattr(err, 'reason', err)}") from err
        if len(content) > MAX_ANSWER_BYTES:
            raise ClientError(f"the answer to {method} {path} is above {MAX_ANSWER_BYTES} bytes")
        return found

    def get(self, path: str, params: Mapping[str, str | float] | None = None) -> Any:
        """JSON of a GET."""
        return self.send("GET", path, params=params).json()

    def post(self, path: str, body: Any = None, *, idempotency_key: str = "") -> Any:
        """JSON of a POST of `body` as JSON; with a key, sending it again has no second effect."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._send_json("POST", path, body, headers)

    def put(self, path: str, body: bytes, content_type: str) -> Any:
        """JSON of a PUT of bytes (references are put as application/x-npz)."""
        return self.send("PUT", path, body=body, headers={"Content-Type": content_type}).json()

    def patch(self, path: str, body: Any, *, if_match: str) -> Any:
        """JSON of a PATCH that only applies to the state with this ETag."""
        return self._send_json("PATCH", path, body, {"If-Match": if_match})

    def _send_json(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        data = b"" if body is None else json.dumps(body, allow_nan=False).encode()
        sent = {"Content-Type": "application/json", **headers}
        return self.send(method, path, body=data, headers=sent).json()

    def wait_rollout(self, rollout_id: int | str, timeout_seconds: float | None = None) -> Json:
        """The rollout once it has ended; WaitTimeout when that takes longer."""
        *_, last = self.follow_rollout(rollout_id, timeout_seconds, look_seconds=LONG_POLL_SECONDS)
        return last

    def follow_rollout(
        self,
        rollout_id: int | str,
        timeout_seconds: float | None = None,
        *,
        look_seconds: float = 2.0,
        patience_seconds: float = 300.0,
    ) -> Iterator[Json]:
        """The rollout as it is, then after every change, up to its end; WaitTimeout when that takes longer.

        Looks every `look_seconds` (at its end: at once). A server that is away is asked again for
        `patience_seconds`, since it may be restarting; then ApiError or Unreachable.
        """
        started = last_answer = self._clock()
        seen: tuple[Any, ...] | None = None
        rollout: Json = {"id": rollout_id, "state": "unknown"}
        while True:
            asked = self._clock()
            left = float("inf") if timeout_seconds is None else timeout_seconds - (asked - started)
            if left <= 0:
                raise WaitTimeout(rollout, timeout_seconds or 0.0)
            look = min(look_seconds, left) if seen else 0.0
            pause = min(look, PAUSE_SECONDS)
            try:
                rollout = self._look(rollout_id, look)
            except (Unreachable, ApiError) as err:
                if not _passing(err) or self._clock() - last_answer > patience_seconds:
                    raise
                pause = getattr(err, "retry_after_seconds", None) or PAUSE_SECONDS
            else:
                last_answer = self._clock()
                if _signature(rollout) != seen:
                    seen = _signature(rollout)
                    yield rollout
                if rollout.get("state") in TERMINAL:
                    return
            self._sleep(max(0.0, min(pause, left) - (self._clock() - asked)))

    def _look(self, rollout_id: int | str, seconds: float) -> Json:
        params = {"wait": "terminal", "timeout": f"{seconds:.1f}"} if seconds else None
        timeout = self.timeout + seconds
        found = self.send("GET", path("rollouts", rollout_id), params=params, timeout=timeout).json()
        if not isinstance(found, dict):
            raise ClientError(f"rollout {rollout_id}: the answer is not a rollout")
        return found


def _signature(rollout: Json) -> tuple[Any, ...]:
    """What must differ for a rollout to count as changed: not its numbers, which move with every tick."""
    gates = tuple((gate.get("name"), gate.get("verdict")) for gate in rollout.get("gates") or [])
    weights = rollout.get("weight_percent"), rollout.get("observed_weight_percent")
    return rollout.get("state"), rollout.get("step"), weights, gates


def _passing(err: ClientError) -> bool:
    """Whether asking again may help: no answer, too many requests, or a server at fault."""
    return not isinstance(err, ApiError) or err.status in {408, 425, 429} or err.status >= 500


def _api_error(err: urllib.error.HTTPError) -> ApiError:
    """The ApiError of an answer, read as far as 1 MB."""
    with err:
        try:
            problem = json.loads(err.read(2**20))
        except (ValueError, OSError, http.client.HTTPException):
            problem = None
    if not isinstance(problem, dict):
        problem = {"title": str(err.reason), "status": err.code}
    return ApiError(err.code, problem, _retry_after(err.headers.get("Retry-After")))


def _retry_after(text: str | None) -> float | None:
    """Seconds to wait from a Retry-After header (seconds or a date); None when absent or unreadable."""
    if not text:
        return None
    try:
        if text.strip().isdigit():
            return float(text)
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
