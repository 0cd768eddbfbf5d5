"""Which version does a Triton slot serve, and how is another one loaded into it?

Davy copies the bundle into the slot's model repository, adds who it is to config.pbtxt as parameters, and asks
Triton to load it (Triton's model repository extension of the V2 protocol). Whether the slot is ready is asked of
the server: it answers with the parameters of the model that it really runs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from controlplane import outbound
from rollout.drivers.base import Bundle, DriverError

ASK_SECONDS = 2.0
LOAD_SECONDS = 60.0
_IDENTITY = ("davy_model", "davy_version", "davy_digest")


@dataclass(frozen=True)
class TritonSlot:
    """One server. Without a repository the server is a stock one: it serves what it serves, Davy loads nothing."""

    url: str
    repository: Path | None

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
        answer = self._post(f"/v2/repository/models/{bundle.model}/load", LOAD_SECONDS)
        if answer.status != 200:
            raise DriverError(
                f"{self.url} refused to load {bundle.model} {bundle.version}: {answer.text[:300]}"
            )

    def serves(self, bundle: Bundle) -> bool:
        """Whether the server is ready and runs exactly this version. False when it does not answer."""
        try:
            if outbound.fleet_get(f"{self.url}/v2/models/{bundle.model}/ready", ASK_SECONDS).status != 200:
                return False
            if self.repository is None:
                return True
            answer = outbound.fleet_get(f"{self.url}/v2/models/{bundle.model}/config", ASK_SECONDS)
        except outbound.OutboundError:
            return False
        return answer.status == 200 and _identity(answer.text) == _wanted(bundle)

    def unload(self, model: str) -> None:
        """Unload the model and take it out of the repository, so that a restart does not bring it back."""
        if self.repository is None:
            return
        answer = self._post(f"/v2/repository/models/{model}/unload", LOAD_SECONDS)
        if answer.status not in (200, 400, 404):
            raise DriverError(f"{self.url} refused to unload {model}: {answer.text[:300]}")
        shutil.rmtree(self.repository / model, ignore_errors=True)

    def _post(self, path: str, timeout: float) -> outbound.Answer:
        try:
            return outbound.fleet_post(self.url + path, b"{}", timeout)
        except outbound.OutboundError as err:
            raise DriverError(f"no answer from {self.url}{path}: {err}") from err


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
