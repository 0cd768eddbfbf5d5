"""Traffic through KServe (serverless): one InferenceService for each model, split by `canaryTrafficPercent`.

KServe knows two revisions: the latest, and the last one that had all traffic. Davy's slots are laid over them:
annotations of the predictor say which slot and version the latest revision is, and which the other one. So
- `prepare` writes the new version as the latest revision with 0 %;
- a weight is the latest revision's share, a promotion removes the percentage, and KServe can still return to the other;
- `release` of a rejected canary writes the other version back as a new revision, so that nothing bad is one removed
  field away from all users;
- `release` of the old version after a promotion has nothing to do: Knative scales a revision without traffic to 0.

What KServe does that shapes this file: `status.observedGeneration` is its child's counter, not comparable with the
generation (kserve issue 6081), so a new revision is told by its name; any change of the predictor's annotations makes a
new revision, so only what is to make one changes them; outside serverless mode canaryTrafficPercent is silently ignored
(issue 5335), so the driver refuses such a service.

Owned: spec.predictor's canaryTrafficPercent, annotations[davy/*] and model.storageUri; merged, tied by resourceVersion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from rollout.drivers.base import Bundle, DriverError, RouteSpec
from rollout.drivers.kube.api import Cluster, Conflict, Json, path_of
from rollout.drivers.kube.config import WAYS, Access, Naming, filled, known_only, text

GROUP = "apis/serving.kserve.io/v1beta1"
ATTEMPTS = 3
IGNORES_SPLITS = ("RawDeployment", "Standard", "ModelMesh")
BLOCKED = ("BlockedByFailedLoad", "InvalidSpec")
OWNED = (
    "InferenceService spec.predictor.canaryTrafficPercent",
    "InferenceService spec.predictor.annotations[davy/*]",
    "InferenceService spec.predictor.model.storageUri",
)


@dataclass(frozen=True)
class Held:
    """A version in a slot."""

    model: str
    slot: str
    version: str
    digest: str
    uri: str


@dataclass(frozen=True)
class Service:
    """What an InferenceService says: the versions that Davy put there, and what KServe made of them."""

    resource_version: str
    latest: Held | None
    other: Held | None  # what the other revision serves, and its name
    other_revision: str
    follows: (
        str  # the revision that was the latest when Davy wrote: until it changes, KServe has not seen that
    )
    uri: str
    percent: int | None  # canaryTrafficPercent: the latest revision's share
    created: str
    ready: str
    rolled_out: tuple[str, ...]  # the last revision that had all traffic, and the one before
    traffic: Mapping[str, int]  # revision → percent, as routed
    healthy: bool
    trouble: str  # why KServe does not load the latest revision, in its words
    route_trouble: str

    @classmethod
    def of(cls, found: Json) -> Service:
        """Read the object."""
        predictor, status = found["spec"].get("predictor") or {}, found.get("status") or {}
        notes = predictor.get("annotations") or {}
        component = (status.get("components") or {}).get("predictor") or {}
        traffic: dict[str, int] = {}
        for target in component.get("traffic") or []:
            name = target.get("revisionName", "")
            traffic[name] = traffic.get(name, 0) + (target.get("percent") or 0)
        conditions = {c["type"]: c for c in status.get("conditions") or []}
        route = conditions.get("PredictorRouteReady", {})
        return cls(
            resource_version=found["metadata"]["resourceVersion"],
            latest=_held(notes, "davy/"),
            other=_held(notes, "davy/other-"),
            other_revision=notes.get("davy/other-revision", ""),
            follows=notes.get("davy/follows", ""),
            uri=(predictor.get("model") or {}).get("storageUri", ""),
            percent=predictor.get("canaryTrafficPercent"),
            created=component.get("latestCreatedRevision", ""),
            ready=component.get("latestReadyRevision", ""),
            rolled_out=(
                component.get("latestRolledoutRevision", ""),
                component.get("previousRolledoutRevision", ""),
            ),
            traffic=traffic,
            healthy=conditions.get("Ready", {}).get("status") == "True",
            trouble=_trouble(status.get("modelStatus") or {}),
            route_trouble=route.get("message", "") if route.get("status") == "False" else "",
        )

    @property
    def seen(self) -> bool:
        """Whether KServe has made the revision that Davy wrote last."""
        return bool(self.created) and self.created != self.follows

    @property
    def latest_ready(self) -> bool:
        return self.seen and self.ready == self.created

    @property
    def latest_has_all(self) -> bool:
        """Whether KServe counts the latest revision as rolled out: then it keeps it when a newer one comes."""
        return self.latest_ready and self.rolled_out[0] == self.created and self.percent in (None, 100)

    @property
    def other_ready(self) -> bool:
        """Whether KServe can still give traffic to the other version."""
        return self.other is not None and self.other_revision in self.rolled_out

    @property
    def latest_share(self) -> int:
        """Percent of the traffic that the latest revision really gets."""
        return self.traffic.get(self.created, 0) if self.seen else 0


def _held(notes: Mapping[str, str], prefix: str) -> Held | None:
    values = [notes.get(prefix + part.name) for part in fields(Held)]
    return None if None in values else Held(*map(str, values))


def _trouble(model: Json) -> str:
    if model.get("transitionStatus") not in BLOCKED:
        return ""
    failure = model.get("lastFailureInfo") or {}
    return f"{model['transitionStatus']}: {failure.get('reason', '')} {failure.get('message', '')}".strip()


class KServeDriver:
    """One fleet of InferenceServices. They are the operator's; Davy moves versions and traffic in them."""

    def __init__(self, config: Mapping[str, Any], fleet: str = "") -> None:
        """Raises ValueError("<field>: …") for a bad config."""
        known_only(config, "", {*WAYS, "namespace", "service", "storage_uri"})
        self.cluster = Cluster(Access.parse(config))
        self.namespace = text(config.get("namespace"), "namespace")
        self.service = Naming.parse(config.get("service"), "service")
        self.storage_uri = text(config.get("storage_uri"), "storage_uri", names_version=True)

    def assignment(self) -> str:
        """Weights draw every request anew."""
        return "request"

    def check(self) -> dict[str, Any]:
        """Read-only: who the API server is, and which fields are Davy's. Raises DriverError."""
        services = self.cluster.get(path_of(GROUP, self.namespace, "inferenceservices")) or {}
        items = services.get("items", [])
        modes = {item["metadata"]["name"]: _mode(item) for item in items}
        warnings = [
            f"{name} runs in {mode} mode, which splits no traffic"
            for name, mode in modes.items()
            if mode in IGNORES_SPLITS
        ]
        version = self.cluster.version()
        return {
            "kubernetes": version,
            "inferenceservices": len(items),
            "owned_fields": list(OWNED),
            "warnings": warnings,
        }

    def prepare(self, bundle: Bundle, slot: str) -> None:
        """Write the version as the latest revision, with 0 %; the version that has the traffic keeps it."""
        wanted = self._held(bundle, slot)
        self._change(bundle.model, lambda service: _finished(service, wanted))
        self._change(bundle.model, lambda service: _prepared(service, wanted))

    def ready(self, bundle: Bundle, slot: str) -> bool:
        """Whether the slot's revision runs this version. Raises DriverError with KServe's reason when it cannot."""
        service, wanted = self._read(bundle.model), self._held(bundle, slot)
        if service is None:
            return False
        if service.latest != wanted or service.uri != wanted.uri:
            return service.other == wanted and service.other_ready
        if service.trouble and not service.latest_ready:
            raise DriverError(
                f"KServe does not load {bundle.model} {bundle.version}: {service.trouble}"[:400]
            )
        return service.latest_ready and service.healthy

    def _held(self, bundle: Bundle, slot: str) -> Held:
        return Held(bundle.model, slot, bundle.version, bundle.digest, filled(self.storage_uri, bundle))

    def why_not(self, percent: float) -> str:
        """canaryTrafficPercent is a whole number."""
        return "" if percent == round(percent) else f"KServe takes whole percents, not {percent:g}"

    def set_weight(self, route: RouteSpec, percent: float) -> None:
        """Set the latest revision's share. Raises DriverError for a fraction: KServe takes whole percents."""
        if not 0 <= percent <= 100:
            raise DriverError(f"weight {percent} is outside 0–100", retry=False)
        refusal = self.why_not(percent)
        if refusal:
            raise DriverError(refusal, retry=False)
        self._change(route.model, lambda service: _weighted(service, route, round(percent)))

    def observed_weight(self, route: RouteSpec) -> float | None:
        """The canary slot's share as KServe routes it; None while it routes something that is in no slot."""
        service = self._read(route.model)
        if service is None or service.latest is None or not service.traffic:
            return None
        if service.route_trouble:
            raise DriverError(f"KServe cannot route {route.model}: {service.route_trouble}"[:400])
        if service.other is None and service.latest_share != 100:
            return None
        is_canary = service.latest.slot == route.canary_slot
        return float(service.latest_share if is_canary else 100 - service.latest_share)

    def release(self, model: str, slot: str) -> None:
        """Write the other version back where the slot has the latest revision. DriverError while that has traffic."""
        self._change(model, lambda service: _released(service, slot), missing_is_fine=True)

    def _path(self, model: str) -> tuple[str, str]:
        name = self.service.of(model)
        return name, path_of(GROUP, self.namespace, "inferenceservices", name)

    def _read(self, model: str) -> Service | None:
        found = self.cluster.get(self._path(model)[1])
        return None if found is None else Service.of(found)

    def _change(
        self, model: str, change: Callable[[Service], Json | None], *, missing_is_fine: bool = False
    ) -> None:
        """Merge what `change` makes of the service as it is now; again when somebody else wrote in between."""
        name, path = self._path(model)
        for attempt in range(1, ATTEMPTS + 1):
            found = self.cluster.get(path)
            if found is None and missing_is_fine:
                return
            if found is None:
                where = f"{self.namespace}/{name}"
                raise DriverError(
                    f"there is no InferenceService {where}: make one, Davy only moves it", retry=False
                )
            if _mode(found) in IGNORES_SPLITS:
                why = "it would give a canary all traffic; use its Deployments with the driver gateway_api"
                raise DriverError(f"InferenceService {name} runs in {_mode(found)} mode: {why}", retry=False)
            service = Service.of(found)
            predictor = change(service)
            if predictor is None:
                return
            body = {
                "metadata": {"resourceVersion": service.resource_version},
                "spec": {"predictor": predictor},
            }
            try:
                self.cluster.merge(path, body)
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
            else:
                return


def _mode(found: Json) -> str:
    asked = (found["metadata"].get("annotations") or {}).get("serving.kserve.io/deploymentMode", "")
    return str(found.get("status", {}).get("deploymentMode") or asked)


def _notes(latest: Held | None, other: Held | None = None, **revisions: str) -> dict[str, str | None]:
    """The predictor's annotations; null removes one."""
    notes: dict[str, str | None] = {
        "davy/follows": revisions.get("follows") or None,
        "davy/other-revision": revisions.get("other_revision") or None,
    }
    for prefix, held in (("davy/", latest), ("davy/other-", other)):
        for part in fields(Held):
            notes[prefix + part.name] = None if held is None else getattr(held, part.name)
    return notes


def _written(service: Service, latest: Held, other: Held | None, other_revision: str = "") -> Json:
    """A new latest revision, with 0 %: traffic stays where it is until this one is ready and asked for."""
    if service.latest is not None and not service.seen and not service.trouble:
        raise DriverError(f"KServe has not made a revision of version {service.latest.version} yet")
    notes = _notes(latest, other, follows=service.created, other_revision=other_revision)
    return {"canaryTrafficPercent": 0, "annotations": notes, "model": {"storageUri": latest.uri}}


def _finished(service: Service, wanted: Held) -> Json | None:
    """Before another version comes: the stable one, written back by a release, gets the traffic once it is ready."""
    latest = service.latest
    if latest is None or latest.slot == wanted.slot or service.other is not None:
        return None
    unfinished = service.percent not in (None, 100) and service.latest_ready
    return {"canaryTrafficPercent": None} if unfinished else None


def _prepared(service: Service, wanted: Held) -> Json | None:
    latest = service.latest
    if (latest == wanted and service.uri == wanted.uri) or (service.other == wanted and service.other_ready):
        return None
    if latest is None or latest.slot == wanted.slot:
        return _written(service, wanted, service.other, service.other_revision)
    if not service.latest_has_all:
        waiting = f"version {latest.version} in slot {latest.slot} has not got all traffic yet"
        raise DriverError(f"slot {wanted.slot} can be written later: {waiting}")
    return _written(service, wanted, latest, service.created)


def _weighted(service: Service, route: RouteSpec, percent: int) -> Json | None:
    latest = service.latest
    if latest is None:
        raise DriverError(f"no version of {route.model} was prepared", retry=False)
    is_canary = latest.slot == route.canary_slot
    share = percent if is_canary else 100 - percent
    if share < 100 and service.other is None:
        empty = "a" if latest.slot == "b" else "b"
        asked = f"{100 - share} % of {route.model}"
        raise DriverError(f"slot {empty} has no version that could get {asked}", retry=False)
    now = 100 if service.percent is None else service.percent
    promoted = share == 100 and not is_canary
    if now == share and not (promoted and service.percent is not None):
        return None
    if share > now and not service.latest_ready:
        # KServe would give it to the revision that was ready before
        raise DriverError(f"the revision of {route.model} {latest.version} is not ready yet")
    return {"canaryTrafficPercent": None if promoted else share}


def _released(service: Service, slot: str) -> Json | None:
    latest = service.latest
    if latest is None or latest.slot != slot:
        return None
    if service.other is None:
        return {"annotations": _notes(None)}
    if service.percent != 0:
        carried = "all" if service.percent is None else f"{service.percent} %"
        raise DriverError(f"slot {slot} carries {carried} of the traffic")
    return _written(service, service.other, None)
