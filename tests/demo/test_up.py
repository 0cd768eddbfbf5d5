"""What a start decides and tells, without starting anything."""

import json
import sys
from dataclasses import replace

import pytest

from demo import given, ports, processes, up
from demo.places import Places
from demo.processes import Plan


@pytest.fixture
def here(tmp_path) -> Places:
    place = Places(tmp_path / "var")
    place.make()
    return place


def plan(**changes) -> Plan:
    usual = {"server": "triton", "own_broker": True, "mlflow_uri": "", "traffic": True}
    return Plan(ports=ports.PREFERRED, **{**usual, **changes})


def names(here: Places, chosen: Plan) -> set[str]:
    return {process.name for process in processes.all_processes(here, chosen)}


def test_a_given_broker_and_mlflow_are_not_run_again(here) -> None:
    assert {"valkey", "mlflow"} <= names(here, plan())
    assert not {"valkey", "mlflow"} & names(here, plan(own_broker=False, mlflow_uri="http://mlflow:5000"))


def test_no_traffic_means_all_but_the_traffic(here) -> None:
    assert names(here, plan()) - names(here, plan(traffic=False)) == {"traffic"}


def test_the_substitute_takes_tritons_place_and_port(here) -> None:
    server = processes.model_server(here, plan(server="substitute"), "b")
    assert server.command[1:3] == ("-m", "demo.substitute")
    assert "8600" in server.command
    assert server.ready_url == "http://127.0.0.1:8600/v2/health/ready"


def test_every_process_is_marked_and_told_where_things_are(here) -> None:
    told = processes.environment(here, plan(), "postgresql:///d", "redis://r", {"NO_PROXY": "corp"})
    assert told["DAVY_RUN"] == told["DAVY_VAR"] == str(here.var)
    assert told["DATABASE_URL"] == "postgresql:///d"
    assert told["NO_PROXY"] == "corp,127.0.0.1,localhost"
    again = processes.environment(here, plan(), "postgresql:///d", "redis://r", {})
    key = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
    assert again[key] == told[key]  # webhooks registered in an earlier run stay readable


def test_the_demos_clocks_give_way_to_given_ones(here) -> None:
    told = processes.environment(here, plan(), "", "", {"DAVY_DRIFT_WINDOW_SECONDS": "20"})
    assert (told["DAVY_DRIFT_WINDOW_SECONDS"], told["DAVY_WINDOW_SECONDS"]) == ("20", "5")


def test_the_fleet_file_names_the_server_and_the_drivers_configuration(here) -> None:
    up.write_fleet(here, plan())
    written = json.loads(here.fleet_file.read_text())
    assert written["server"] == "triton"
    slot = written["config"]["slots"]["b"]
    assert slot["repository"] == str(here.repository("b"))
    http, grpc = (int(slot[key].rpartition(":")[2]) for key in ("url", "grpc_url"))
    assert grpc == http + 1
    assert written["config"]["admin_urls"] == ["http://127.0.0.1:9901"]


def test_a_substitute_server_has_no_grpc(here) -> None:
    up.write_fleet(here, replace(plan(), server="substitute"))
    assert "grpc_url" not in json.loads(here.fleet_file.read_text())["config"]["slots"]["a"]


def info(pid: int, state: str = "RUNNING") -> dict[str, object]:
    return {"pid": pid, "statename": state, "spawnerr": ""}


def test_a_restart_between_two_looks_is_told() -> None:
    assert up.changes({"web": info(7)}, {"web": info(7)}) == []
    assert up.changes({"web": info(7)}, {"web": info(8)}) == ["web ended and was restarted (process 7 → 8)"]
    assert up.changes({"web": info(7)}, {"web": info(0, "BACKOFF")}) == ["web: running → backoff"]


def test_a_command_that_fails_stops_the_start_with_its_words() -> None:
    here = Places(up.places.ROOT / "var")
    if not (here.app_venv / "bin" / "python").exists():
        pytest.skip("no .venv: run `make test`")
    with pytest.raises(up.StartError, match="out of paper"):
        up.command(here, {}, "-c", "import sys; sys.exit('out of paper')")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "postgresql://127.0.0.1:1/none"),
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:1"),
    ],
)
def test_a_given_part_that_does_not_answer_is_named(name, url) -> None:
    with pytest.raises(given.GivenError, match=name):
        given.check({name: url})


def test_nothing_given_is_nothing_to_check() -> None:
    given.check({"DATABASE_URL": "", "PATH": sys.prefix})
