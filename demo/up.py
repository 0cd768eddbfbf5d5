"""`make up`: start everything, show it, stay attached; Ctrl-C stops it.

TRAFFIC=0 starts without live traffic, DETACH=1 returns when all is ready, SERVER=substitute runs no Triton. A
reachable DATABASE_URL, REDIS_URL or MLFLOW_TRACKING_URI is used instead of the embedded part.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, NoReturn

from controlplane import embedded
from demo import credentials, envoy_bootstrap, fleet_venv, given, places, ports, processes, running, venvs
from demo.places import Places
from demo.processes import Phase, Plan, Process
from demo.supervision import SupervisionError, Supervisor

READY_SECONDS = 300.0  # a busy machine; a start takes 20
SHOWN_CREDENTIALS = (
    "DAVY_URL",
    "DAVY_USER",
    "DAVY_PASSWORD",
    "DAVY_TOKEN",
    "DAVY_GATEWAY_URL",
    "MLFLOW_TRACKING_URI",
)


class StartError(RuntimeError):
    """The start failed; the message says which part, and where to look."""


class AlreadyRunning(Exception):
    """The system runs, from another start."""


class Stopped(Exception):
    """The operator asked to stop (SIGINT, SIGTERM or SIGHUP)."""


class Clock:
    """Prints each step with the seconds since the start."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def say(self, words: str) -> None:
        print(f"  {time.monotonic() - self._begun:5.1f} s  {words}", flush=True)


def answers(url: str, token: str = "", timeout_seconds: float = 3) -> bool:
    """Whether a GET answers 200 in time; no proxy, since it is on this machine."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with opener.open(request, timeout=timeout_seconds) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def make_plan(here: Places, clock: Clock, claims: ports.Claims) -> Plan:
    """Choose ports and parts for this start, and say what differs from the usual."""
    path = here.var / "ports.json"
    known = ports.load(path)
    choice = ports.choose(known, claims.take)
    envoy_bootstrap.move_servers(here.envoy, ports.moved(known, choice.ports))
    ports.save(path, choice.ports)
    for note in choice.notes:
        clock.say(note)
    forced = os.environ.get("SERVER", "") == "substitute"
    reason = "SERVER=substitute was asked for" if forced else fleet_venv.why_no_triton(here)
    if reason:
        clock.say(f"NO TRITON: {reason}. The substitute server of the same protocol takes its place.")
    mlflow_uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip().rstrip("/")
    if mlflow_uri == f"http://127.0.0.1:{choice.ports['mlflow']}":
        mlflow_uri = ""  # our own of the last start, from credentials.env: the port is free now
    return Plan(
        ports=choice.ports,
        server="substitute" if reason else "triton",
        own_broker=not os.environ.get("REDIS_URL"),
        mlflow_uri=mlflow_uri,
        traffic=os.environ.get("TRAFFIC", "1") != "0",
    )


def write_fleet(here: Places, plan: Plan) -> None:
    """Write Envoy's bootstrap, and var/fleet.json: what serves, and the fleet's driver configuration."""
    admin = plan.ports["envoy_admin"]
    envoy_bootstrap.write(
        here.run / "envoy.json", gateway_port=plan.ports["gateway"], admin_port=admin, folder=here.envoy
    )
    slots = {slot: _slot(here, plan, slot) for slot in processes.SLOTS}
    config = {
        "directory": str(here.envoy),
        "admin_urls": [f"http://127.0.0.1:{admin}"],
        "protocol": "http",
        "assignment": "request",  # each request is drawn anew: errors count in full from the first rollout on
        "slots": slots,
    }
    here.fleet_file.write_text(json.dumps({"server": plan.server, "config": config}, indent=1) + "\n")


def _slot(here: Places, plan: Plan, slot: str) -> dict[str, str]:
    config = {"url": plan.slot_url(slot), "repository": str(here.repository(slot))}
    if plan.server == "triton":  # loading over HTTP would stall the requests of other models
        config["grpc_url"] = f"127.0.0.1:{plan.ports[f'triton_{slot}'] + 1}"
    return config


def command(here: Places, environment: Mapping[str, str], *words: str) -> str:
    """Run one command of the app to its end and return what it printed; StartError if it fails."""
    done = subprocess.run(
        [str(here.app_venv / "bin" / "python"), *words],
        cwd=here.root,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StartError(
            f"{' '.join(words)} failed ({done.returncode}):\n{(done.stdout + done.stderr).strip()}"
        )
    return done.stdout


def keep_credentials(
    here: Places, plan: Plan, environment: Mapping[str, str], *, anew: bool
) -> dict[str, str]:
    """Write var/credentials.env and return it, with a user and tokens made where none are known.

    anew   the known ones are of no use (another database): make others
    """
    known = credentials.read(here.credentials_file)
    if anew or not known.get("DAVY_TOKEN"):
        made = json.loads(command(here, environment, "manage.py", "bootstrap", "--json"))
        if made.get("exists"):  # somebody made them before, and nobody knows them any more
            made = json.loads(command(here, environment, "manage.py", "bootstrap", "--json", "--rotate"))
        known |= {
            "DAVY_USER": made["user"],
            "DAVY_PASSWORD": made["password"],
            "DAVY_TOKEN": made["token"],
            "DAVY_TELEMETRY_TOKEN": made["telemetry_token"],
        }
    values = {
        **known,
        "DAVY_URL": plan.web_url,
        "DAVY_GATEWAY_URL": plan.gateway_url,
        "MLFLOW_TRACKING_URI": plan.mlflow_url,
        "DAVY_IMAGES_URL": plan.images_url,
    }
    credentials.write(here.credentials_file, values)
    return values


def wait_ready(supervisor: Supervisor, wanted: Iterable[Process], clock: Clock) -> None:
    """Wait until every process runs and answers, saying so for each; StartError names those that do not."""
    waiting = {process.name: process for process in wanted}
    deadline = time.monotonic() + READY_SECONDS
    while waiting:
        known = supervisor.processes()
        for name, process in list(waiting.items()):
            runs = known[name]["statename"] == "RUNNING"
            if runs and (not process.ready_url or answers(process.ready_url)):
                clock.say(f"{name} is ready")
                del waiting[name]
        if waiting and time.monotonic() > deadline:
            logs = ", ".join(known[name]["stdout_logfile"] for name in waiting)
            raise StartError(f"not ready after {READY_SECONDS:.0f} s: {', '.join(waiting)}; see {logs}")
        time.sleep(0.1)


def prove_token(
    here: Places, plan: Plan, environment: Mapping[str, str], values: dict[str, str], clock: Clock
) -> dict[str, str]:
    """The credentials, once the web application takes their token; new ones when it does not know it."""
    if answers(f"{plan.web_url}/api/v1/models", values["DAVY_TOKEN"], timeout_seconds=10):
        return values
    clock.say(f"the token in {here.credentials_file.name} is not of this database: making new ones")
    fresh = keep_credentials(here, plan, environment, anew=True)
    servers = [processes.model_server(here, plan, slot) for slot in processes.SLOTS]
    supervisor = Supervisor(here)
    supervisor.restart(p.name for p in servers)  # they report with a token of their own
    wait_ready(supervisor, servers, clock)
    return fresh


def start(here: Places, clock: Clock) -> dict[str, str]:
    """Start everything that is not running; return the credentials."""
    claims = ports.Claims()
    plan = make_plan(here, clock, claims)
    given.check({**os.environ, "MLFLOW_TRACKING_URI": plan.mlflow_uri})
    database_url = os.environ.get("DATABASE_URL") or embedded.start_postgres(here.var)
    broker_url = os.environ.get("REDIS_URL") or embedded.valkey_url(here.var)
    clock.say("PostgreSQL is ready")
    write_fleet(here, plan)
    chosen = processes.all_processes(here, plan)
    environment = processes.environment(here, plan, database_url, broker_url, venvs.clean_environment())
    supervisor = Supervisor(here)
    supervisor.launch(chosen, environment)
    supervisor.start(p.name for p in chosen if p.phase is Phase.NOTHING)
    command(here, environment, "manage.py", "migrate", "--no-input")
    values = keep_credentials(here, plan, environment, anew=False)
    clock.say("tables, user and tokens are ready")
    supervisor.start(p.name for p in chosen if p.phase is Phase.TABLES)
    wait_ready(supervisor, [p for p in chosen if p.phase in {Phase.NOTHING, Phase.TABLES}], clock)
    claims.release()
    values = prove_token(here, plan, environment, values, clock)
    supervisor.start(p.name for p in chosen if p.phase is Phase.SERVERS)
    clock.say("registering the models and bringing their first versions to traffic …")
    command(here, {**environment, **values}, "-m", "demo.setup")
    clock.say("the models are registered and served")
    supervisor.start(p.name for p in chosen if p.phase is Phase.MODELS)
    wait_ready(supervisor, [p for p in chosen if p.phase in {Phase.SERVERS, Phase.MODELS}], clock)
    running.mark_ready(here)
    return values


def show(here: Places, values: Mapping[str, str]) -> None:
    """Print where everything is and how to log in."""
    print()
    for name in SHOWN_CREDENTIALS:
        print(f"  {name:<20} {values.get(name, '')}")
    print(f"\n  also in {here.credentials_file}; logs in {here.log}", flush=True)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What happened to the processes between two looks, in words."""
    told = []
    for name, now in after.items():
        was = before.get(name, now)
        if was["pid"] and now["pid"] and now["pid"] != was["pid"]:
            told.append(f"{name} ended and was restarted (process {was['pid']} → {now['pid']})")
        elif now["statename"] != was["statename"] and not now["pid"]:
            told.append(
                f"{name}: {was['statename'].lower()} → {now['statename'].lower()} {now['spawnerr']}".rstrip()
            )
    return told


def attend(here: Places) -> None:
    """Stay attached: tell what happens to the processes, until they are stopped from elsewhere."""
    supervisor = Supervisor(here)
    seen = supervisor.processes()
    while True:
        time.sleep(1)
        try:
            now = supervisor.processes()
        except OSError:
            return
        for line in changes(seen, now):
            print(f"  {time.strftime('%H:%M:%S')}  {line}", flush=True)
        seen = now


def _on_signal(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(signal.Signals(number).name)


def _stop(here: Places) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
    begun = time.monotonic()
    with contextlib.suppress(BrokenPipeError):  # whoever read our words may be gone already
        print("\nstopping …", flush=True)
    with running.alone(here):
        running.stop_all(here)
    with contextlib.suppress(BrokenPipeError):
        print(f"stopped ({time.monotonic() - begun:.1f} s); `make up` continues where this ended", flush=True)


def begin(here: Places) -> None:
    """Start everything and show the credentials; AlreadyRunning when there is nothing to start."""
    with running.alone(here):
        found = running.state(here)
        if found is running.State.RUNNING:
            raise AlreadyRunning
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _on_signal)  # from here on there is something to stop
        clock = Clock()
        if found is running.State.UNFINISHED:
            clock.say("a start that did not finish was found: stopping what it left")
            running.stop_all(here)
        values = start(here, clock)
        clock.say("everything is ready")
        show(here, values)


def main() -> int:
    """Start, attend, stop; return the exit code."""
    here = places.here()
    try:
        begin(here)
        if os.environ.get("DETACH", "0") not in {"", "0"}:
            return 0
        print("  Ctrl-C stops everything.", flush=True)
        attend(here)
    except AlreadyRunning:  # somebody else's: shown, and left alone whatever happens
        print("Davy is running already.")
        show(here, credentials.read(here.credentials_file))
        return 0
    except KeyboardInterrupt:  # while waiting for another start
        return 130
    except Stopped:
        _stop(here)
        return 0
    except (StartError, SupervisionError, embedded.EmbeddedError, given.GivenError) as error:
        print(f"\n{error}", file=sys.stderr, flush=True)
        _stop(here)
        return 1
    except BaseException:  # a fault of ours must not leave half a system behind
        _stop(here)
        raise
    print("stopped from elsewhere")
    return 0


if __name__ == "__main__":
    sys.exit(main())
