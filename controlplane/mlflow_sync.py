"""Which versions has MLflow registered, where are their artifacts, which are live? The only import of mlflow."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import DataError
from django.db.models import Q

from controlplane import registry
from controlplane.models import Model, ModelVersion, Route
from controlplane.problems import Problem

logger = logging.getLogger("davy.mlflow")
PAGE = 200
AWAY = "MLflow does not answer; it is asked again"
UNWRITTEN = "MLflow does not take aliases; they are written again"
CHAMPION, CHALLENGER = "champion", "challenger"
ACTOR = "mlflow"
STORES = frozenset({"azure", "botocore", "google"})
Keep = Callable[[str], tuple[str, Path]]  # artifacts.keep: download into the cache, answer (digest, folder)
_said: set[str] = set()


class MlflowError(Problem):
    """MLflow did not answer, or refused; `gone`: it answered that there is no such thing."""

    def __init__(self, detail: str, *, gone: bool = False) -> None:
        super().__init__(502, "mlflow_failed", detail)
        self.gone = gone


def sync(now: datetime, keep: Keep) -> int:
    """Take over the versions that MLflow has and Davy has not; return how many. Nothing to do without a server.

    A version is called by its tag `davy.version`, else v<N>; its tags `davy.plan` and `davy.fleet` become the
    version's requested_plan and requested_fleet, also when they are set later. Each version is downloaded once,
    for its digest. What is live is written back as aliases (`live_aliases`). What fails, a version or the server, is
    logged once and tried again at the next call.
    """
    if not settings.MLFLOW_TRACKING_URI:
        return 0
    try:
        registered = sorted(_ready_versions(), key=lambda found: found.creation_timestamp)
    except MlflowError as err:
        _say_once(AWAY, err.detail)
        return 0
    _said.discard(AWAY)
    try:
        _write_aliases(registered)
    except MlflowError as err:
        _say_once(UNWRITTEN, err.detail)
    else:
        _said.discard(UNWRITTEN)
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


def live_aliases() -> dict[str, dict[str, str]]:
    """By model that has a live version, what Davy's versions are called in MLflow: alias → version.

    champion is the version that is stable on most of the model's fleets, of equally many the newest; challenger the
    newest one that is in a canary's slot, if any. Both follow promotions, rollbacks and waves.
    """
    related = Route.objects.filter(stable__isnull=False).select_related("model", "stable", "canary")
    routes: dict[str, list[Route]] = defaultdict(list)
    for route in related:
        routes[route.model.name].append(route)
    return {model: _aliases_of(found) for model, found in routes.items()}


def _aliases_of(routes: list[Route]) -> dict[str, str]:
    stable = Counter(route.stable for route in routes if route.stable is not None)
    champion = max(stable, key=lambda version: (stable[version], version.pk))
    challengers = [route.canary for route in routes if route.canary is not None]
    newest = max(challengers, key=lambda version: version.pk, default=None)
    return {CHAMPION: champion.name} | ({CHALLENGER: newest.name} if newest is not None else {})


def _write_aliases(registered: Iterable[Any]) -> None:
    """Make MLflow's aliases those of `live_aliases`; what is so already is not written. Raises MlflowError.

    They are compared at every call, so that a write that was lost, or undone by hand, comes again. An alias goes
    where MLflow does not know the version that it would be.
    """
    wanted = live_aliases()
    if not wanted:
        return
    numbers = {(found.name, _version_name(found)): str(found.version) for found in registered}
    for model, has in _registered_aliases().items():
        for alias in (CHAMPION, CHALLENGER) if model in wanted else ():
            number = numbers.get((model, wanted[model].get(alias, "")))
            with _failures_as_problems():
                if number is None and alias in has:
                    _client().delete_registered_model_alias(model, alias)
                elif number is not None and str(has.get(alias)) != number:
                    _client().set_registered_model_alias(model, alias, number)


def _registered_aliases() -> dict[str, dict[str, str]]:
    """By MLflow's registered model: alias → version number."""
    with _failures_as_problems():
        found = _pages(lambda token: _client().search_registered_models(max_results=PAGE, page_token=token))
        return {model.name: dict(model.aliases) for model in found}


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


def _ready_versions() -> Iterator[Any]:
    """MLflow's registered versions whose upload has ended."""
    with _failures_as_problems():
        found = _pages(lambda token: _client().search_model_versions(max_results=PAGE, page_token=token))
        yield from (version for version in found if version.status == "READY")


def _pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    """What a search of MLflow's finds, a page at a time."""
    token: str | None = None
    while True:
        page = ask(token)
        yield from page
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

        if isinstance(err, ImportError):  # of the object store's own package, which only some need
            raise MlflowError(f"MLflow: {err}; install it beside Davy", gone=True) from err
        from_store = (
            type(err).__module__.partition(".")[0] in STORES
        )  # MLflow lets its stores' errors through
        if from_store or isinstance(err, MlflowException | OSError):  # requests' errors are OSErrors
            # the error's code, or that of an answer that it quotes
            raise MlflowError(f"MLflow: {err}"[:500], gone="RESOURCE_DOES_NOT_EXIST" in str(err)) from err


def _say_once(what: str, why: str) -> None:
    if what not in _said:
        _said.add(what)
        logger.warning("%s: %s", what, why)
