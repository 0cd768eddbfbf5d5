"""JSON for tokens, for who I am, and for the audit."""

from __future__ import annotations

from typing import Annotated, Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router
from pydantic import AwareDatetime, Field, Strict

from controlplane import access, audit, fleets, http, problems
from controlplane.models import AuditEntry, Token, User

router = Router()


class NewToken(http.Body):
    """POST /tokens. The token acts as `user`, by default whoever makes it; one of scope `envoy` names its fleet."""

    name: str = Field(min_length=1, max_length=100)
    scopes: list[str]
    user: str = ""
    fleet: str = ""
    expires_at: Annotated[AwareDatetime, Strict(False)] | None = None


def token_json(token: Token) -> dict[str, Any]:
    """A token as REST shows it; its secret is not kept."""
    return {
        "id": token.public_id,
        "name": token.name,
        "user": token.user.get_username(),
        "scopes": token.scopes,
        "fleet": token.fleet.name if token.fleet else None,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at,
        "created_at": token.created_at,
    }


def entry_json(entry: AuditEntry) -> dict[str, Any]:
    """One act as REST shows it."""
    return {
        "id": entry.pk,
        "at": entry.at,
        "actor": entry.actor,
        "act": entry.act,
        "subject": entry.subject,
        "reason": entry.reason,
        "detail": entry.detail,
    }


@router.get("/me", auth=http.scope("read"))
def me(request: HttpRequest) -> HttpResponse:
    """Who this request is made as, and what it may do."""
    identity = http.identify(request)
    if identity is None:
        raise problems.Problem(401, "not_authenticated", "nobody is signed in")
    return JsonResponse(
        {
            "user": identity.user.get_username(),
            "role": identity.user.role,
            "scopes": sorted(identity.scopes),
            "token": identity.token.public_id if identity.token else None,
        }
    )


@router.get("/tokens", auth=http.scope("admin"))
def list_tokens(request: HttpRequest) -> HttpResponse:
    """All tokens, newest first."""
    return http.paginate(request, Token.objects.select_related("user", "fleet"), token_json)


@router.post("/tokens", auth=http.scope("admin"))
def create_token(request: HttpRequest, body: NewToken) -> HttpResponse:
    """Make a token; `token` in the answer is its text, shown this once."""
    now, actor = timezone.now(), http.actor(request)
    user = User.objects.filter(username=body.user or actor).first()
    if user is None:
        raise problems.field("/user", "unknown_user", f"no user {body.user!r}", status=404)
    if body.expires_at is not None and body.expires_at <= now:
        raise problems.field("/expires_at", "in_the_past", "expires_at must be later than now")
    fleet = fleets.get_fleet(body.fleet) if body.fleet else None
    with transaction.atomic():
        token, text = access.create_token(
            user, body.name, body.scopes, expires_at=body.expires_at, fleet=fleet
        )
        audit.record(actor, "token.create", f"token {token.public_id}", detail={"scopes": token.scopes})
    return JsonResponse({**token_json(token), "token": text}, status=201)


@router.delete("/tokens/{public_id}", auth=http.scope("admin"))
def revoke_token(request: HttpRequest, public_id: str) -> HttpResponse:
    """End a token now; its row stays for the audit."""
    token = Token.objects.select_related("user", "fleet").filter(public_id=public_id).first()
    if token is None:
        raise problems.field("/token", "unknown_token", f"no token {public_id!r}", status=404)
    with transaction.atomic():
        access.revoke_token(token, timezone.now())
        audit.record(http.actor(request), "token.revoke", f"token {public_id}")
    return JsonResponse(token_json(token))


@router.get("/audit", auth=http.scope("read"))
def list_audit(
    request: HttpRequest, actor: str | None = None, act: str | None = None, subject: str | None = None
) -> HttpResponse:
    """Who did what, newest first; any of ?actor=, ?act=, ?subject=."""
    wanted = {"actor": actor, "act": act, "subject": subject}
    rows = AuditEntry.objects.filter(**{name: value for name, value in wanted.items() if value is not None})
    return http.paginate(request, rows, entry_json)
