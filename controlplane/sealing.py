"""How are other people's secrets kept? Encrypted, with a key derived from SECRET_KEY."""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet
from django.conf import settings


def seal(plain: bytes) -> bytes:
    """Encrypt and authenticate `plain` (Fernet: AES-128-CBC with HMAC-SHA256)."""
    return _fernet().encrypt(plain)


def unseal(sealed: bytes) -> bytes:
    """The plain bytes again. Raises cryptography.fernet.InvalidToken when SECRET_KEY has changed since."""
    return _fernet().decrypt(sealed)


def _fernet() -> Fernet:
    key = hashlib.sha256(b"davy sealing " + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))
