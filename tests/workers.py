"""pytest-xdist: which tests stay in one process? Those of a file, and those of files that share a dear part."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

SHARERS = {
    "running system": ("tests/flows/",),
    "Kubernetes API server": (
        "tests/contracts/test_drivers.py",
        "tests/rollout/drivers/kube/",
        "tests/rollout/drivers/test_gateway_api.py",
        "tests/rollout/drivers/test_kserve.py",
        "tests/rollout/test_kube_rollouts.py",
        "tests/rollout/test_kubernetes_docs.py",
    ),
}


class Units(LoadScopeScheduling):
    """Hands out whole units, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        """The name of the test's unit: a part, so that it is started once, or the file."""
        file = nodeid.partition("::")[0]
        return next((part for part, files in SHARERS.items() if file.startswith(files)), file)
