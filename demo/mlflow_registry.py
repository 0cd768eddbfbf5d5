"""How do the demo's versions get into MLflow? By its REST interface, artifacts and all (MLflow 3, mlflow-artifacts)."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

API = "/api/2.0/mlflow"
EXPERIMENT = "davy-demo"
TIMEOUT_SECONDS = 60


class Registry:
    """An MLflow server's tracking store and model registry."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _call(self, method: str, path: str, body: bytes | None, content_type: str) -> Any:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": content_type}, method=method)
        with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            text = answer.read()
        return json.loads(text) if text else {}

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", API + path, json.dumps(body).encode(), "application/json")

    def _get(self, path: str, **query: str) -> Any:
        return self._call("GET", f"{API}{path}?{urllib.parse.urlencode(query)}", None, "application/json")

    def known(self, model: str) -> set[str]:
        """The versions (tag davy.version) that the registered model has; empty when there is no such model."""
        found = self._get("/model-versions/search", filter=f"name='{model}'", max_results="200")
        tags = (tag for version in found.get("model_versions", []) for tag in version.get("tags", []))
        return {tag["value"] for tag in tags if tag["key"] == "davy.version"}

    def upload(self, folders: Iterable[Path]) -> tuple[str, str]:
        """Put each folder into a new run's artifacts under its own name; return (run id, artifact URI)."""
        run = self._post(
            "/runs/create", {"experiment_id": self._experiment(), "start_time": int(time.time() * 1000)}
        )
        info = run["run"]["info"]
        root = info["artifact_uri"].split("mlflow-artifacts:/", 1)[1].lstrip("/")
        for folder in folders:
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = urllib.parse.quote(f"{root}/{folder.name}/{file.relative_to(folder).as_posix()}")
                path = f"/api/2.0/mlflow-artifacts/artifacts/{name}"
                self._call("PUT", path, file.read_bytes(), "application/octet-stream")
        self._post("/runs/update", {"run_id": info["run_id"], "status": "FINISHED"})
        return info["run_id"], info["artifact_uri"]

    def _experiment(self) -> str:
        try:
            return str(
                self._get("/experiments/get-by-name", experiment_name=EXPERIMENT)["experiment"][
                    "experiment_id"
                ]
            )
        except urllib.error.HTTPError as err:
            if err.code != 404:
                raise
        return str(self._post("/experiments/create", {"name": EXPERIMENT})["experiment_id"])

    def register(self, model: str, versions: Iterable[str], run_id: str, artifact_uri: str) -> None:
        """Register versions whose artifacts lie under the run's `artifact_uri`; the model is made when missing."""
        try:
            self._post("/registered-models/create", {"name": model})
        except urllib.error.HTTPError as err:
            if err.code != 400:  # RESOURCE_ALREADY_EXISTS
                raise
        for version in versions:
            tags = [{"key": "davy.version", "value": version}]
            source = f"{artifact_uri}/{version}"
            self._post(
                "/model-versions/create", {"name": model, "source": source, "run_id": run_id, "tags": tags}
            )
