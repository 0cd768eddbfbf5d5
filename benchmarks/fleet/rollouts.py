"""What does the judge decide on the real fleet? Rollouts of known truth through `standard`; log e of every run.

    python -m benchmarks.fleet.rollouts --out docs/measurements        (a system has to be up: make up)

Byte-identical copies of v1 (other names, same digest) have to end promoted; v4 (slower) and v1-faulty (2 % of requests
answered 500, retries and fallback on) have to be rolled back. Models are used at once, so an hour becomes minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from davy.client import Client, path

from demo import credentials, places
from demo.setup import FLEET, MODELS, freeze
from demo.stages import begin_with
from demo.users import Users

RATE = 200.0
ROLLOUT_SECONDS = 1500.0
OVER = {"watching", "promoted", "rolled_back", "aborted", "superseded", "failed"}


@dataclass(frozen=True)
class Case:
    """One rollout of known truth: `like` names the demo version whose artifact it is."""

    name: str
    like: str
    expected: str


def cases(copies: int) -> list[Case]:
    """The copies of v1, then the two bad ones."""
    same = [Case(f"copy-{i + 1:02}", "v1", "promoted") for i in range(copies)]
    return [*same, Case("slower", "v4", "rolled_back"), Case("faulty", "v1-faulty", "rolled_back")]


def register(davy: Client, model: str, case: Case, run: str) -> str:
    """Register the case under a name of its own, with the artifact and digest of the version it is like."""
    like = davy.get(path("models", model, "versions", case.like))
    name = f"{case.name}-{run}"
    body = {"version": name, "artifact_uri": like["artifact_uri"], "digest": like["digest"]}
    davy.post(path("models", model, "versions"), body)
    freeze(davy, model, name, like=case.like)
    return name


def run_case(davy: Client, model: str, case: Case, run: str) -> dict[str, Any]:
    """Roll one case out through the standard plan; return its outcome and evidence."""
    version = register(davy, model, case, run)
    begun = time.monotonic()
    rollout = davy.post("/rollouts", {"model": model, "version": version, "fleet": FLEET, "plan": "standard"})
    while rollout["state"] not in OVER and time.monotonic() - begun < ROLLOUT_SECONDS:
        time.sleep(1)
        rollout = davy.get(path("rollouts", rollout["id"]))
    seconds = time.monotonic() - begun
    outcome = "promoted" if rollout["state"] == "watching" else rollout["state"]
    return {
        "case": case.name,
        "model": model,
        "expected": case.expected,
        "outcome": outcome,
        "seconds": round(seconds),
        "reason": rollout["reason"],
        "evidence": evidence(davy, rollout["id"]),
    }


def evidence(davy: Client, rollout_id: int) -> list[dict[str, Any]]:
    """Every interval that was evidence: gate, time, requests of both arms, log e."""
    rows: list[dict[str, Any]] = []
    params: dict[str, str | float] = {"limit": 200}
    while True:
        page = davy.get(path("rollouts", rollout_id, "evidence"), params)
        for row in page["items"]:
            arms = {role: row["arms"][role]["n"] for role in ("canary", "stable")}
            rows.append(
                {
                    "gate": row["gate"],
                    "to": row["to"],
                    "weight": row["weight_percent"],
                    **arms,
                    **row["log_e"],
                }
            )
        if page["next"] is None:
            return rows
        params["cursor"] = page["next"]


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """One row of the table: requests, and the largest log e towards a rollback of every gate."""
    rows = result["evidence"]
    gates = sorted({row["gate"] for row in rows})
    requests = {
        role: sum(row[role] for row in rows if row["gate"] == "errors") for role in ("canary", "stable")
    }
    worst = {f"max log e {g}": round(max(row["fail"] for row in rows if row["gate"] == g), 2) for g in gates}
    head = {key: result[key] for key in ("case", "model", "expected", "outcome", "seconds")}
    return {**head, **requests, **worst, "reason": result["reason"]}


def work(
    davy: Client, model: str, waiting: deque[Case], run: str, done: list[dict[str, Any]], out: Path
) -> None:
    """One model's thread: begin with v1 as stable, take the next case until none is left."""
    begin_with(davy, model, "v1")
    while True:
        try:
            case = waiting.popleft()
        except IndexError:
            return
        result = run_case(davy, model, case, run)
        done.append(result)
        (out / f"{case.name}.json").write_text(json.dumps(result))
        print(
            f"{case.name} on {model}: {result['outcome']} in {result['seconds']} s: {result['reason']}",
            flush=True,
        )


def write_table(out: Path, results: list[dict[str, Any]]) -> None:
    """Write the table of all runs as CSV."""
    rows = [summary(result) for result in sorted(results, key=lambda r: r["case"])]
    columns = [*dict.fromkeys(key for row in rows for key in row if key != "reason"), "reason"]
    with (out / "rollouts.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    """Run all cases; return 0 when each ended as it had to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the table")
    parser.add_argument("--raw", type=Path, required=True, help="folder for each run's evidence")
    parser.add_argument("--copies", type=int, default=20)
    options = parser.parse_args()
    for folder in (options.out, options.raw):
        folder.mkdir(parents=True, exist_ok=True)
    here = places.here()
    known = credentials.read(here.credentials_file)
    davy = Client(known["DAVY_URL"], known["DAVY_TOKEN"])
    users = Users(here.traffic_control, here.traffic_counts)
    before = users.ask(dict.fromkeys(MODELS, RATE))
    waiting, done = deque(cases(options.copies)), list[dict[str, Any]]()
    run = time.strftime("%m%d%H%M%S")
    workers = [
        threading.Thread(target=work, args=(davy, model, waiting, run, done, options.raw)) for model in MODELS
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        users.restore(before)
    write_table(options.out, done)
    wrong = [r for r in done if r["outcome"] != r["expected"]]
    print(f"{len(done)} rollouts, {len(wrong)} not as expected")
    return 1 if wrong or len(done) != options.copies + 2 else 0


if __name__ == "__main__":
    sys.exit(main())
