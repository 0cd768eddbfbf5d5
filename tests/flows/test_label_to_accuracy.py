"""Label → accuracy: samples of real predictions are labelled, and an estimate with its interval appears."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from davy.client import ApiError, path

from demo.stages import truth
from tests.system import System

MODEL, VERSION = "shelf", "v1"
MEASURED = 20


def label_next(system: System) -> dict[str, Any] | None:
    """Lease a task, answer it with the truth, return it; None while there is none or somebody was quicker."""
    lease = system.davy.post("/labeling/tasks/next", {"model": MODEL})
    if lease is None:
        return None
    try:
        answer = {"token": lease["token"], "label": truth(lease["request_id"])}
        system.davy.post(path("labeling", "tasks", lease["task"], "submit"), answer)
    except ApiError as refused:
        if refused.status != 409:
            raise
        return None
    return dict(lease)


def accuracy(system: System) -> dict[str, Any]:
    return dict(system.davy.get(path("models", MODEL, "versions", VERSION, "accuracy")))


def test_labels_of_measured_predictions_become_an_accuracy_with_its_interval(system) -> None:
    done: Counter[str] = Counter()
    wrong = 0
    assert accuracy(system)["n"] == 0
    with system.busy(shelf=150):
        while done["measure"] < MEASURED or not done["improve"]:
            lease = system.wait_for("a task", lambda: label_next(system))
            assert lease["version"] == VERSION
            done[lease["budget"]] += 1
            if lease["budget"] == "improve":
                assert 0.3 <= lease["suggestion"]["confidence"] < 0.6
            else:
                wrong += lease["suggestion"]["label"] != truth(lease["request_id"])
    found = accuracy(system)
    assert found["n"] == done["measure"]
    assert 0 < found["low"] < found["accuracy"] < found["high"] <= 1
    # every one was drawn with the same probability, so the estimate is the plain share
    assert found["accuracy"] == pytest.approx(1 - wrong / done["measure"])
