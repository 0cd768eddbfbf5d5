"""Claims about taking versions over from MLflow, against a real MLflow server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from controlplane import artifacts, mlflow_sync
from controlplane.models import Fleet, ModelVersion, Route
from demo.places import ROOT
from tests.controlplane.conftest import NOW
from tests.ports import free_ports

START_SECONDS = 240
pytestmark = pytest.mark.timeout(600)  # the first test starts the server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that keeps artifacts itself, as `make up` starts it; its URL."""
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    (folder / "artifacts").mkdir()
    command = [sys.executable, "-m", "demo.mlflow_server", "--port", str(port), "--folder", str(folder)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # ten processes that idle
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, env=environment, start_new_session=True
        )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while not answers(url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "MLflow did not start"
            time.sleep(0.2)
        yield url
    finally:  # also when it starts too slowly: it must not outlive the tests
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture
def mlflow(server, settings, tmp_path, db):
    """An MLflow client of a server that Davy polls."""
    settings.MLFLOW_TRACKING_URI = server
    settings.VAR = tmp_path
    mlflow_sync._client.cache_clear()
    mlflow_sync._said.clear()
    return mlflow_sync._client()


class Keep:
    """artifacts.keep, counting its calls."""

    def __init__(self):
        self.uris = []

    def __call__(self, uri: str) -> tuple[str, Path]:
        self.uris.append(uri)
        return artifacts.keep(uri)


def register(mlflow, model: str, folder: Path, weights: str, **tags: str):
    """Log a bundle as a run's artifact and register it, as a training pipeline does."""
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text("max_batch_size: 32")
    (folder / "1" / "model.onnx").write_text(weights)
    run = mlflow.create_run("0")
    mlflow.log_artifacts(run.info.run_id, str(folder), "bundle")
    if not any(found.name == model for found in mlflow.search_registered_models()):
        mlflow.create_registered_model(model)
    source = f"{run.info.artifact_uri}/bundle"
    return mlflow.create_model_version(
        model, source, run.info.run_id, tags={name.replace("_", "."): value for name, value in tags.items()}
    )


def test_new_versions_are_taken_over_with_digest_name_and_request(mlflow, tmp_path):
    bundle = tmp_path / "bundle"
    register(mlflow, "products", bundle, "one")
    first = artifacts.digest_of(bundle)
    register(
        mlflow, "products", bundle, "two", davy_version="v2-better", davy_plan="standard", davy_fleet="local"
    )
    second = artifacts.digest_of(bundle)
    keep = Keep()
    assert mlflow_sync.sync(NOW, keep) == 2
    rows = {row.name: row for row in ModelVersion.objects.filter(model__name="products")}
    assert {name: row.digest for name, row in rows.items()} == {"v1": first, "v2-better": second}
    assert (rows["v2-better"].requested_plan, rows["v2-better"].requested_fleet) == ("standard", "local")
    assert rows["v1"].mlflow_run_id
    assert artifacts.fetch(rows["v1"]) == tmp_path / "artifacts" / first


def test_a_version_seen_before_costs_no_download_and_a_late_tag_is_still_a_request(mlflow, tmp_path):
    register(mlflow, "shelf", tmp_path / "bundle", "one")
    keep = Keep()
    mlflow_sync.sync(NOW, keep)
    downloads = len(keep.uris)
    mlflow.set_model_version_tag("shelf", "1", "davy.plan", "standard")
    assert mlflow_sync.sync(NOW, keep) == 0
    assert len(keep.uris) == downloads
    assert ModelVersion.objects.get(model__name="shelf").requested_plan == "standard"


def test_a_name_that_davy_cannot_have_is_skipped_and_said_once(mlflow, tmp_path, caplog):
    register(mlflow, "Not A Name", tmp_path / "bundle", "one")
    for _ in range(2):
        mlflow_sync.sync(NOW, artifacts.keep)
    assert not ModelVersion.objects.filter(model__name__icontains="not").exists()
    assert caplog.text.count("'Not A Name' 'v1' of MLflow is skipped") == 1


def test_an_artifact_that_is_gone_holds_up_no_other(mlflow, tmp_path, caplog):
    run = mlflow.create_run("0")
    mlflow.create_registered_model("gone")
    mlflow.create_model_version("gone", f"{run.info.artifact_uri}/nothing", run.info.run_id)
    register(mlflow, "here", tmp_path / "bundle", "one")
    mlflow_sync.sync(NOW, artifacts.keep)
    assert ModelVersion.objects.filter(model__name="here").exists()
    assert not ModelVersion.objects.filter(model__name="gone").exists()
    assert "gone 1 of MLflow is not taken over" in caplog.text


def test_what_postgresql_cannot_hold_is_skipped_and_said(mlflow, tmp_path, caplog):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "davy.json").write_text('{"classes": ["\\u0000"]}')
    register(mlflow, "nul", tmp_path / "bundle", "one")
    mlflow_sync.sync(NOW, artifacts.keep)
    assert not ModelVersion.objects.filter(model__name="nul").exists()
    assert "nul 1 of MLflow is not taken over" in caplog.text


@pytest.fixture
def kiosk(mlflow, tmp_path):
    """A model with the versions v1 and v9 in MLflow, v1 live on one fleet: (registered by, its route)."""
    register(mlflow, "kiosk", tmp_path / "bundle", "one")
    register(mlflow, "kiosk", tmp_path / "bundle", "two", davy_version="v9")
    mlflow_sync.sync(NOW, artifacts.keep)
    yield mlflow, live("edge", "v1")
    mlflow.delete_registered_model("kiosk")


def live(fleet: str, name: str) -> Route:
    stable = ModelVersion.objects.get(model__name="kiosk", name=name)
    made = Fleet.objects.create(name=fleet, driver="memory", config={})
    return Route.objects.create(model=stable.model, fleet=made, stable=stable)


def aliases(mlflow) -> dict[str, str]:
    return {alias: str(number) for alias, number in mlflow.get_registered_model("kiosk").aliases.items()}


def version(name: str) -> ModelVersion:
    return ModelVersion.objects.get(model__name="kiosk", name=name)


def test_what_is_live_is_mlflows_champion_and_what_is_tried_its_challenger(kiosk):
    mlflow, _ = kiosk
    Route.objects.update(canary=version("v9"))
    mlflow_sync.sync(NOW, artifacts.keep)
    assert aliases(mlflow) == {"champion": "1", "challenger": "2"}
    Route.objects.update(stable=version("v9"), canary=None)  # promoted
    mlflow_sync.sync(NOW, artifacts.keep)
    assert aliases(mlflow) == {"champion": "2"}


def test_an_alias_that_somebody_moved_comes_back_and_other_aliases_are_left_alone(kiosk):
    mlflow, _ = kiosk
    mlflow.set_registered_model_alias("kiosk", "champion", "2")
    mlflow.set_registered_model_alias("kiosk", "mine", "2")
    mlflow_sync.sync(NOW, artifacts.keep)
    assert aliases(mlflow) == {"champion": "1", "mine": "2"}


def test_a_live_version_that_mlflow_does_not_know_has_no_alias(kiosk):
    mlflow, route = kiosk
    mlflow_sync.sync(NOW, artifacts.keep)
    Route.objects.update(stable=ModelVersion.objects.create(model=route.model, name="v10", digest="a" * 64))
    mlflow_sync.sync(NOW, artifacts.keep)
    assert aliases(mlflow) == {}


def test_the_champion_is_what_most_fleets_serve_and_of_equally_many_the_newest(kiosk):
    live("west", "v9")
    assert mlflow_sync.live_aliases() == {"kiosk": {"champion": "v9"}}
    live("east", "v1")
    assert mlflow_sync.live_aliases() == {"kiosk": {"champion": "v1"}}


def test_a_model_that_nothing_serves_keeps_the_aliases_that_it_has(mlflow, tmp_path):
    register(mlflow, "unserved", tmp_path / "bundle", "one")
    mlflow.set_registered_model_alias("unserved", "champion", "1")
    mlflow_sync.sync(NOW, artifacts.keep)
    assert str(mlflow.get_model_version_by_alias("unserved", "champion").version) == "1"


@pytest.mark.parametrize(
    "uri", ["models:/kiosk/77", "models:/nothing/1", "mlflow-artifacts:/0/none/artifacts/x"]
)
def test_an_artifact_that_mlflow_does_not_know_is_gone_for_good(kiosk, uri):
    with pytest.raises(artifacts.ArtifactError) as refused:
        artifacts.keep(uri)
    assert (refused.value.code, refused.value.retry) == ("artifact_missing", False)


def test_artifacts_are_found_by_model_version_alias_and_run(mlflow, tmp_path):
    made = register(mlflow, "returns", tmp_path / "bundle", "one")
    mlflow.set_registered_model_alias("returns", "champion", made.version)
    digests = {
        artifacts.keep(uri)[0]
        for uri in ("models:/returns/1", "models:/returns@champion", f"runs:/{made.run_id}/bundle")
    }
    assert digests == {artifacts.digest_of(tmp_path / "bundle")}


def test_a_model_that_mlflow_itself_logged_is_taken_over_without_mlflows_own_notes(mlflow, server, tmp_path):
    import mlflow as library

    library.set_tracking_uri(server)
    with library.start_run():
        library.pyfunc.log_model(
            name="model",
            python_model=lambda model_input: model_input,
            registered_model_name="logged",
            pip_requirements=[],
        )
    mlflow_sync.sync(NOW, artifacts.keep)
    row = ModelVersion.objects.get(model__name="logged")
    names = {path.name for path in artifacts.fetch(row).iterdir()}
    assert "MLmodel" in names
    assert "registered_model_meta" not in names


def test_without_a_server_nothing_happens(settings):
    settings.MLFLOW_TRACKING_URI = ""
    assert mlflow_sync.sync(NOW, artifacts.keep) == 0


def test_a_server_that_is_away_is_said_once_and_holds_up_nothing(settings, caplog):
    settings.MLFLOW_TRACKING_URI = "http://127.0.0.1:1"
    mlflow_sync._client.cache_clear()
    mlflow_sync._said.clear()
    for _ in range(2):
        assert mlflow_sync.sync(NOW, artifacts.keep) == 0
    assert caplog.text.count(mlflow_sync.AWAY) == 1
    with pytest.raises(artifacts.ArtifactError) as refused:
        artifacts.keep("models:/products/1")
    assert (refused.value.code, refused.value.retry) == ("artifact_unreachable", True)
