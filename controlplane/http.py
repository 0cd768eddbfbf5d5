"""How does a request get in, and what does it hear when it may not? Auth, problems, pages of a list."""

from __future__ import annotations

import base64
import binascii
import http
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import RequestDataTooBig
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.parser import Parser
from ninja.security.base import AuthBase
from ninja.utils import check_csrf
from pydantic import BaseModel, ConfigDict

from controlplane import access, idempotency, limits
from controlplane.access import Identity
from controlplane.models import User
from controlplane.problems import FieldProblem, Problem, field

PAGE_SIZE = 50
PAGE_SIZE_MAX = 200
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
LONE_SURROGATE = re.compile("[\ud800-\udfff\x00]")  # neither can be stored as text by PostgreSQL
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

Row = TypeVar("Row", bound=models.Model)


class Body(BaseModel):
    """Base of request bodies: no coercion (`false` is not 0), no unknown fields, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


# ------------------------------------------------------------------ who


class Scope(AuthBase):
    """An operation's `auth=`: a Bearer token with one of the scopes, or a session (and CSRF) whose role grants it."""

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __init__(self, *names: str) -> None:
        for name in names:
            if name not in access.SCOPES:
                raise ValueError(f"no scope {name!r}")
        self.names = names
        super().__init__()

    def __call__(self, request: HttpRequest) -> Identity:
        """The identity behind the request, whose user is then request.user; else a 401 or 403 problem."""
        identity = identify(request)
        if identity is None:
            raise Problem(
                401, "not_authenticated", "needs `Authorization: Bearer dvy_…` or a signed-in session"
            )
        if identity.token is None and request.method not in SAFE_METHODS and check_csrf(request):
            raise Problem(403, "csrf_failed", "a browser session needs its CSRF token in X-CSRFToken")
        if not any(identity.allows(name) for name in self.names):
            raise Problem(403, "missing_scope", f"needs the scope {' or '.join(self.names)}")
        request.user = identity.user
        return identity


def scope(*names: str) -> Scope:
    """What to pass as `auth=` of an operation that needs one of the scopes `names`."""
    return Scope(*names)


def identify(request: HttpRequest) -> Identity | None:
    """Who is asking, by token or session; None when nobody is. Looked up once per request."""
    if "davy.identity" not in request.META:
        request.META["davy.identity"] = _identify(request)
    identity: Identity | None = request.META["davy.identity"]
    return identity


def _identify(request: HttpRequest) -> Identity | None:
    header = request.headers.get("Authorization", "")
    if header:
        scheme, _, text = header.partition(" ")
        return access.authenticate_token(text.strip(), timezone.now()) if scheme.lower() == "bearer" else None
    user = getattr(request, "user", None) or AnonymousUser()
    return None if isinstance(user, AnonymousUser) or not user.is_active else access.session_identity(user)


def actor(request: HttpRequest) -> str:
    """The user name for the audit; "" when nobody is signed in."""
    identity = identify(request)
    return identity.user.get_username() if identity else ""


def person(request: HttpRequest) -> User:
    """The user behind a request that `scope` let in; a token acts as its user."""
    identity = identify(request)
    if identity is None:
        raise Problem(401, "not_authenticated", "needs a token or a signed-in session")
    return identity.user


# ------------------------------------------------------------------ what went wrong


def request_id(request: HttpRequest) -> str:
    """The id that ties a request to its answer, its problem and the log."""
    return str(request.META.get("davy.request_id", ""))


def problem_response(
    request: HttpRequest, status: int, code: str, detail: str, errors: Iterable[FieldProblem] = ()
) -> HttpResponse:
    """An RFC 9457 answer: type, title, status, detail, code, request_id, errors."""
    response = JsonResponse(
        {
            "type": "about:blank",
            "title": http.HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "code": code,
            "request_id": request_id(request),
            "errors": list(errors),
        },
        status=status,
        content_type="application/problem+json",
    )
    if status == 401:
        response["WWW-Authenticate"] = "Bearer"
    return response


def install(api: NinjaAPI) -> None:
    """Make an API answer every refusal with a problem, and read JSON strictly."""
    api.parser = StrictParser()

    @api.exception_handler(Problem)
    def refused(request: HttpRequest, exc: Problem) -> HttpResponse:
        return problem_response(request, exc.status, exc.code, exc.detail, exc.errors)

    @api.exception_handler(ValidationError)
    def invalid(request: HttpRequest, exc: ValidationError) -> HttpResponse:
        errors = [_field_problem(error) for error in exc.errors]
        summary = "; ".join(f"{error['pointer'] or 'body'}: {error['detail']}" for error in errors[:3])
        return problem_response(request, 422, "invalid", summary, errors)

    @api.exception_handler(HttpError)
    def unreadable(request: HttpRequest, exc: HttpError) -> HttpResponse:
        cause = exc.__cause__
        if isinstance(cause, Problem):
            return problem_response(request, cause.status, cause.code, cause.detail, cause.errors)
        if isinstance(cause, ValueError | RecursionError):
            return problem_response(request, exc.status_code, "not_json", f"the body is not JSON: {cause}")
        return problem_response(request, exc.status_code, _code(exc.status_code), exc.message)

    @api.exception_handler(Http404)
    def missing(request: HttpRequest, _exc: Http404) -> HttpResponse:
        return problem_response(request, 404, "not_found", f"nothing at {request.path}")

    @api.exception_handler(RequestDataTooBig)
    def too_big(request: HttpRequest, _exc: RequestDataTooBig) -> HttpResponse:
        return problem_response(request, 413, "body_too_large", limits.limit_text())


def _field_problem(error: dict[str, Any]) -> FieldProblem:
    """Pydantic's location ("body", argument, field, …) as a JSON pointer; ("query", name) as /name."""
    source, *location = error["loc"]
    if source == "body":
        location = location[1:]
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)
    return {"pointer": pointer, "code": str(error["type"]), "detail": str(error["msg"])}


class StrictParser(Parser):
    """JSON without NaN, infinities, NUL characters and lone surrogates, none of which could be stored."""

    def parse_body(self, request: HttpRequest) -> Any:
        """The body as Python values. Raises ValueError, or a Problem that names the unstorable text."""
        data = json.loads(request.body, parse_constant=_refuse_constant)
        if b"\\u" in request.body:
            for pointer in _unstorable(data, ""):
                raise field(
                    pointer, "unstorable_text", "NUL and unpaired surrogates cannot be stored", status=400
                )
        return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _unstorable(value: Any, pointer: str) -> Iterator[str]:
    if isinstance(value, str):
        if LONE_SURROGATE.search(value):
            yield pointer
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unstorable(item, f"{pointer}/{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _unstorable(key, pointer)
            yield from _unstorable(item, f"{pointer}/{key}")


def require_match(request: HttpRequest, etag: str) -> None:
    """Let a change pass only when If-Match names the state that it changes: 428 without the header, 412 otherwise."""
    given = request.headers.get("If-Match")
    if given is None:
        raise Problem(428, "if_match_required", "send the ETag of the state you saw as If-Match")
    if etag not in (part.strip() for part in given.split(",")) and given.strip() != "*":
        raise Problem(412, "changed_meanwhile", "it has changed since: read it again")


def _code(status: int) -> str:
    return http.HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


# ------------------------------------------------------------------ lists


def paginate(
    request: HttpRequest,
    queryset: models.QuerySet[Row],
    to_json: Callable[[Row], Any],
    order: str = "-id",
    before: Iterable[Any] = (),
) -> HttpResponse:
    """One page `{"items": […], "next": cursor | null}` of ?limit= rows after ?cursor=, with a Link header.

    `order` is one unique field, "-" for descending; rows added meanwhile never shift a page. `before` are items that
    stand ahead of the page's rows.
    """
    name, descending = order.lstrip("-"), order.startswith("-")
    limit, after = _limit(request), request.GET.get("cursor", "")
    rows = queryset.order_by(order)
    if after:
        try:
            rows = rows.filter(**{f"{name}__{'lt' if descending else 'gt'}": _decode_cursor(after)})
        except ValueError as err:
            raise field("/cursor", "bad_cursor", "not a cursor of this list") from err
    page: Sequence[Row] = list(rows[: limit + 1])
    more = len(page) > limit
    cursor = _encode_cursor(getattr(page[limit - 1], name)) if more else None
    response = JsonResponse({"items": [*before, *(to_json(row) for row in page[:limit])], "next": cursor})
    if cursor is not None:
        query = request.GET.copy()
        query["cursor"] = cursor
        response["Link"] = f'<{request.path}?{query.urlencode()}>; rel="next"'
    return response


def _limit(request: HttpRequest) -> int:
    text = request.GET.get("limit", str(PAGE_SIZE))
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= PAGE_SIZE_MAX:
        raise field("/limit", "bad_limit", f"limit is a number from 1 to {PAGE_SIZE_MAX}")
    return int(text)


def _encode_cursor(value: int | str) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _decode_cursor(text: str) -> int | str:
    try:
        value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, UnicodeDecodeError, json.JSONDecodeError) as err:
        raise ValueError("not a cursor") from err
    if isinstance(value, bool) or not isinstance(value, int | str) or "\x00" in str(value):
        raise ValueError("not a cursor")
    return value


# ------------------------------------------------------------------ around every request


class RequestMiddleware:
    """Request id and security headers everywhere; under /api/ also limits, idempotency, and problems in place
    of Django's own refusals (400, 403, 404, 405, 500). Streams pass untouched."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        given = request.headers.get("X-Request-Id", "")
        request.META["davy.request_id"] = given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        response = _refusal(request) or self.get_response(request)
        if request.path.startswith("/api/"):
            response = _as_problem(request, response)
            idempotency.finish(request, response)
            response.setdefault("Cache-Control", "no-store")
            patch_vary_headers(response, ["Authorization", "Cookie"])
        response["X-Request-Id"] = request_id(request)
        response.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return response

    def process_view(
        self, request: HttpRequest, _view: Callable[..., Any], _args: Any, _kwargs: Any
    ) -> HttpResponse | None:
        """After the session is known: answer a repeated POST with its first answer."""
        if request.method != "POST" or not request.path.startswith("/api/"):
            return None
        try:
            return idempotency.begin(request, identify, timezone.now())
        except Problem as refusal:
            return problem_response(request, refusal.status, refusal.code, refusal.detail, refusal.errors)
        except RequestDataTooBig:
            return problem_response(request, 413, "body_too_large", limits.limit_text())


def _refusal(request: HttpRequest) -> HttpResponse | None:
    if limits.announced_too_large(request.headers.get("Content-Length")):
        return problem_response(request, 413, "body_too_large", limits.limit_text())
    if "\x00" in request.path or "\x00" in unquote(request.META.get("QUERY_STRING", "")):
        return problem_response(request, 400, "nul_in_url", "a URL cannot contain NUL")
    return None


def _as_problem(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Django's HTML for 400, 403, 404, 405, 500 as a problem; its headers (Allow, Retry-After) stay."""
    is_problem = response.get("Content-Type", "").startswith("application/problem+json")
    if response.status_code < 400 or is_problem or response.streaming:
        return response
    status = response.status_code
    detail = {
        404: f"nothing at {request.path}",
        405: f"{request.method} is not possible at {request.path}",
        500: "an error on our side; it is logged under this request_id",
    }.get(status, http.HTTPStatus(status).phrase)
    code = "internal_error" if status == 500 else _code(status)
    answer = problem_response(request, status, code, detail)
    for name, value in response.items():
        if name not in {"Content-Type", "Content-Length"}:
            answer[name] = value
    return answer
