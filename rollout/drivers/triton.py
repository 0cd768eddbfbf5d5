"""Which version does a Triton slot serve, and how is another one loaded into it?

Davy copies the bundle into the slot's model repository, adds who it is to config.pbtxt as parameters, and asks
Triton to load it (Triton's model repository extension of the V2 protocol). Whether the slot is ready is asked of
the server: it answers with the parameters of the model that it really runs.

Loading goes over gRPC where the slot names a gRPC address: Triton's HTTP server loads on the thread that received the
request, and the inference requests of that thread's other connections wait until it has (server issue 8958).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from controlplane import outbound
from rollout.drivers.base import Bundle, DriverError

ASK_SECONDS = 2.0
LOAD_SECONDS = 60.0
_NO_ANSWER = {"StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"}
_IDENTITY = ("davy_model", "davy_version", "davy_digest")


@dataclass(frozen=True)
class TritonSlot:
    """One server. Without a repository the server is a stock one: it serves what it serves, Davy loads nothing.

    url: http://host:port. grpc_address: host:port of the same server's gRPC; None: it is loaded over HTTP.
    """

    url: str
    repository: Path | None
    grpc_address: str | None = None

    def load(self, bundle: Bundle) -> None:
        """Put the bundle into the repository and have the server load it. Raises DriverError."""
        if self.repository is None or self.serves(bundle):
            return
        try:
            if not _is_placed(bundle, self.repository):
                _place(bundle, self.repository)
        except OSError as err:
            raise DriverError(
                f"cannot write {bundle.model} to the repository {self.repository}: {err}"
            ) from err
        refusal = self._control("load", bundle.model)
        if refusal:
            raise DriverError(f"{self.url} refused to load {bundle.model} {bundle.version}: {refusal[:300]}")

    def serves(self, bundle: Bundle) -> bool:
        """Whether the server is ready and runs exactly this version. False when it does not answer."""
        if not self._ready(bundle.model):
            return False
        if self.repository is None:
            return True
        try:
            answer = outbound.fleet_get(f"{self.url}/v2/models/{bundle.model}/config", ASK_SECONDS)
        except outbound.OutboundError:
            return False
        return answer.status == 200 and _identity(answer.text) == _wanted(bundle)

    def unload(self, model: str) -> None:
        """Unload the model and take it out of the repository, so that a restart does not bring it back."""
        if self.repository is None:
            return
        refusal = self._control("unload", model)
        if refusal and self._ready(model):
            raise DriverError(f"{self.url} refused to unload {model}: {refusal[:300]}")
        shutil.rmtree(self.repository / model, ignore_errors=True)

    def _ready(self, model: str) -> bool:
        try:
            return outbound.fleet_get(f"{self.url}/v2/models/{model}/ready", ASK_SECONDS).status == 200
        except outbound.OutboundError:
            return False

    def _control(self, action: Literal["load", "unload"], model: str) -> str:
        """Have the server load or unload; return its refusal, "" when it did. Raises DriverError: no answer."""
        if self.grpc_address is not None:
            return _control_by_grpc(self.grpc_address, action, model)
        path = f"/v2/repository/models/{model}/{action}"
        try:
            answer = outbound.fleet_post(self.url + path, b"{}", LOAD_SECONDS)
        except outbound.OutboundError as err:
            raise DriverError(f"no answer from {self.url}{path}: {err}") from err
        return "" if answer.status == 200 else answer.text or f"status {answer.status}"


def _control_by_grpc(address: str, action: Literal["load", "unload"], model: str) -> str:
    # only a worker that loads needs it, and its import takes half a second
    import tritonclient.grpc
    from tritonclient.utils import InferenceServerException

    with contextlib.closing(tritonclient.grpc.InferenceServerClient(address)) as client:
        call = client.load_model if action == "load" else client.unload_model
        try:
            call(model, client_timeout=LOAD_SECONDS)
        except InferenceServerException as err:
            if err.status() in _NO_ANSWER:
                raise DriverError(f"no answer from {address} to {action} {model}: {err.message()}") from err
            return str(err.message())
    return ""


def _wanted(bundle: Bundle) -> tuple[str, ...]:
    return (bundle.model, bundle.version, bundle.digest)


def _identity(config: str) -> tuple[str, ...] | None:
    """Who the server says it runs; None when its answer is no Triton's."""
    try:
        parameters = json.loads(config).get("parameters", {})
        return tuple(parameters.get(name, {}).get("string_value", "") for name in _IDENTITY)
    except (ValueError, AttributeError):
        return None


def _signature(bundle: Bundle) -> str:
    """Who the bundle is, as config.pbtxt says it."""
    pairs = zip(_IDENTITY, _wanted(bundle), strict=True)
    return "".join(
        f'\nparameters {{ key: "{name}" value {{ string_value: {json.dumps(value)} }} }}'
        for name, value in pairs
    )


def _is_placed(bundle: Bundle, repository: Path) -> bool:
    """Whether the folder is the bundle's already: a server that takes its time to load it is left in peace."""
    try:
        return (repository / bundle.model / "config.pbtxt").read_text().endswith(_signature(bundle) + "\n")
    except FileNotFoundError:
        return False


def _place(bundle: Bundle, repository: Path) -> None:
    """Swap the model's folder for the bundle's: a crash leaves the old folder or the new one, never a mixture."""
    repository.mkdir(parents=True, exist_ok=True)
    incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=repository))
    try:
        folder = incoming / "new"
        shutil.copytree(bundle.fetch(), folder, copy_function=shutil.copyfile)
        with (folder / "config.pbtxt").open("a") as file:
            file.write(_signature(bundle) + "\n")
        final = repository / bundle.model
        if final.exists():
            final.rename(incoming / "old")
        folder.rename(final)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
