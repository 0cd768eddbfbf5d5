"""Which processes make up a running system, with which commands, and when is each one ready?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from controlplane import embedded
from demo import fleet_venv
from demo.places import FLEET, Places

SLOTS = ("a", "b")
CLOCKS = {
    "DAVY_WINDOW_SECONDS": "5",
    "DAVY_DRIFT_WINDOW_SECONDS": "60",
    "DAVY_DRIFT_CHECK_SECONDS": "5",
    "DAVY_MLFLOW_POLL_SECONDS": "3",
}


class Phase(Enum):
    """What a process waits for before it is started."""

    NOTHING = "nothing"
    TABLES = "tables"  # and the tokens
    SERVERS = "servers"  # all of the above are ready
    MODELS = "models"  # the models are registered and served


@dataclass(frozen=True)
class Process:
    """One supervised process.

    ready_url    answers 200 when the process can work; "" when running is all one can ask
    phase        what has to be there before it is started
    """

    name: str
    command: tuple[str, ...]
    ready_url: str = ""
    phase: Phase = Phase.NOTHING
    stop_seconds: int = 10


@dataclass(frozen=True)
class Plan:
    """What this start runs itself, and what it was given."""

    ports: Mapping[str, int]
    server: str  # "triton" or "substitute"
    own_broker: bool
    mlflow_uri: str  # of the given MLflow; "" = run one
    traffic: bool

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['web']}"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['gateway']}"

    @property
    def mlflow_url(self) -> str:
        return self.mlflow_uri or f"http://127.0.0.1:{self.ports['mlflow']}"

    @property
    def images_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['images']}"

    def slot_url(self, slot: str) -> str:
        return f"http://127.0.0.1:{self.ports[f'triton_{slot}']}"


def all_processes(here: Places, plan: Plan) -> list[Process]:
    """Every process of this start, in the order in which they are started."""
    chosen = [envoy(here, plan), images(here, plan), *(model_server(here, plan, slot) for slot in SLOTS)]
    if not plan.mlflow_uri:
        chosen.insert(0, mlflow(here, plan))
    if plan.own_broker:
        chosen.insert(0, valkey(here))
    chosen += [web(here, plan), worker(here), beat(here)]
    if plan.traffic:
        chosen.append(traffic(here, plan))
    return chosen


def _app_python(here: Places) -> str:
    return str(here.app_venv / "bin" / "python")


def valkey(here: Places) -> Process:
    """The embedded broker, supervised so that it comes back after a kill -9 (its queue is on disk)."""
    return Process("valkey", tuple(embedded.valkey_command(here.var)))


def web(here: Places, plan: Plan) -> Process:
    """The web application."""
    words = ("-m", "uvicorn", "controlplane.asgi:application", "--host", "127.0.0.1")
    quiet = ("--no-access-log", "--lifespan", "off")
    stop = ("--timeout-graceful-shutdown", "3")
    port = ("--port", str(plan.ports["web"]))
    return Process(
        "web",
        (_app_python(here), *words, *quiet, *port, *stop),
        ready_url=f"{plan.web_url}/healthz",
        phase=Phase.TABLES,
    )


def worker(here: Places) -> Process:
    """The Celery worker; threads, so that one process serves the many short waits."""
    words = ("-m", "celery", "-A", "controlplane", "worker", "-P", "threads", "-c", "8")
    quiet = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")
    return Process("worker", (_app_python(here), *words, *quiet), phase=Phase.TABLES)


def beat(here: Places) -> Process:
    """The Celery timer; without a pid file, which a kill -9 would leave behind.

    It starts when the servers are ready: its first nudges would only find that MLflow does not answer yet.
    """
    schedule = ("--schedule", str(here.run / "beat-schedule"), "--loglevel", "WARNING")
    return Process(
        "beat",
        (_app_python(here), "-m", "celery", "-A", "controlplane", "beat", *schedule),
        phase=Phase.SERVERS,
    )


def mlflow(here: Places, plan: Plan) -> Process:
    """An MLflow server (SQLite is MLflow's own store) that serves its artifacts through HTTP."""
    command = (
        *("/usr/bin/env", "-u", "MLFLOW_TRACKING_URI"),  # that is for its clients
        *(_app_python(here), "-m", "demo.mlflow_server"),
        *("--port", str(plan.ports["mlflow"]), "--folder", str(here.var / "mlflow")),
    )
    return Process("mlflow", command, ready_url=f"{plan.mlflow_url}/health")


def envoy(here: Places, plan: Plan) -> Process:
    """Envoy; no hot restart, so that it shares no memory with another Envoy on the machine."""
    command = (
        *(str(fleet_venv.envoy_binary(here)), "-c", str(here.run / "envoy.json")),
        *("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"),
    )
    return Process("envoy", command, ready_url=f"http://127.0.0.1:{plan.ports['envoy_admin']}/ready")


def model_server(here: Places, plan: Plan, slot: str) -> Process:
    """The model server of one slot: Triton, or the substitute that speaks its protocol."""
    port = str(plan.ports[f"triton_{slot}"])
    if plan.server == "triton":
        command: tuple[str, ...] = (_app_python(here), "-m", "demo.triton", "--slot", slot, "--port", port)
    else:
        python = str(here.fleet_venv / "bin" / "python")
        options = ("--port", port, "--repository", str(here.repository(slot)), "--name", slot)
        command = (python, "-m", "demo.substitute", *options)
    return Process(
        f"triton-{slot}", command, ready_url=f"{plan.slot_url(slot)}/v2/health/ready", phase=Phase.TABLES
    )


def images(here: Places, plan: Plan) -> Process:
    """The source of the images behind predictions, for the labeling pages."""
    port = str(plan.ports["images"])
    return Process("images", (_app_python(here), "-m", "demo.images", "--port", port))


def traffic(here: Places, plan: Plan) -> Process:
    """Live traffic through Envoy, as its control file asks."""
    command = (
        *(str(here.fleet_venv / "bin" / "python"), "-m", "demo.traffic"),
        *("--gateway", plan.gateway_url, "--images", plan.images_url),
        *("--control", str(here.traffic_control), "--counts", str(here.traffic_counts)),
    )
    return Process("traffic", command, phase=Phase.MODELS)


def environment(
    here: Places, plan: Plan, database_url: str, broker_url: str, base: Mapping[str, str]
) -> dict[str, str]:
    """The environment of every process: the addresses, one thread per process, and the demo's faster clocks.

    A clock that `base` sets is left as it is.
    """
    return {
        **CLOCKS,
        **base,
        "PYTHONUNBUFFERED": "1",
        "DAVY_RUN": str(here.var),  # marks our processes: see leftovers.py
        "DAVY_VAR": str(here.var),
        "DATABASE_URL": database_url,
        "REDIS_URL": broker_url,
        "MLFLOW_TRACKING_URI": plan.mlflow_url,
        "DAVY_URL": plan.web_url,
        "DAVY_FLEET": FLEET,  # what the servers' collectors say where they are
        "DAVY_GATEWAY_URL": plan.gateway_url,
        "DAVY_IMAGES_URL": plan.images_url,
        "DAVY_OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8",  # local webhooks and images
        "DAVY_ARTIFACT_ROOTS": str(here.root / "demo" / "artifacts"),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "NO_PROXY": ",".join(filter(None, [base.get("NO_PROXY", ""), "127.0.0.1,localhost"])),
        "no_proxy": ",".join(filter(None, [base.get("no_proxy", ""), "127.0.0.1,localhost"])),
        **_mlflow_environment(here.var / "mlflow"),
    }


def _mlflow_environment(folder: Path) -> dict[str, str]:
    """MLflow's own settings: webhooks to this machine, a key that outlives restarts, no telemetry."""
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    key_file = folder / "webhook_key"
    if not key_file.exists():
        from cryptography.fernet import Fernet

        with os.fdopen(os.open(key_file, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(Fernet.generate_key())
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "2",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key_file.read_text(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
