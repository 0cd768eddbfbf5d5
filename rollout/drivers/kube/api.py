"""How does Davy call a Kubernetes API server? How long a call may take, and what a refusal means.

No call is repeated here: the next tick is the retry.
"""

from __future__ import annotations

import json
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3
from cryptography.fernet import InvalidToken

from controlplane import outbound
from rollout.drivers.base import DriverError
from rollout.drivers.kube.config import Access

Json = dict[str, Any]

CALL_SECONDS = 4.0  # a tick asks some five times within its lease of 20 s, and stops at what is not answered
ANSWER_BYTES = 8 * 2**20
CHUNK_BYTES = 65_536
CLIENTS_KEPT = 64
MANAGER = "davy"


class Conflict(DriverError):
    """Somebody else changed the object since it was read: read it again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry=True)


@lru_cache(CLIENTS_KEPT)  # connections are kept: a fleet is asked every second
def _client(access: Access, _changed_at_ns: int) -> Any:
    """The client of a cluster; made again when its kubeconfig file changes."""
    # only fleets on Kubernetes need it, and its import takes longer than a second on a busy machine
    from kubernetes import client, config

    load_in_cluster: Any = config.load_incluster_config  # untyped there
    settings: Any = client.Configuration()
    files = []
    if access.in_cluster:
        load_in_cluster(settings)
    else:
        found = access.identity()
        settings.host = found.server
        settings.verify_ssl = found.verify
        settings.ca_cert_data = found.ca or None
        settings.tls_server_name = found.server_name or None
        if found.token:
            settings.api_key["BearerToken"] = f"Bearer {found.token}"
        elif found.certificate:
            files = [_private_file(found.certificate), _private_file(found.key)]
            settings.cert_file, settings.key_file = (file.name for file in files)
    settings.proxy = None  # nor does outbound take proxies from the environment
    settings.retries = False  # urllib3 would ask a hanging server four times
    made: Any = client.ApiClient(settings)
    made.user_agent = outbound.USER_AGENT
    made.davy_files = files  # TLS reads a client's key from files only; they go with the client
    return made


def _private_file(text: str) -> Any:
    file = tempfile.NamedTemporaryFile("w", prefix="davy-kube-", suffix=".pem")  # noqa: SIM115 - lives as the client does
    file.write(text)
    file.flush()
    return file


class Cluster:
    """One API server. Every error is a DriverError."""

    def __init__(self, access: Access) -> None:
        self.access = access

    def get(self, path: str) -> Json | None:
        """The object at an API path; None when there is none of that name."""
        status, content = self._call("GET", path)
        if status == 404 and _message(content).get("details", {}).get("name"):
            return None
        return self._answer("GET", path, status, content)

    def apply(self, path: str, body: Json) -> Json:
        """Server-side apply as `davy`, which takes the fields that `body` has and gives up those that it no longer has.

        Raises Conflict when body's resourceVersion is not the object's.
        """
        query = [("fieldManager", MANAGER), ("force", "true")]
        return self._patch(path, body, "application/apply-patch+yaml", query)

    def merge(self, path: str, body: Json) -> Json:
        """JSON merge patch; null removes. Raises Conflict when body's resourceVersion is not the object's."""
        return self._patch(path, body, "application/merge-patch+json", [("fieldManager", MANAGER)])

    def _patch(self, path: str, body: Json, kind: str, query: list[tuple[str, str]]) -> Json:
        return self._answer("PATCH", path, *self._call("PATCH", path, body, kind, query))

    def version(self) -> str:
        """What the API server calls itself, e.g. v1.33.1."""
        return str((self.get("/version") or {}).get("gitVersion", ""))

    def _client(self) -> Any:
        from kubernetes.config import ConfigException

        where = self.access.kubeconfig_file
        try:
            return _client(self.access, Path(where).stat().st_mtime_ns if where else 0)
        except InvalidToken as err:
            lost = "the fleet's secret cannot be read with this DAVY_SECRET_KEY: configure the fleet again"
            raise DriverError(lost, retry=False) from err
        except (OSError, ValueError, ConfigException) as err:
            raise DriverError(f"no way to the cluster: {err}", retry=False) from err

    def _call(
        self, method: str, path: str, body: Json | None = None, kind: str = "", query: object = None
    ) -> tuple[int, bytes]:
        from kubernetes.client.exceptions import ApiException

        client = self._client()
        deadline = time.monotonic() + CALL_SECONDS
        headers = {"Accept": "application/json", **({"Content-Type": kind} if kind else {})}
        try:
            words = {"query_params": query, "header_params": headers, "auth_settings": ["BearerToken"]}
            request = client.param_serialize(method, path, body=body, **words)
            answer = client.call_api(*request, _request_timeout=CALL_SECONDS).response
            return answer.status, _read(answer, deadline)
        except ApiException as err:  # its kind of an SSLError: a certificate that is not trusted stays so
            raise DriverError(f"{client.configuration.host}: {err.reason}"[:300], retry=False) from err
        except (urllib3.exceptions.HTTPError, OSError) as err:
            why = f"{type(err).__name__}: {err}"[:250]
            raise DriverError(f"no answer from {client.configuration.host}: {why}") from err

    def _answer(self, method: str, path: str, status: int, content: bytes) -> Json:
        said = _message(content)
        if 200 <= status < 300 and said:
            return said
        text = f"{method} {path}: {status} {said.get('message') or content[:200].decode('utf-8', 'replace')}"
        if status == 409:
            raise Conflict(text)
        raise DriverError(text, retry=status == 429 or status >= 500)


def _read(answer: Any, deadline: float) -> bytes:
    """The body, whatever its pace: a server that sends a byte a second is not waited for."""
    parts: list[bytes] = []
    size = 0
    while chunk := answer.read1(CHUNK_BYTES):
        parts.append(chunk)
        size += len(chunk)
        if size > ANSWER_BYTES or time.monotonic() > deadline:
            answer.close()
            raise urllib3.exceptions.HTTPError(f"the answer had not ended after {size} bytes")
    answer.release_conn()
    return b"".join(parts)


def _message(content: bytes) -> Json:
    """The JSON object of an answer; empty when it is none."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def path_of(group: str, namespace: str, kind: str, name: str = "") -> str:
    """The API path of an object, e.g. path_of("apis/apps/v1", "shop", "deployments", "web"); without a name, of all."""
    return f"/{group}/namespaces/{quote(namespace)}/{kind}" + (f"/{quote(name)}" if name else "")
