"""Ticks whose evidence comes from collectors: segments, embeddings, errors by key, and splits that are off."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import pytest
from davy import wire

from controlplane.models import Alert, Fleet, ModelVersion
from controlplane.problems import Problem
from monitoring import references
from monitoring.models import Reporting, Window
from rollout import commands, judge, replay, tick
from rollout.evidence import sources
from rollout.models import Evidence, Rollout
from rollout.plan import load
from tests.rollout.scene import PLAN, Behaviour, Scene

pytestmark = pytest.mark.django_db
DEVICES = {"nano": 0.2, "orin": 0.8}
DIMENSIONS = 6


@dataclass
class Fleetful(Scene):
    """A scene whose collectors report devices, embeddings and errors by key."""

    faulty: dict[str, dict[str, float]] = field(default_factory=dict)  # version → device → share of errors
    shift: dict[str, float] = field(default_factory=dict)  # version → of its first component
    keyed: bool = False

    def version(
        self, name: str, behaviour: Behaviour | None = None, *, reference: bool = True
    ) -> ModelVersion:
        made = super().version(name, behaviour)
        if reference:
            rows = (
                np.random.default_rng(list(name.encode())).normal(size=(2_000, DIMENSIONS)).astype(np.float32)
            )
            references.freeze(made, rows, np.full(2_000, 0.9))
        return made

    def window(self, name: str, n: int, failed: int, does: Behaviour) -> None:
        """One window a device; the whole is what they add up to."""
        found = ModelVersion.objects.get(model=self.model, name=name)
        for device, share in DEVICES.items():
            part = int(self.rng.binomial(n, share))
            bad = int(self.rng.binomial(part, self.faulty.get(name, {}).get(device, does.errors)))
            self._report(found, {"device": device}, part, bad)

    def _report(self, of: ModelVersion, segment: dict[str, str], n: int, bad: int) -> None:
        bins = references.load(of)
        embedding, digest = b"", ""
        if bins is not None:
            rows = self.rng.normal(size=(n - bad, DIMENSIONS)).astype(np.float32)
            rows += self.shift.get(of.name, 0.0) * np.float32(1)
            embedding, digest = wire.pack(bins.count(rows)), bins.digest
        buckets = np.bincount(self.rng.integers(16, size=bad if self.keyed else 0), minlength=16)
        confidence = np.zeros(100, np.int64)
        confidence[95] = n - bad
        span: dict[str, Any] = {"start": self.now - timedelta(seconds=1), "end": self.now}
        Reporting.objects.create(version=of, reporters=[uuid5(NAMESPACE_OID, of.name)], **span)
        Window.objects.create(
            version=of,
            segment=segment,
            segment_key=wire.segment_key(segment),
            **span,
            reference_digest=digest,
            n=n,
            errors=bad,
            errors_by_key_bucket=wire.pack(buckets),
            confidence=wire.pack(confidence),
            latency=wire.pack(np.zeros(96, np.int64)),
            embedding=embedding,
        )


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Fleetful:
    return Fleetful(request.node.name[:60].lower())


def plan(*gates: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**PLAN, "gates": list(gates), **changes}


def assigned_by(scene: Scene, unit: str) -> None:
    Fleet.objects.filter(pk=scene.fleet.pk).update(config={"name": scene.name, "assignment": unit})


def again(rollout: Rollout) -> judge.Judgement:
    """What the rollout's rows say when they are absorbed once more."""
    records = [
        replay.Record(
            row.gate,
            row.step,
            row.weight_percent,
            sources.from_json(row.start.timestamp(), row.end.timestamp(), row.arms),
        )
        for row in Evidence.objects.filter(rollout=rollout).order_by("id")
    ]
    return replay.again(load(rollout.plan), records)


# Segments


GUARDED = {"name": "errors", "segments": "device"}


def test_a_fault_that_only_collectors_of_one_device_see_is_rolled_back_and_named(scene: Fleetful) -> None:
    """The router sees no failure at all: the answers were 200."""
    scene.live()
    scene.faulty["v2"] = {"nano": 0.5}
    ended = scene.run(scene.start(scene.version("v2"), plan(GUARDED)), 600)
    assert ended.state == "rolled_back"
    assert ended.reason.startswith("errors failed on device=nano: canary ")
    assert Evidence.objects.filter(rollout=ended, gate="errors", source="collector").exists()


def test_a_healthy_version_is_promoted_with_its_segments_watched(scene: Fleetful) -> None:
    scene.live()
    ended = scene.run(scene.start(scene.version("v2"), plan(GUARDED, {"name": "confidence"})), 600)
    assert ended.state == "promoted", ended.reason


def test_replaying_rows_with_segments_gives_the_same_failure(scene: Fleetful) -> None:
    scene.live()
    scene.faulty["v2"] = {"nano": 0.5}
    ended = scene.run(scene.start(scene.version("v2"), plan(GUARDED, {"name": "confidence"})), 600)
    failed = again(ended).failed
    assert failed is not None
    assert (failed.segment, failed.name) == ("device=nano", "errors")
    shown = next(gate for gate in ended.gates if gate["name"] == "errors")
    assert failed.log_e_fail == pytest.approx(shown["log_e_fail"], rel=1e-9)


def test_without_a_guard_segments_are_neither_read_nor_kept(scene: Fleetful) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2"), plan({"name": "confidence"})), 60, until="promoting")
    rows = Evidence.objects.filter(rollout=rollout)
    assert rows
    assert not any("segments" in row.arms["canary"] for row in rows)


def test_segments_of_a_gate_that_collectors_do_not_count_are_refused() -> None:
    with pytest.raises(Problem) as refused:
        commands.read_plan(plan({"name": "errors"}, {"name": "accuracy", "segments": "device"}))
    assert refused.value.errors[0]["pointer"] == "/plan/gates/1/segments"


# Embeddings


SHIFT = {"name": "embedding_shift"}


def test_a_canary_whose_embeddings_have_moved_is_rolled_back_for_them(scene: Fleetful) -> None:
    scene.live()
    scene.shift["v2"] = 1.0
    ended = scene.run(scene.start(scene.version("v2"), plan(SHIFT)), 600)
    assert ended.state == "rolled_back"
    assert "embedding_shift failed: canary ." in ended.reason
    failed = again(ended).failed
    assert failed is not None
    assert failed.reason in ended.reason


def test_a_version_with_a_reference_of_its_own_is_promoted_while_both_drift_alike(scene: Fleetful) -> None:
    scene.live()
    scene.shift |= {"v1": 0.3, "v2": 0.3}
    ended = scene.run(scene.start(scene.version("v2"), plan(SHIFT)), 600)
    assert ended.state == "promoted", ended.reason


@pytest.mark.parametrize("missing", ["v1", "v2"])
def test_37_a_version_without_a_reference_is_refused_when_its_plan_compares_with_it(
    scene: Fleetful, missing: str
) -> None:
    scene.version("v1", reference=missing != "v1")
    first = ModelVersion.objects.get(name="v1")
    scene.run(scene.start(first), seconds=10)
    second = scene.version("v2", reference=missing != "v2")
    with pytest.raises(Problem) as refused:
        scene.start(second, plan(SHIFT))
    assert refused.value.errors[0]["pointer"] == "/version"
    assert f"products {missing} has no reference" in refused.value.errors[0]["detail"]
    assert not Rollout.objects.filter(version=second).exists()
    assert scene.start(second).version == second


def test_37_what_skips_analysis_needs_no_reference(scene: Fleetful) -> None:
    scene.live()
    bare = scene.version("v2", reference=False)
    rollout, _ = commands.start(
        bare, scene.fleet, commands.read_plan(plan(SHIFT)), actor="ann", now=scene.now, direct=True
    )
    assert rollout.direct


# Fleets


def test_what_another_fleet_reports_of_the_same_versions_is_no_evidence(scene: Fleetful) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2"), plan({"name": "confidence"})), 20, until="running")
    unsure = wire.pack(np.bincount([40] * 500, minlength=100))
    for name in ("v1", "v2"):
        for second in range(60):
            place: dict[str, Any] = {
                "version": ModelVersion.objects.get(name=name),
                "fleet": "elsewhere",
                "start": scene.now + timedelta(seconds=second),
                "end": scene.now + timedelta(seconds=second + 1),
            }
            Reporting.objects.create(reporters=[uuid5(NAMESPACE_OID, "elsewhere")], **place)
            Window.objects.create(
                **place,
                n=500,
                errors=0,
                confidence=unsure if name == "v2" else b"",
            )
    assert scene.run(rollout, 600).state == "promoted"


# Errors by key


def test_a_fleet_that_draws_each_request_anew_takes_errors_at_their_word(scene: Fleetful) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 20, until="running")
    errors = scene.run(rollout, 3).judge["errors"]["evidence"]
    assert (errors["divisor"], errors["dispersion"]["assumed"]) == (1, True)
    assert not Evidence.objects.filter(rollout=rollout, source="history").exists()


def test_where_users_stay_in_an_arm_clusters_are_assumed_and_the_page_says_so(scene: Fleetful) -> None:
    assigned_by(scene, "key")
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 20, until="running")
    seen = scene.run(rollout, 5)
    assert seen.judge["errors"]["evidence"]["divisor"] == pytest.approx(6.5)
    assert "φ = 5.0 assumed" in seen.gates[0]["reason"]


def test_an_hour_of_stables_errors_by_key_is_read_once_at_the_start(scene: Fleetful) -> None:
    assigned_by(scene, "key")
    scene.keyed = True
    first = scene.live(behaviour=Behaviour(errors=0.01))
    for _ in range(70):
        scene.now += timedelta(minutes=1)
        scene._report(first, {"device": "nano"}, 200, 2)
    rollout = scene.run(scene.start(scene.version("v2", Behaviour(errors=0.01))), 20, until="running")
    seen = scene.run(rollout, 5)
    known = seen.judge["errors"]["evidence"]["dispersion"]
    assert not known["assumed"]
    assert known["phi"] == pytest.approx(1, abs=0.3)
    assert Evidence.objects.filter(rollout=rollout, source="history").count() == 1


def test_replaying_rows_weighs_errors_as_the_rollout_did(scene: Fleetful) -> None:
    assigned_by(scene, "key")
    scene.keyed = True
    scene.live()
    ended = scene.run(scene.start(scene.version("v2", Behaviour(errors=0.3))), 600)
    assert ended.state == "rolled_back"
    failed = again(ended).failed
    assert failed is not None
    assert failed.reason in ended.reason
    assert failed.log_e_fail == pytest.approx(ended.gates[0]["log_e_fail"], rel=1e-9)


# The split


def with_share(scene: Scene, rollout: Rollout, share: float, seconds: int) -> Rollout:
    """The router says 5 % and sends another share."""
    for _ in range(seconds):
        scene.now += timedelta(seconds=1)
        canary = int(scene.rng.binomial(300, share))
        scene.memory.count("products", "b", canary)
        scene.memory.count("products", "a", 300 - canary)
        tick.tick(rollout.pk, scene.now)
    return scene.get(rollout)


def test_a_split_that_is_off_holds_the_rollout_with_an_alert_of_its_own(scene: Fleetful) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 30, until="running")
    held = with_share(scene, rollout, 0.2, seconds=40)
    assert held.state == "held"
    assert held.reason.startswith("sample ratio says no: canary got ")
    alert = Alert.objects.get(cause="rollout/sample-ratio/products/" + scene.fleet.name, resolved_at=None)
    assert "expected 5.00 %" in alert.summary
    assert held.step == 0


def test_when_the_split_is_right_again_the_rollout_goes_on_and_the_alert_closes(scene: Fleetful) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 30, until="running")
    assert with_share(scene, rollout, 0.2, seconds=40).state == "held"
    assert scene.run(rollout, 600).state == "promoted"
    assert not Alert.objects.filter(cause__startswith="rollout/sample-ratio", resolved_at=None).exists()
