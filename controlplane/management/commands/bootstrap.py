"""Who can sign in to a fresh installation? One admin and two tokens, made once and shown once."""

from __future__ import annotations

import json
import secrets
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction
from django.utils import timezone

from controlplane import access, audit
from controlplane.models import Role, Token, User

USER = "admin"
TOKENS = {"bootstrap": access.SCOPES, "bootstrap telemetry": ("telemetry",)}


class Command(BaseCommand):
    """`manage.py bootstrap [--json] [--rotate]`."""

    help = "Make the first admin and tokens; with --rotate give the admin a new password and new tokens."

    def add_arguments(self, parser: CommandParser) -> None:
        """The two switches."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument("--rotate", action="store_true", help="replace password and tokens")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print what was made, or that there was somebody already."""
        made = bootstrap(rotate=options["rotate"])
        if options["json"]:
            self.stdout.write(json.dumps(made))
            return
        for name, value in made.items():
            self.stdout.write(f"{name}: {value}")


def bootstrap(*, rotate: bool = False) -> dict[str, Any]:
    """{"user", "password", "token", "telemetry_token"}, or {"user", "exists": true} when there are users already.

    With `rotate`, the admin gets a new password and new tokens, and the tokens of earlier calls are revoked.
    """
    with transaction.atomic():
        User.objects.select_for_update().filter(username=USER).first()
        if User.objects.exists() and not rotate:
            return {"user": USER, "exists": True}
        password = secrets.token_urlsafe(18)
        user, _created = User.objects.get_or_create(username=USER)
        user.role, user.is_staff, user.is_active = Role.ADMIN, True, True
        user.set_password(password)
        user.save()
        Token.objects.filter(user=user, name__in=TOKENS, revoked_at=None).update(revoked_at=timezone.now())
        token, telemetry = (access.create_token(user, name, scopes)[1] for name, scopes in TOKENS.items())
        audit.record("bootstrap", "user.rotate" if rotate else "user.create", USER)
    return {"user": USER, "password": password, "token": token, "telemetry_token": telemetry}
