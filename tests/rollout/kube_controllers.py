"""What a cluster's controllers do to a namespace, one round at a time: none runs beside a test's API server."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.rollout.kube import Namespace

Json = dict[str, Any]
CONTROLLER = "example.com/gateway"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(
    kind: str, status: str, generation: int, reason: str = "Judged", message: str = "so be it"
) -> Json:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": _now(),
    }


@dataclass
class Controllers:
    """Gateway, Deployment and KServe controllers."""

    space: Namespace
    refusal: str = ""  # the gateway refuses with this message
    stuck: set[str] = field(default_factory=set)  # Deployments, and KServe's versions, that do not get ready
    revisions: dict[str, list[str]] = field(
        default_factory=dict
    )  # InferenceService → its revisions' templates

    def round(self) -> None:
        """Let every controller act until nothing changes any more."""
        for route in self.space.all("httproutes"):
            self.gateway(route)
        for deployment in self.space.all("deployments"):
            self.deployment(deployment)
        for service in self.space.all("inferenceservices"):
            for _ in range(3):  # KServe sees its own status in the next round
                self.kserve(self.space.get("inferenceservices", service["metadata"]["name"]))

    def gateway(self, route: Json) -> None:
        """Accept the route for each of its parents, or refuse it."""
        generation = route["metadata"]["generation"]
        verdict, why = ("False", self.refusal) if self.refusal else ("True", "so be it")
        accepted = condition("Accepted", verdict, generation, message=why)
        told = [accepted, condition("ResolvedRefs", "True", generation)]
        parents = [
            {"parentRef": parent, "controllerName": CONTROLLER, "conditions": told}
            for parent in route["spec"].get("parentRefs") or []
        ]
        if parents:
            change = {"status": {"parents": parents}}
            self.space.edit("httproutes", route["metadata"]["name"], change, manager="gateway", status=True)

    def deployment(self, found: Json) -> None:
        """Roll the pods out at once."""
        name, wanted = found["metadata"]["name"], found["spec"]["replicas"]
        good = 0 if name in self.stuck else wanted
        status = {
            "observedGeneration": found["metadata"]["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "availableReplicas": good,
            "readyReplicas": good,
        }
        self.space.edit("deployments", name, {"status": status}, manager="deployment-controller", status=True)

    def kserve(self, found: Json) -> None:
        """One round of KServe in serverless mode, with Knative's part: a revision for each template, and the traffic.

        After the controller's source: createKnativeService of ksvc_reconciler.go, PropagateStatus of
        inference_service_status.go. `observedGeneration` is the child's counter, as in issue 6081.
        """
        name, predictor = found["metadata"]["name"], found["spec"]["predictor"]
        before = ((found.get("status") or {}).get("components") or {}).get("predictor") or {}
        pods = {key: value for key, value in predictor.items() if key != "canaryTrafficPercent"}
        template = json.dumps(pods, sort_keys=True)
        made = self.revisions.setdefault(name, [])
        if not made or made[-1] != template:
            made.append(template)
        created = f"{name}-predictor-{len(made):05}"
        version = predictor.get("annotations", {}).get("davy/version")
        ready = before.get("latestReadyRevision", "") if version in self.stuck else created
        rolled_out = before.get("latestRolledoutRevision", "")
        previous = before.get("previousRolledoutRevision", "")
        percent = predictor.get("canaryTrafficPercent")
        traffic = _traffic(percent, ready, rolled_out)
        sent = sum(t["percent"] for t in traffic if t["revisionName"] == ready)
        if ready and rolled_out != ready and traffic[0]["percent"] == 100:
            previous, rolled_out = rolled_out, ready
        elif ready == rolled_out == created and traffic[0]["percent"] < 100 == sent and previous:
            rolled_out = previous  # a return to the revision before
        component = {
            "latestCreatedRevision": created,
            "latestReadyRevision": ready,
            "latestRolledoutRevision": rolled_out,
            "previousRolledoutRevision": previous,
            "traffic": traffic,
        }
        good = "True" if ready == created else "False"
        status = {
            "observedGeneration": len(made),
            "deploymentMode": "Serverless",
            "components": {"predictor": {key: value for key, value in component.items() if value}},
            "conditions": [{"type": kind, "status": good} for kind in ("Ready", "PredictorReady")],
        }
        self.space.edit("inferenceservices", name, {"status": status}, manager="kserve", status=True)


def _traffic(percent: int | None, ready: str, rolled_out: str) -> list[Json]:
    if not ready:
        return []
    if percent is None or not rolled_out:
        return [{"latestRevision": True, "percent": 100, "revisionName": ready}]
    targets: list[Json] = [{"latestRevision": True, "percent": percent, "revisionName": ready}]
    if percent < 100:
        before = {"latestRevision": False, "percent": 100 - percent, "revisionName": rolled_out}
        targets.append(before | {"tag": "prev"})
    return targets
