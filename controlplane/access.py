"""Who is asking, and what may they do? Tokens, roles and scopes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q

from controlplane import problems
from controlplane.models import Fleet, Role, Token, User

SCOPES = ("read", "telemetry", "deploy", "label", "admin")
FLEET_SCOPE = "envoy"  # of a token bound to one fleet: no role grants it, and it goes with no other scope
ROLE_SCOPES: dict[str, frozenset[str]] = {
    Role.VIEWER: frozenset({"read"}),
    Role.ANNOTATOR: frozenset({"read", "label"}),
    Role.ENGINEER: frozenset({"read", "deploy", "label", "telemetry"}),
    Role.APPROVER: frozenset({"read", "deploy", "label", "telemetry"}),
    Role.ADMIN: frozenset(SCOPES),
}
LAST_USED_EVERY = timedelta(minutes=1)  # a busy token writes its row once a minute, not at every request
_NOBODY = hashlib.sha256(b"no such token").hexdigest()


@dataclass(frozen=True)
class Identity:
    """The person behind a request and the scopes that this request carries; `token` is None for a session."""

    user: User
    scopes: frozenset[str]
    token: Token | None = None

    def allows(self, scope: str) -> bool:
        """Whether this request may do what `scope` names; admin may do everything."""
        return scope in self.scopes or "admin" in self.scopes


def role_scopes(user: User) -> frozenset[str]:
    """What a person's role grants; a superuser is an admin."""
    return ROLE_SCOPES[Role.ADMIN] if user.is_superuser else ROLE_SCOPES[user.role]


def create_token(
    user: User,
    name: str,
    scopes: Iterable[str],
    *,
    expires_at: datetime | None = None,
    fleet: Fleet | None = None,
) -> tuple[Token, str]:
    """Make a token; return it with its text `dvy_<id>_<secret>`, shown this once.

    A token with the scope `envoy` belongs to one `fleet`, and has no other scope.
    """
    wanted = sorted(set(scopes))
    if not wanted:
        raise problems.field("/scopes", "required", "a token needs at least one scope")
    for scope in wanted:
        if scope not in (*SCOPES, FLEET_SCOPE):
            raise problems.field(
                "/scopes",
                "unknown_scope",
                f"no scope {scope!r}; there are {', '.join((*SCOPES, FLEET_SCOPE))}",
            )
    if FLEET_SCOPE in wanted and len(wanted) > 1:
        raise problems.field("/scopes", "scopes_together", f"{FLEET_SCOPE} goes with no other scope")
    if (FLEET_SCOPE in wanted) != (fleet is not None):
        detail = f"a token with the scope {FLEET_SCOPE} names its fleet, and no other token does"
        raise problems.field("/fleet", "fleet_needed", detail)
    public_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    token = Token.objects.create(
        public_id=public_id,
        user=user,
        name=name,
        secret_sha256=_sha256(secret),
        scopes=wanted,
        fleet=fleet,
        expires_at=expires_at,
    )
    return token, f"dvy_{public_id}_{secret}"


def authenticate_token(text: str, now: datetime) -> Identity | None:
    """The identity behind a token's text; None when it is malformed, unknown, expired, revoked or inactive.

    The comparison takes the same time whether the id exists or not.
    """
    prefix, _, rest = text.partition("_")
    public_id, _, secret = rest.partition("_")
    if prefix != "dvy" or not public_id or not secret or "\x00" in public_id:
        return None
    token = Token.objects.select_related("user", "fleet").filter(public_id=public_id).first()
    matches = hmac.compare_digest(_sha256(secret), token.secret_sha256 if token else _NOBODY)
    if token is None or not matches or not token.user.is_active or token.revoked_at is not None:
        return None
    if token.expires_at is not None and token.expires_at <= now:
        return None
    _touch(token, now)
    return Identity(token.user, frozenset(token.scopes), token)


def authenticate_fleet(text: str, now: datetime) -> Fleet | None:
    """The fleet whose configuration this token opens; None for any other text."""
    identity = authenticate_token(text, now)
    if identity is None or identity.token is None or FLEET_SCOPE not in identity.scopes:
        return None
    return identity.token.fleet


def session_identity(user: User) -> Identity:
    """The identity of a person signed in with a browser."""
    return Identity(user, role_scopes(user))


def revoke_token(token: Token, now: datetime) -> None:
    """End a token now; revoking it again keeps the first time."""
    Token.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=now)
    token.refresh_from_db()


def _touch(token: Token, now: datetime) -> None:
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USED_EVERY)
    if token.last_used_at is None or token.last_used_at < now - LAST_USED_EVERY:
        Token.objects.filter(stale, pk=token.pk).update(last_used_at=now)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
