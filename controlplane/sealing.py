"""How are other people's secrets kept? Encrypted, with a key derived from SECRET_KEY."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from cryptography.fernet import Fernet
from django.conf import settings


def seal(plain: bytes) -> bytes:
    """Encrypt and authenticate `plain` (Fernet: AES-128-CBC with HMAC-SHA256)."""
    return _fernet().encrypt(plain)


def unseal(sealed: bytes) -> bytes:
    """The plain bytes again. Raises cryptography.fernet.InvalidToken when SECRET_KEY has changed since."""
    return _fernet().decrypt(sealed)


def seal_text(plain: str) -> dict[str, str]:
    """`plain` as it is kept inside JSON: {"sealed": <its Fernet token>}."""
    return {"sealed": seal(plain.encode()).decode()}


def open_text(kept: str | Mapping[str, str]) -> str:
    """The plain text of what `seal_text` made; a text that is not sealed (yet) is itself. Raises InvalidToken."""
    return kept if isinstance(kept, str) else unseal(kept["sealed"].encode()).decode()


def _fernet() -> Fernet:
    key = hashlib.sha256(b"davy sealing " + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))
