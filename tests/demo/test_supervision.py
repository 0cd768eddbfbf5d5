"""What the supervisor keeps running comes back after a kill -9 and is gone after the stop."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from demo import leftovers, running
from demo.places import Places
from demo.processes import Process
from demo.supervision import Supervisor, configuration

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")
FAMILY = (sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])")


@pytest.fixture
def here(tmp_path) -> Iterator[Places]:
    place = Places(tmp_path / "var")
    place.make()
    yield place
    running.stop_all(place)


def launch(here: Places, *processes: Process) -> Supervisor:
    supervisor = Supervisor(here)
    supervisor.launch(processes, {**os.environ, leftovers.MARK: str(here.var)})
    supervisor.start(process.name for process in processes)
    return supervisor


def eventually(holds: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)


def pid(supervisor: Supervisor, name: str) -> int:
    info = supervisor.processes()[name]
    return int(info["pid"]) if info["statename"] == "RUNNING" else 0


def test_a_killed_process_comes_back(here) -> None:
    supervisor = launch(here, Process("web", SLEEP))
    eventually(lambda: pid(supervisor, "web") > 0)
    first = pid(supervisor, "web")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: pid(supervisor, "web") not in {0, first})


def test_a_stop_ends_whole_process_groups(here) -> None:
    supervisor = launch(here, Process("parent", FAMILY))
    eventually(lambda: len(leftovers.find(here.var)) >= 3)  # supervisord, parent, child
    running.stop_all(here)
    assert leftovers.find(here.var) == []
    assert not supervisor.answers()


def test_orphans_of_a_killed_supervisor_are_found_and_ended(here) -> None:
    supervisor = launch(here, Process("worker", SLEEP))
    eventually(lambda: pid(supervisor, "worker") > 0)
    os.kill(int((here.run / "supervisord.pid").read_text()), signal.SIGKILL)
    eventually(lambda: not supervisor.answers())
    assert running.state(here) is running.State.UNFINISHED
    running.stop_all(here)
    assert running.state(here) is running.State.STOPPED


def test_a_start_counts_as_running_only_when_it_came_to_its_end(here) -> None:
    launch(here, Process("web", SLEEP))
    assert running.state(here) is running.State.UNFINISHED
    running.mark_ready(here)
    assert running.state(here) is running.State.RUNNING


def test_a_long_var_path_gets_a_short_socket(tmp_path) -> None:
    long = Places(tmp_path / ("x" * 120))
    assert len(str(long.supervisor_socket)) < 100
    assert long.supervisor_socket != Places(tmp_path / ("y" * 120)).supervisor_socket


def test_percent_signs_and_spaces_reach_the_command_unchanged(here) -> None:
    words = (*SLEEP, "100 %s", "it's")
    supervisor = launch(here, Process("odd", words))
    eventually(lambda: pid(supervisor, "odd") > 0)
    with open(f"/proc/{pid(supervisor, 'odd')}/cmdline", "rb") as file:
        assert file.read().split(b"\0")[3:5] == [b"100 %s", b"it's"]


def test_the_broker_stops_after_all_others(here) -> None:
    text = configuration(here, [Process("valkey", SLEEP), Process("worker", SLEEP)])
    assert "programs=worker\n" in text  # the group stops first: its priority is higher
    assert text.index("priority=1\n") > text.index("[program:valkey]")
