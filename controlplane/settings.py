"""All configuration, from the environment. A bad value stops start-up and names its variable."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from controlplane import embedded

BASE_DIR = Path(__file__).resolve().parent.parent


def _text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def _number(name: str, default: float, low: float, high: float) -> float:
    text = _text(name, str(default))
    try:
        value = float(text)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={text!r} is not a number") from None
    if not low <= value <= high:
        raise ImproperlyConfigured(f"{name}={text} is outside {low:g}–{high:g}")
    return value


def _flag(name: str, default: bool) -> bool:
    text = _text(name, "1" if default else "0").lower()
    if text not in {"0", "1", "true", "false", "yes", "no"}:
        raise ImproperlyConfigured(f"{name}={text!r} is neither 0 nor 1")
    return text in {"1", "true", "yes"}


def _list(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in _text(name, default).split(",") if part.strip()]


def _urls(name: str) -> list[str]:
    """HTTP base URLs, without the last slash."""
    urls = [url.rstrip("/") for url in _list(name)]
    for url in urls:
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
            raise ImproperlyConfigured(f"{name}: {url!r} is not a plain http:// or https:// URL")
    return urls


def _networks(name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    try:
        return [ipaddress.ip_network(part) for part in _list(name)]
    except ValueError as err:
        raise ImproperlyConfigured(f"{name}: {err}") from None


def _database(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured(
            f"DATABASE_URL must start with postgresql:// (PostgreSQL only), not {parts.scheme!r}"
        )
    query = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")) or "postgres",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "OPTIONS": query,
        "CONN_MAX_AGE": 0,
    }


VAR = Path(_text("DAVY_VAR", str(BASE_DIR / "var"))).resolve()
DEBUG = False
DATABASE_URL = _text("DATABASE_URL") or embedded.start_postgres(VAR)
DATABASES = {"default": _database(DATABASE_URL)}
REDIS_URL = _text("REDIS_URL") or embedded.valkey_url(VAR)
MLFLOW_TRACKING_URI = _text("MLFLOW_TRACKING_URI")


def _secret_key() -> str:
    """DAVY_SECRET_KEY, or one made once for this var folder (mode 600)."""
    given = _text("DAVY_SECRET_KEY")
    if given:
        if len(given) < 32:
            raise ImproperlyConfigured("DAVY_SECRET_KEY has fewer than 32 characters")
        return given
    path = VAR / "secret_key"
    VAR.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(os.urandom(32).hex())
    except FileExistsError:
        pass
    return path.read_text()


SECRET_KEY = _secret_key()
ALLOWED_HOSTS = _list("DAVY_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
PUBLIC_URL = _text("DAVY_URL", "http://127.0.0.1:8000").rstrip("/")
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL] if PUBLIC_URL.startswith("https://") else []
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")

# Who may be called. URLs that users enter (webhooks, images) never reach private networks unless listed here.
OUTBOUND_ALLOWED_NETWORKS = _networks("DAVY_OUTBOUND_ALLOWED_NETWORKS")
OUTBOUND_TIMEOUT_SECONDS = _number("DAVY_OUTBOUND_TIMEOUT_SECONDS", 10, 0.1, 120)
PROMETHEUS_URLS = _urls("DAVY_PROMETHEUS_URLS")  # what plans may query; they may be private
PURGE_URL = next(iter(_urls("DAVY_PURGE_URL")), "")  # told of every cache epoch that ends; may be private
ARTIFACT_ROOTS = [Path(p).resolve() for p in _list("DAVY_ARTIFACT_ROOTS")]  # file:// artifacts only from here

# The loop's clocks, in seconds.
TICK_SECONDS = _number("DAVY_TICK_SECONDS", 1, 0.2, 60)
EVIDENCE_GRACE_SECONDS = _number("DAVY_EVIDENCE_GRACE_SECONDS", 15, 1, 120)
DRIFT_CHECK_SECONDS = _number("DAVY_DRIFT_CHECK_SECONDS", 10, 1, 3600)
DRIFT_WINDOW_SECONDS = _number("DAVY_DRIFT_WINDOW_SECONDS", 300, 10, 86400)
ALARM_BUDGET_DAYS = _number("DAVY_ALARM_BUDGET_DAYS", 60, 1, 3650)
LEASE_SECONDS = _number("DAVY_LEASE_SECONDS", 300, 1, 86400)
MLFLOW_POLL_SECONDS = _number("DAVY_MLFLOW_POLL_SECONDS", 10, 1, 3600)

SEGMENTS_MOST = int(_number("DAVY_SEGMENTS_MOST", 200, 1, 10_000))  # of a model; further ones are "other"

# The most that one request body may hold; larger ones are refused before they are read.
MAX_BODY_BYTES = int(_number("DAVY_MAX_BODY_BYTES", 64 * 2**20, 2**20, 2**30))
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "controlplane",
    "monitoring",
    "rollout",
    "labeling",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "controlplane.http.RequestMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "controlplane.urls"
ASGI_APPLICATION = "controlplane.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_USER_MODEL = "controlplane.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "fleet"
LOGOUT_REDIRECT_URL = "login"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = VAR / "static"
STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # WhiteNoise warns of a folder that is not there
os.environ.setdefault("NUMBA_CACHE_DIR", str(VAR / "numba"))  # numba reads it at its import
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"requests_hardened": {"level": "ERROR"}},  # it warns of addresses that we then allow
    "root": {"handlers": ["console"], "level": _text("DAVY_LOG_LEVEL", "INFO").upper()},
}
