"""How does MLflow serve in one process? As `mlflow server` does with one worker, without its launcher.

The launcher imports all of MLflow, and then starts a worker that does so again: five seconds of one core at every
start. `python -m demo.mlflow_server --port 5000 --folder var/mlflow`
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import uvicorn
from mlflow.environment_variables import _MLFLOW_SGI_NAME
from mlflow.server import constants, handlers

PROXIED_ARTIFACTS = "mlflow-artifacts:/"


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--folder", type=Path, required=True, help="database (SQLite, MLflow's own) and artifacts"
    )
    options = parser.parse_args()
    store = f"sqlite:///{options.folder / 'mlflow.db'}"
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: store,
        constants.REGISTRY_STORE_URI_ENV_VAR: store,
        constants.ARTIFACT_ROOT_ENV_VAR: PROXIED_ARTIFACTS,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(options.folder / "artifacts"),
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        _MLFLOW_SGI_NAME.name: "uvicorn",
    }
    handlers.initialize_backend_stores(store, store, PROXIED_ARTIFACTS)
    uvicorn.run("mlflow.server.fastapi_app:app", host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
