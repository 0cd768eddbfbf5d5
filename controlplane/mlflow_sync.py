"""Which versions has MLflow registered, and where are their artifacts? The only module that imports mlflow."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import DataError
from django.db.models import Q

from controlplane import registry
from controlplane.models import Model, ModelVersion
from controlplane.problems import Problem

logger = logging.getLogger("davy.mlflow")
PAGE = 200
AWAY = "MLflow does not answer; it is asked again"
ACTOR = "mlflow"
Keep = Callable[[str], tuple[str, Path]]  # artifacts.keep: download into the cache, answer (digest, folder)
_said: set[str] = set()


class MlflowError(Problem):
    """MLflow did not answer, or refused."""

    def __init__(self, detail: str) -> None:
        super().__init__(502, "mlflow_failed", detail)


def sync(now: datetime, keep: Keep) -> int:
    """Take over the versions that MLflow has and Davy has not; return how many. Nothing to do without a server.

    A version is called by its tag `davy.version`, else v<N>; its tags `davy.plan` and `davy.fleet` become the
    version's requested_plan and requested_fleet, also when they are set later. Each version is downloaded once,
    for its digest. What fails, a version or the server, is logged once and tried again at the next call.
    """
    if not settings.MLFLOW_TRACKING_URI:
        return 0
    try:
        registered = list(_ready_versions())
    except MlflowError as err:
        _say_once(AWAY, err.detail)
        return 0
    _said.discard(AWAY)
    taken = 0
    for found in registered:
        try:
            taken += _take_over(found, keep, now)
        except (Problem, DataError) as err:  # DataError: text that PostgreSQL cannot hold
            _say_once(f"{found.name} {found.version} of MLflow is not taken over", str(err))
    return taken


def resolve(uri: str) -> str:
    """Where the artifact of `models:/<name>/<version or @alias>` or `runs:/<run>/<path>` really is."""
    parts = urlsplit(uri)
    with _failures_as_problems():
        first, _, rest = parts.path.strip("/").partition("/")
        if parts.scheme == "models":
            name, _, alias = first.partition("@")
            number = str(_client().get_model_version_by_alias(name, alias).version) if alias else rest
            return str(_client().get_model_version_download_uri(name, number))
        return f"{_client().get_run(first).info.artifact_uri}/{rest}"


def download(uri: str, to: Path) -> Path:
    """Download the folder at `uri` (mlflow-artifacts:/…, s3://…) below `to`; return where it is."""
    from mlflow.artifacts import download_artifacts

    with _failures_as_problems():
        _client()
        path = download_artifacts(
            artifact_uri=uri, dst_path=str(to), tracking_uri=settings.MLFLOW_TRACKING_URI or None
        )
    return Path(path)


def set_alias(model: str, alias: str, version: str) -> bool:
    """Point MLflow's alias (champion, challenger) at a version; False when MLflow does not know that version."""
    if not settings.MLFLOW_TRACKING_URI:
        return False
    for found in _ready_versions(f"name = '{model}'"):
        if _version_name(found) == version:
            with _failures_as_problems():
                _client().set_registered_model_alias(model, alias, found.version)
            return True
    return False


def _take_over(found: Any, keep: Keep, now: datetime) -> int:
    name, version = found.name, _version_name(found)
    plan, fleet = found.tags.get("davy.plan", ""), found.tags.get("davy.fleet", "")
    if not registry.valid_name(name) or not registry.valid_name(version):
        _say_once(f"{name!r} {version!r} of MLflow is skipped", registry.NAME_RULE)
        return 0
    known = ModelVersion.objects.filter(model__name=name, name=version)
    if known.exists():
        _request(known, plan, fleet)
        return 0
    source = resolve(f"models:/{name}/{found.version}")
    digest, folder = keep(source)
    model = Model.objects.filter(name=name).first()
    if model is None:
        model, _created = registry.create_model(name=name, actor=ACTOR)
    registry.register(
        model=model,
        version=version,
        artifact_uri=source,
        digest=digest,
        mlflow_run_id=found.run_id or "",
        requested_plan=plan,
        requested_fleet=fleet,
        bundle=_described(folder),
        actor=ACTOR,
        now=now,
    )
    return 1


def _described(folder: Path) -> dict[str, Any]:
    """What the artifact says of itself in davy.json (`classes`, thresholds); {} when it says nothing."""
    file = folder / "davy.json"
    if not file.is_file():
        return {}
    try:
        described = json.loads(file.read_bytes())
    except ValueError as err:
        raise MlflowError(f"{file.name} of the artifact is not JSON: {err}") from err
    if not isinstance(described, dict):
        raise MlflowError(f"{file.name} of the artifact is not an object")
    return described


def _request(known: Any, plan: str, fleet: str) -> None:
    """Tags that came after the version: a request once made is not changed."""
    if plan or fleet:
        unasked = known.filter(Q(requested_plan="") & Q(requested_fleet=""))
        unasked.update(requested_plan=plan, requested_fleet=fleet)


def _version_name(found: Any) -> str:
    return str(found.tags.get("davy.version") or f"v{found.version}")


def _ready_versions(filter_string: str = "") -> Iterator[Any]:
    """MLflow's registered versions whose upload has ended, a page at a time."""
    token: str | None = None
    while True:
        with _failures_as_problems():
            page = _client().search_model_versions(
                filter_string=filter_string or None, max_results=PAGE, page_token=token
            )
        yield from (found for found in page if found.status == "READY")
        token = page.token
        if not token:
            return


@cache
def _client() -> Any:
    """One client a process; short patience, because a timer comes again."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient

    return MlflowClient(
        tracking_uri=settings.MLFLOW_TRACKING_URI or None, registry_uri=settings.MLFLOW_TRACKING_URI or None
    )


class _failures_as_problems:  # noqa: N801 - reads as a clause after `with`
    """Turns MLflow's and the network's exceptions into MlflowError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, _trace: object) -> None:
        if err is None:
            return
        from mlflow.exceptions import MlflowException

        if isinstance(err, MlflowException | OSError):  # requests' errors are OSErrors
            raise MlflowError(f"MLflow: {err}"[:500]) from err


def _say_once(what: str, why: str) -> None:
    if what not in _said:
        _said.add(what)
        logger.warning("%s: %s", what, why)
