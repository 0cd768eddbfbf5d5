"""Is a version registered with the digest of what is in its folder?"""

from __future__ import annotations

import hashlib
import json

import pytest
from davy.commands.register import digest_of
from davy.screen import UsageError

from tests.sdk.commands.conftest import routes

VERSIONS = "POST /models/products/versions"


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text("backend")
    (folder / "1" / "model.onnx").write_bytes(b"weights")
    return folder


def test_the_digest_is_that_of_the_sorted_lines_of_sha256sum(bundle):
    lines = [
        f"{hashlib.sha256(b'weights').hexdigest()}  1/model.onnx\n",
        f"{hashlib.sha256(b'backend').hexdigest()}  config.pbtxt\n",
    ]
    assert digest_of(bundle) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_folder_is_registered_with_its_digest_and_reference(peer, davy, bundle, tmp_path):
    (tmp_path / "reference.npz").write_bytes(b"npz")
    digest = digest_of(bundle)
    peer.respond = routes(
        {
            "POST /models": {},
            VERSIONS: {"version": "v2", "digest": digest},
            "PUT /models/products/versions/v2/reference": {"rows": 500},
        }
    )
    reference = str(tmp_path / "reference.npz")
    ran = davy(
        *(
            "register",
            "products",
            "v2",
            "--artifact",
            str(bundle),
            "--reference",
            reference,
            "--create-model",
        ),
        *("--metadata", '{"commit": "abc"}', "--mlflow-run-id", "r1", "-o", "json"),
    )
    assert ran.code == 0
    assert json.loads(ran.out) == {"version": "v2", "digest": digest, "reference": {"rows": 500}}
    assert peer.asked[1].json() == {
        "version": "v2",
        "artifact_uri": bundle.as_uri(),
        "digest": digest,
        "mlflow_run_id": "r1",
        "metadata": {"commit": "abc"},
    }
    assert peer.asked[2].body == b"npz"
    assert f"page: {peer.url}/models/products" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--artifact", "s3://bucket/bundle"],
        ["--artifact", "s3://b", "--digest", "0" * 64, "--reference", "/nowhere.npz"],
        ["--artifact", "s3://b", "--digest", "0" * 64, "--metadata", "{"],
        [],
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(peer, davy, arguments):
    assert davy("register", "products", "v2", *arguments).code == 1
    assert not peer.asked


def test_links_and_empty_folders_are_no_bundles(bundle, tmp_path):
    (tmp_path / "empty").mkdir()
    (bundle / "link").symlink_to(bundle / "config.pbtxt")
    for folder in (bundle, tmp_path / "empty"):
        with pytest.raises(UsageError):
            digest_of(folder)
