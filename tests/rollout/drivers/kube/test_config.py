"""Claims about how a fleet's config names its cluster: what is taken, what is refused where, what stays secret."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from controlplane import sealing
from rollout.drivers.base import Bundle, DriverError
from rollout.drivers.kube.config import Access, Naming, Sealed, filled, text

SERVER = "https://10.0.0.1:6443"
TOKEN = "secret-token"
CLUSTER: dict[str, Any] = {"server": SERVER}


def kubeconfig(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **top: Any) -> str:
    return json.dumps(
        {
            "clusters": [{"name": "c", "cluster": CLUSTER if cluster is None else cluster}],
            "users": [{"name": "u", "user": {"token": TOKEN} if user is None else user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
            **top,
        }
    )


def test_a_service_account_s_token_is_enough():
    found = Access.parse({"credentials": {"server": SERVER + "/", "token": TOKEN + "\n"}}).identity()
    assert (found.server, found.token, found.verify) == (SERVER, TOKEN, True)


def test_a_kubeconfig_s_current_context_says_who_davy_is():
    found = Access.parse({"kubeconfig": kubeconfig()}).identity()
    assert (found.server, found.token) == (SERVER, TOKEN)


def test_a_kubeconfig_s_client_certificate_is_taken():
    pem = base64.b64encode(b"-----BEGIN-----").decode()
    user = {"client-certificate-data": pem, "client-key-data": pem}
    found = Access.parse({"kubeconfig": kubeconfig(user=user)}).identity()
    assert (found.certificate, found.key) == ("-----BEGIN-----", "-----BEGIN-----")


def test_a_kubeconfig_file_may_name_files_beside_it(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "config").write_text(kubeconfig(user={"tokenFile": "token"}))
    assert Access.parse({"kubeconfig_file": str(tmp_path / "config")}).identity().token == TOKEN


def test_a_sealed_secret_is_opened_only_for_a_client():
    access = Access.parse({"credentials": {"server": SERVER, "token": sealing.seal_text(TOKEN)}})
    assert isinstance(access.token, Sealed)
    assert access.identity().token == TOKEN


def test_no_secret_is_in_what_a_log_would_show():
    config = {"credentials": {"server": SERVER, "token": TOKEN}}
    access = Access.parse(config)
    assert TOKEN not in repr(access)
    assert TOKEN not in repr(access.identity())
    assert TOKEN not in repr(Access.parse({"kubeconfig": kubeconfig()}))


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("in_cluster", {}),
        ("in_cluster", {"in_cluster": False}),
        ("in_cluster", {"in_cluster": True, "credentials": {}}),
        ("kubeconfig_file", {"kubeconfig_file": "relative"}),
        ("kubeconfig_file", {"kubeconfig_file": 5}),
        ("credentials", {"credentials": TOKEN}),
        ("credentials/user", {"credentials": {"server": SERVER, "token": TOKEN, "user": "me"}}),
        ("credentials/server", {"credentials": {"token": TOKEN}}),
        ("credentials/server", {"credentials": {"server": None, "token": TOKEN}}),
        ("credentials/server", {"credentials": {"server": "ftp://h", "token": TOKEN}}),
        ("credentials/server", {"credentials": {"server": "https://me:pw@h", "token": TOKEN}}),
        ("credentials/ca", {"credentials": {"server": SERVER, "token": TOKEN, "ca": "no certificate"}}),
        ("credentials/ca", {"credentials": {"server": SERVER, "token": TOKEN, "ca": None}}),
        ("credentials/token", {"credentials": {"server": SERVER}}),
        ("credentials/token", {"credentials": {"server": SERVER, "token": " "}}),
        ("credentials/token", {"credentials": {"server": SERVER, "token": f"{TOKEN}\r\nX-Other: 1"}}),
        ("credentials/token", {"credentials": {"server": SERVER, "token": {"sealed": True}}}),
        ("kubeconfig", {"kubeconfig": ""}),
        ("kubeconfig", {"kubeconfig": f"token: {TOKEN}\n  - ]"}),
        ("kubeconfig", {"kubeconfig": "[]"}),
        ("kubeconfig", {"kubeconfig": kubeconfig(clusters=[])}),
        ("kubeconfig", {"kubeconfig": kubeconfig(**{"current-context": "other"})}),
        ("kubeconfig", {"kubeconfig": kubeconfig(cluster={"server": 5})}),
        ("kubeconfig", {"kubeconfig": kubeconfig(cluster=CLUSTER | {"certificate-authority": "/etc/ca"})}),
        ("kubeconfig", {"kubeconfig": kubeconfig(cluster=CLUSTER | {"certificate-authority-data": "!"})}),
        ("kubeconfig", {"kubeconfig": kubeconfig(user={})}),
        ("kubeconfig", {"kubeconfig": kubeconfig(user={"tokenFile": "/etc/passwd"})}),
        ("kubeconfig", {"kubeconfig": kubeconfig(user={"token": TOKEN, "exec": {"command": "sh"}})}),
        ("kubeconfig", {"kubeconfig": kubeconfig(user={"token": TOKEN, "auth-provider": {"name": "gcp"}})}),
    ],
)
def test_what_names_no_cluster_is_refused_at_its_field_without_the_secret(field, config):
    with pytest.raises(ValueError, match=rf"^{field}: ") as refused:
        Access.parse(config)
    assert TOKEN not in str(refused.value)


def test_a_pattern_or_an_object_names_each_model_s_objects():
    assert Naming.parse("davy-{model}", "httproute").of("shoes") == "davy-shoes"
    assert Naming.parse({"my_shoes": "shoes"}, "httproute").of("my_shoes") == "shoes"


@pytest.mark.parametrize("raw", ["one-for-all", "", {}, {"shoes": 5}, None, ["shoes"]])
def test_a_name_that_several_models_would_share_is_refused(raw):
    with pytest.raises(ValueError, match=r"^httproute: "):
        Naming.parse(raw, "httproute")


@pytest.mark.parametrize(
    ("raw", "model"), [("{model}", "my_shoes"), ({"hats": "hats"}, "shoes"), ("{model}", "a/../b")]
)
def test_a_model_without_an_object_is_an_error_that_names_the_field(raw, model):
    with pytest.raises(DriverError, match=rf"^slots/a/service of {re.escape(model)}: ") as refused:
        Naming.parse(raw, "slots/a/service").of(model)
    assert not refused.value.retry


def test_a_text_that_is_to_name_the_version_must():
    with pytest.raises(ValueError, match=r"^storage_uri: "):
        text("s3://models/{model}", "storage_uri", names_version=True)


def test_patterns_are_filled_and_nothing_else_in_braces_is():
    bundle = Bundle("shoes", "v7", "ab" * 32, lambda: None)
    assert filled("s3://{model}/{version}/{digest}?{x}", bundle) == f"s3://shoes/v7/{'ab' * 32}?{{x}}"
