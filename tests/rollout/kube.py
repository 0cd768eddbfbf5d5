"""A real Kubernetes API server with the real resource definitions, and controllers that a test plays by hand.

`python -m tests.rollout.kube` says what is missing on this machine, and fails when something is.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import lzma
import os
import secrets
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from demo.places import ROOT
from tests.ports import free_ports

START_SECONDS = 120  # on a busy machine
GROUPS = {
    "httproutes": "apis/gateway.networking.k8s.io/v1",
    "inferenceservices": "apis/serving.kserve.io/v1beta1",
    "deployments": "apis/apps/v1",
}
_names = itertools.count()
Json = dict[str, Any]


@dataclass(frozen=True)
class Parts:
    """Where the API server's parts are."""

    server: Path  # kube-apiserver, or it packed with xz
    etcd: Path
    crds: tuple[Path, ...]


def parts() -> Parts | str:
    """The parts, from KUBEBUILDER_ASSETS or from shared/kube beside the checkout; else what is missing, in words."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    beside = ROOT.parent / "shared" / "kube"
    folders = [*([Path(assets)] if assets else []), beside]
    servers = [folder / name for folder in folders for name in ("kube-apiserver", "kube-apiserver.xz")]
    server = next((path for path in servers if path.exists()), None)
    if server is None:
        return "no kube-apiserver: KUBEBUILDER_ASSETS is to name a folder with kube-apiserver and etcd"
    found = Path(assets, "etcd") if assets and Path(assets, "etcd").exists() else shutil.which("etcd")
    if found is None:
        return "no etcd: install Debian's etcd-server (`make test-system`)"
    crds = next(
        (tuple(files) for folder in folders if (files := sorted((folder / "crds").glob("*.yaml")))), ()
    )
    if not crds:
        return "no resource definitions: a folder crds beside kube-apiserver is to have those of Gateway API and KServe"
    return Parts(server, Path(found), crds)


@dataclass
class Kube:
    """A running API server. Tests get a namespace each; no controllers and no nodes run."""

    folder: Path
    parts: Parts
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> str:
        """The certificate that the server made for itself, with its authority's."""
        return (self.folder / "certs" / "apiserver.crt").read_text()

    def credentials(self, **changes: str) -> Json:
        return {"credentials": {"server": self.url, "ca": self.ca, "token": self.token, **changes}}

    def kubeconfig(self, **user: str) -> str:
        """The text of a kubeconfig, the administrator's unless a user is given."""
        ca = base64.b64encode(self.ca.encode()).decode()
        cluster = {"server": self.url, "certificate-authority-data": ca}
        return json.dumps(
            {
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": user or {"token": self.token}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )

    def start(self) -> None:
        """Start etcd and the API server, install the resource definitions, and wait until they are served."""
        server = self.folder / "kube-apiserver"
        if self.parts.server.suffix == ".xz":
            with lzma.open(self.parts.server) as packed, server.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 2**20)
            server.chmod(0o755)
        else:
            server = self.parts.server
        client, peer, self.port = free_ports(3)
        etcd, urls = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        options = {
            "listen-client-urls": etcd,
            "advertise-client-urls": etcd,
            "data-dir": self.folder / "etcd",
        }
        options |= {"listen-peer-urls": urls, "initial-advertise-peer-urls": urls}
        self._run(self.parts.etcd, options | {"initial-cluster": f"default={urls}"})
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        (self.folder / "sa.key").write_bytes(key)
        people = f'{self.token},admin,admin,"system:masters"\n{self.token}-nobody,nobody,nobody\n'
        (self.folder / "tokens.csv").write_text(people)
        self._run(
            server,
            {
                "etcd-servers": etcd,
                "secure-port": self.port,
                "bind-address": "127.0.0.1",
                "cert-dir": self.folder / "certs",
                "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-key-file": self.folder / "sa.key",
                "service-account-signing-key-file": self.folder / "sa.key",
                "token-auth-file": self.folder / "tokens.csv",
                "authorization-mode": "RBAC",
                "disable-admission-plugins": "ServiceAccount",
                "service-cluster-ip-range": "10.0.0.0/24",
            },
        )
        self._until(lambda: self.ask("GET", "/readyz")[0] == 200)
        for file in self.parts.crds:
            self._install(file)
        for name, group in GROUPS.items():
            self._until(lambda path=f"/{group}/{name}": self.ask("GET", path)[0] == 200)

    def _run(self, binary: Path, options: Json) -> None:
        until_we_die = (
            ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        )  # also of kill -9
        words = [*until_we_die, str(binary), *(f"--{name}={value}" for name, value in options.items())]
        with (self.folder / f"{binary.name}.log").open("ab") as log:
            self.processes.append(subprocess.Popen(words, stdout=log, stderr=log))

    def _until(self, holds: Any) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not holds():
            dead = [process.args for process in self.processes if process.poll() is not None]
            assert not dead, f"{dead} ended: see the logs in {self.folder}"
            assert time.monotonic() < deadline, f"the API server did not get ready: see {self.folder}"
            time.sleep(0.1)

    def _install(self, file: Path) -> None:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        status, answer = self.ask("POST", path, file.read_bytes(), kind="application/yaml")
        assert status in (201, 409), (file, answer)

    def stop(self) -> None:
        """Nothing of it is kept, so it is not asked to end: the API server would let its watches end in peace."""
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        self.processes.clear()

    def ask(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> tuple[int, Json]:
        """A call as a cluster's administrator: (status, object); status 0 when the server is away."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        context = ssl._create_unverified_context()
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as reply:
                text = reply.read()
                return reply.status, json.loads(text) if text.startswith(b"{") else {}
        except urllib.error.HTTPError as error:
            text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else {"message": text.decode()}
        except OSError:
            return 0, {}

    def namespace(self) -> Namespace:
        """A namespace of its own."""
        name = f"davy-{next(_names)}"
        status, answer = self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        assert status == 201, answer
        return Namespace(self, name)


@dataclass
class Namespace:
    """A test's own objects: what an operator makes, what a person edits."""

    kube: Kube
    name: str

    def path(self, kind: str, name: str = "") -> str:
        return f"/{GROUPS[kind]}/namespaces/{self.name}/{kind}" + (f"/{name}" if name else "")

    def make(self, kind: str, body: Json) -> Json:
        status, answer = self.kube.ask("POST", self.path(kind) + "?fieldManager=operator", body)
        assert status == 201, answer
        return answer

    def get(self, kind: str, name: str) -> Json:
        status, answer = self.kube.ask("GET", self.path(kind, name))
        assert status == 200, answer
        return answer

    def all(self, kind: str) -> list[Json]:
        return list(self.kube.ask("GET", self.path(kind))[1]["items"])

    def edit(
        self, kind: str, name: str, change: Json, *, manager: str = "kubectl-edit", status: bool = False
    ) -> Json:
        """Merge a change as somebody else; with `status` as the object's controller."""
        path = self.path(kind, name) + ("/status" if status else "") + f"?fieldManager={manager}"
        code, answer = self.kube.ask("PATCH", path, change, kind="application/merge-patch+json")
        assert code == 200, answer
        return answer

    def apply(
        self, kind: str, body: Json, *, manager: str = "gitops", force: bool = False
    ) -> tuple[int, Json]:
        """Server-side apply as a GitOps tool."""
        path = (
            self.path(kind, body["metadata"]["name"]) + f"?fieldManager={manager}&force={str(force).lower()}"
        )
        return self.kube.ask("PATCH", path, body, kind="application/apply-patch+yaml")


def owned_by(found: Json, manager: str) -> Json:
    """The fields that a manager owns of an object, as Kubernetes notes them; several notes merged."""
    merged: Json = {}
    for entry in found["metadata"]["managedFields"]:
        if entry["manager"] == manager:
            merged.update(entry["fieldsV1"])
    return merged


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """One API server for the whole session. Skips where its parts are missing."""
    found = parts()
    if isinstance(found, str):
        pytest.skip(found)
    folder = Path(tempfile.mkdtemp(prefix="davy-kube-"))
    running = Kube(folder, found)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)


if __name__ == "__main__":
    missing = parts()
    if isinstance(missing, str):
        sys.exit(f"the Kubernetes drivers cannot be tested here: {missing}")
    print("Kubernetes API server")
