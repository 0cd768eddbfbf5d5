"""Which version does a Deployment run, and how is another one rolled out in it?

Davy writes who the version is into the pods' template: as annotations, which make Kubernetes roll the pods, and as
environment (and image) for the server that loads it. Ready means what `kubectl rollout status` means for that template.

Owned by server-side apply as `davy`: the template's annotations davy/model, davy/version and davy/digest, and of one
container the environment that the config names and, if it does, the image. Replicas are only moved between 0 and not 0,
by the scale subresource, so that an autoscaler keeps them in between. Everything else stays whoever's it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollout.drivers.base import Bundle, DriverError
from rollout.drivers.kube.api import Cluster, Json, path_of
from rollout.drivers.kube.config import Naming, filled, known_only, text

ANNOTATIONS = ("davy/model", "davy/version", "davy/digest")
_COUNTS = ("replicas", "updatedReplicas", "availableReplicas")
OWNED = (
    "Deployment spec.template.metadata.annotations[davy/*]",
    "Deployment spec.template.spec.containers[<container>].env[DAVY_*, and the config's], .image if the config has one",
    "Deployment spec.replicas, from and to 0",
)


@dataclass(frozen=True)
class DeploymentSlot:
    """One slot's Deployments, one for each model; made by the operator, moved by Davy."""

    cluster: Cluster
    namespace: str
    name: Naming
    container: str
    image: str  # a pattern; "": the operator's
    env: Mapping[str, str]  # patterns
    replicas: int  # when it is scaled up from 0

    @classmethod
    def parse(cls, raw: object, where: str, cluster: Cluster, namespace: str) -> DeploymentSlot:
        """Read and check a slot's `deployment`. Raises ValueError("<where>/<field>: …")."""
        given = known_only(raw, where, {"name", "container", "image", "env", "replicas"})
        env = given.get("env", {})
        if not isinstance(env, dict):
            raise ValueError(f"{where}/env: an object is needed")
        replicas = given.get("replicas", 1)
        if not isinstance(replicas, int) or isinstance(replicas, bool) or not 1 <= replicas <= 1000:
            raise ValueError(f"{where}/replicas: a whole number from 1 to 1000 is needed")
        image = text(given["image"], f"{where}/image", names_version=True) if "image" in given else ""
        return cls(
            cluster,
            namespace,
            Naming.parse(given.get("name"), f"{where}/name"),
            text(given.get("container"), f"{where}/container"),
            image,
            {name: text(value, f"{where}/env/{name}") for name, value in env.items()},
            replicas,
        )

    def load(self, bundle: Bundle) -> None:
        """Have the Deployment roll its pods to the version, and scale it up when it stands at 0. Raises DriverError."""
        name, path = self._path(bundle.model)
        found = self.cluster.get(path)
        if found is None:
            where = f"{self.namespace}/{name}"
            raise DriverError(f"there is no Deployment {where}: make one, Davy only moves it", retry=False)
        pod = found["spec"]["template"]["spec"]
        containers = [container["name"] for container in pod["containers"]]
        if self.container not in containers:
            has = ", ".join(containers)
            raise DriverError(
                f"Deployment {name} has no container {self.container!r}, it has {has}", retry=False
            )
        self.cluster.apply(path, self._wanted(name, bundle))
        if not found["spec"].get("replicas"):
            self.cluster.merge(f"{path}/scale", {"spec": {"replicas": self.replicas}})

    def serves(self, bundle: Bundle) -> bool:
        """Whether all its pods run this version and are available. Raises DriverError when the rollout is stuck."""
        name, path = self._path(bundle.model)
        found = self.cluster.get(path)
        if found is None or _identity(found) != (bundle.model, bundle.version, bundle.digest):
            return False
        spec, status = found["spec"], found.get("status", {})
        if status.get("observedGeneration", 0) < found["metadata"]["generation"] or not spec.get("replicas"):
            return False
        if {status.get(count, 0) for count in _COUNTS} == {spec["replicas"]}:
            return True
        for condition in status.get("conditions", []):
            if condition["type"] == "Progressing" and condition["status"] == "False":
                raise DriverError(
                    f"Deployment {name} does not roll out: {condition.get('message', '')}"[:300]
                )
        return False

    def unload(self, model: str) -> None:
        """Scale it to 0. Raises DriverError."""
        _, path = self._path(model)
        found = self.cluster.get(path)
        if found is not None and found["spec"].get("replicas") != 0:
            self.cluster.merge(f"{path}/scale", {"spec": {"replicas": 0}})

    def capacity_percent(self, model: str) -> float:
        """How much of its traffic it can carry: all of it while Kubernetes calls it available (its maxUnavailable)."""
        _, path = self._path(model)
        found = self.cluster.get(path)
        if found is None or not found["spec"].get("replicas"):
            return 0.0
        status = found.get("status", {})
        available = {c["type"]: c["status"] for c in status.get("conditions", [])}.get("Available")
        if available == "True":
            return 100.0
        return min(100.0, 100 * int(status.get("availableReplicas", 0)) / int(found["spec"]["replicas"]))

    def _path(self, model: str) -> tuple[str, str]:
        name = self.name.of(model)
        return name, path_of("apis/apps/v1", self.namespace, "deployments", name)

    def _wanted(self, name: str, bundle: Bundle) -> Json:
        """What of the Deployment is Davy's."""
        who = dict(zip(ANNOTATIONS, (bundle.model, bundle.version, bundle.digest), strict=True))
        env = {key.upper().replace("/", "_"): value for key, value in who.items()}
        env |= {key: filled(pattern, bundle) for key, pattern in self.env.items()}
        container: Json = {
            "name": self.container,
            "env": [{"name": key, "value": value} for key, value in sorted(env.items())],
        }
        if self.image:
            container["image"] = filled(self.image, bundle)
        template = {"metadata": {"annotations": who}, "spec": {"containers": [container]}}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"template": template},
        }


def _identity(deployment: Json) -> tuple[Any, ...]:
    annotations = deployment["spec"]["template"].get("metadata", {}).get("annotations") or {}
    return tuple(annotations.get(name) for name in ANNOTATIONS)
