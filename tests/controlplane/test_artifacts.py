"""Claims about artifacts: the digest that anybody can recompute, and a cache that holds verified copies only."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controlplane import artifacts
from controlplane.artifacts import ArtifactError
from controlplane.models import Model, ModelVersion


@pytest.fixture
def bundle(tmp_path, settings) -> Path:
    settings.VAR = tmp_path / "var"
    settings.ARTIFACT_ROOTS = [(tmp_path / "bundles").resolve()]
    folder = tmp_path / "bundles" / "v1"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text("max_batch_size: 32\n")
    (folder / "1" / "model.onnx").write_bytes(bytes(range(256)) * 10)
    (folder / "a b.txt").write_text("a name with a space")
    return folder


def version(uri: str, digest: str) -> ModelVersion:
    return ModelVersion(model=Model(name="products"), name="v1", artifact_uri=uri, digest=digest)


def refusal(call) -> str:
    with pytest.raises(ArtifactError) as refused:
        call()
    return refused.value.code


def test_the_digest_is_what_a_shell_prints(bundle):
    script = (
        "find . -type f | LC_ALL=C sort | sed 's|^\\./||' | tr '\\n' '\\0' | xargs -0 sha256sum | sha256sum"
    )
    printed = subprocess.run(["sh", "-c", script], cwd=bundle, capture_output=True, text=True, check=True)
    assert artifacts.digest_of(bundle) == printed.stdout.split()[0]


def test_the_digest_follows_contents_and_names_not_times(bundle):
    before = artifacts.digest_of(bundle)
    (bundle / "config.pbtxt").touch()
    assert artifacts.digest_of(bundle) == before
    (bundle / "config.pbtxt").rename(bundle / "config.txt")
    assert artifacts.digest_of(bundle) != before


def test_a_fetched_artifact_is_a_copy_kept_by_its_digest(bundle, settings):
    row = version(bundle.as_uri(), artifacts.digest_of(bundle))
    kept = artifacts.fetch(row)
    assert kept == settings.VAR / "artifacts" / row.digest
    (bundle / "config.pbtxt").write_text("changed later")
    assert artifacts.fetch(row) == kept
    assert artifacts.digest_of(kept) == row.digest


def test_another_content_than_registered_is_refused_naming_both_digests(bundle, settings):
    with pytest.raises(ArtifactError) as refused:
        artifacts.fetch(version(bundle.as_uri(), "0" * 64))
    assert "0" * 64 in refused.value.detail
    assert artifacts.digest_of(bundle) in refused.value.detail
    assert list((settings.VAR / "artifacts").iterdir()) == []


def test_several_that_fetch_at_once_get_the_same_whole_copy(bundle, settings):
    row = version(bundle.as_uri(), artifacts.digest_of(bundle))
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: artifacts.fetch(row), range(16)))) == 1
    assert [path.name for path in (settings.VAR / "artifacts").iterdir()] == [row.digest]


def test_files_are_read_from_the_allowed_roots_only(bundle, tmp_path):
    (tmp_path / "secret").mkdir()
    (bundle.parent / "way-out").symlink_to(tmp_path / "secret")
    outside = [
        (tmp_path / "secret").as_uri(),
        bundle.parent.as_uri() + "/../secret",
        bundle.parent.as_uri() + "/%2e%2e/secret",
        (bundle.parent / "way-out").as_uri(),
        "file://elsewhere" + str(bundle),
    ]
    for uri in outside:
        assert refusal(lambda uri=uri: artifacts.keep(uri)) == "artifact_not_allowed"


@pytest.mark.parametrize(
    "uri", ["http://169.254.169.254/x", "ftp://x/y", "mlflow-artifacts://elsewhere/1", "dbfs:/x"]
)
def test_other_sources_are_refused_before_anything_is_called(bundle, uri):
    assert refusal(lambda: artifacts.keep(uri)) == "artifact_not_allowed"


def test_a_link_an_empty_or_a_missing_folder_is_refused(bundle):
    assert refusal(lambda: artifacts.keep((bundle / "nothing").as_uri())) == "artifact_missing"
    (bundle.parent / "empty").mkdir()
    assert refusal(lambda: artifacts.keep((bundle.parent / "empty").as_uri())) == "artifact_empty"
    (bundle / "link").symlink_to("/etc/passwd")
    assert refusal(lambda: artifacts.keep(bundle.as_uri())) == "artifact_has_link"


def test_an_object_store_whose_package_is_not_installed_says_which_one(bundle, settings, monkeypatch):
    settings.MLFLOW_TRACKING_URI = "http://127.0.0.1:9"  # not asked: the store is named
    monkeypatch.setitem(
        sys.modules, "botocore", None
    )  # as where nobody installed it: import raises ImportError
    with pytest.raises(ArtifactError, match=r"botocore.*install it beside Davy") as refused:
        artifacts.fetch(version("s3://bucket/v1", "0" * 64))
    assert (refused.value.code, refused.value.retry) == ("artifact_missing", False)
