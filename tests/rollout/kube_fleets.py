"""Fleets on a test's Kubernetes: what their operator has made, and their config."""

from __future__ import annotations

from typing import Any

from tests.rollout.kube import Namespace

Json = dict[str, Any]
CONTAINER = "server"


def deployment(name: str) -> Json:
    """A Deployment as an operator's manifest has it."""
    labels = {"app": name}
    containers = [
        {"name": CONTAINER, "image": "triton:1", "env": [{"name": "LOG", "value": "info"}]},
        {"name": "logs", "image": "logs:1"},
    ]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def httproute(name: str) -> Json:
    """An HTTPRoute as an operator's manifest has it: the rules are left to Davy."""
    metadata = {"name": name, "labels": {"team": "vision"}, "annotations": {"git": "1234"}}
    spec = {"parentRefs": [{"name": "edge"}], "hostnames": ["models.example.com"]}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": spec,
    }


def inference_service(name: str) -> Json:
    """An InferenceService as an operator's manifest has it: runtime and resources; the model is left to Davy."""
    model = {"modelFormat": {"name": "onnx"}, "runtime": "triton"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "labels": {"team": "vision"}},
        "spec": {"predictor": {"minReplicas": 1, "model": model}},
    }


def gateway_fleet(space: Namespace, model: str, *, made: bool = True, **changes: Any) -> Json:
    """The config of a fleet behind a gateway; with `made` its objects are there."""
    if made:
        space.make("httproutes", httproute(f"davy-{model}"))
        for slot in ("a", "b"):
            space.make("deployments", deployment(f"{model}-{slot}"))
    slots = {
        slot: {
            "service": f"{{model}}-{slot}",
            "port": 8000,
            "mirror": {"service": f"{{model}}-{slot}-shadow", "port": 8000},
            "deployment": {"name": f"{{model}}-{slot}", "container": CONTAINER, "replicas": 2},
        }
        for slot in ("a", "b")
    }
    config = {"namespace": space.name, "httproute": "davy-{model}", "slots": slots}
    return {**space.kube.credentials(), **config, **changes}


def kserve_fleet(space: Namespace, model: str, *, made: bool = True, **changes: Any) -> Json:
    """The config of a fleet of InferenceServices."""
    if made:
        space.make("inferenceservices", inference_service(model))
    config = {"namespace": space.name, "service": "{model}", "storage_uri": "s3://models/{model}/{digest}"}
    return {**space.kube.credentials(), **config, **changes}
