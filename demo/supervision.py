"""How are the processes kept running? A supervisord of our own: its configuration, and how to ask it."""

from __future__ import annotations

import shlex
import subprocess
import time
import xmlrpc.client
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from controlplane import embedded
from demo.places import Places
from demo.processes import Process

GROUP = "davy"
LOG_BYTES = "10MB"
PATIENCE_SECONDS = 20.0


class SupervisionError(RuntimeError):
    """The supervisor did not do as asked; the message names its log."""


def configuration(here: Places, processes: Sequence[Process]) -> str:
    """supervisord's configuration.

    Every process is restarted whenever it ends (kill -9 too) and has a process group of its own, stopped as a
    whole. One group for all but the broker: a group stops side by side, and the broker goes last.
    """

    def escaped(value: object) -> str:
        return str(value).replace("%", "%%")

    sections = [
        f"[unix_http_server]\nfile={escaped(here.supervisor_socket)}\nchmod=0700\n",
        f"[supervisord]\nlogfile={escaped(here.log / 'supervisord.log')}\nlogfile_maxbytes={LOG_BYTES}\n"
        f"logfile_backups=1\npidfile={escaped(here.run / 'supervisord.pid')}\nnodaemon=true\nsilent=true\n"
        f"directory={escaped(here.root)}\nidentifier=davy-{here.mark}\n",
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n",
    ]
    members = [process.name for process in processes if process.name != "valkey"]
    sections.append(f"[group:{GROUP}]\nprograms={','.join(members)}\npriority=500\n")
    for process in processes:
        log = here.log / f"{process.name}.log"
        sections.append(
            f"[program:{process.name}]\ncommand={escaped(shlex.join(process.command))}\n"
            f"directory={escaped(here.root)}\nautostart=false\nautorestart=true\nstartsecs=1\nstartretries=1000\n"
            f"stopasgroup=true\nkillasgroup=true\nstopwaitsecs={process.stop_seconds}\n"
            f"priority={1 if process.name == 'valkey' else 500}\n"
            f"redirect_stderr=true\nstdout_logfile={escaped(log)}\n"
            f"stdout_logfile_maxbytes={LOG_BYTES}\nstdout_logfile_backups=2\n"
        )
    return "\n".join(sections)


def full_name(name: str) -> str:
    """The supervisor's name of a process."""
    return name if name == "valkey" else f"{GROUP}:{name}"


class Supervisor:
    """The supervisord of one var folder, reached through its unix socket."""

    def __init__(self, here: Places) -> None:
        self._here = here

    @property
    def _rpc(self) -> Any:
        """A fresh connection: one that failed once stays broken."""
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self._here.supervisor_socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def launch(self, processes: Sequence[Process], environment: Mapping[str, str]) -> None:
        """Start supervisord with these processes, none of them running yet; return when it answers."""
        config = self._here.run / "supervisord.conf"
        config.write_text(configuration(self._here, processes))
        self._here.supervisor_socket.unlink(missing_ok=True)
        command = [
            str(self._here.app_venv / "bin" / "python"),
            "-m",
            "supervisor.supervisord",
            "-c",
            str(config),
        ]
        log = self._here.log / "supervisord.out"
        with log.open("wb") as output:
            child = subprocess.Popen(
                command,
                cwd=self._here.root,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in the terminal is ours to handle, not its
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.answers():
            if child.poll() is not None or time.monotonic() > deadline:
                raise SupervisionError(f"supervisord did not start:\n{log.read_text().strip()}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether this supervisord runs."""
        try:
            return bool(self._rpc.getState()["statename"] == "RUNNING")
        except (OSError, xmlrpc.client.Error, EOFError):
            return False

    def start(self, names: Iterable[str]) -> None:
        """Start these processes without waiting; one that runs already is left alone."""
        already_started = 60
        for name in names:
            try:
                self._rpc.startProcess(full_name(name), False)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode != already_started:
                    raise SupervisionError(f"{name}: {fault.faultString}") from fault

    def stop(self, name: str) -> None:
        """Stop one process and wait for its end; it stays stopped until `start`."""
        self._rpc.stopProcess(full_name(name), True)

    def restart(self, names: Iterable[str]) -> None:
        """Stop these processes and start them again without waiting for them."""
        chosen = list(names)
        for name in chosen:
            self.stop(name)
        self.start(chosen)

    def processes(self) -> dict[str, dict[str, Any]]:
        """What supervisord knows about each process (pid, statename, exitstatus, spawnerr …), by name."""
        return {info["name"]: info for info in self._rpc.getAllProcessInfo()}

    def shut_down(self) -> None:
        """Stop every process, then supervisord; return when its own process has ended."""
        pid = int(self._rpc.getPID())
        self._rpc.shutdown()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while embedded.alive(pid):
            if time.monotonic() > deadline:
                raise SupervisionError(
                    f"supervisord (process {pid}) did not stop within {PATIENCE_SECONDS:.0f} s"
                )
            time.sleep(0.05)
