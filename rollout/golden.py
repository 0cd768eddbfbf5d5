"""Has a variant shown, on a golden set, the parity that its plan asks for? If not it never gets traffic.

The result is posted with the version (`metadata["parity"]`): how many images both answered, on how many they agreed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane import problems
from controlplane.models import ModelVersion
from rollout import gates
from rollout.gates.base import Arm, GateSpec, Interval, Pairs, Verdict
from rollout.plan import Plan

KEY = "parity"  # in a version's metadata
GATE = "parity"


def against(version: ModelVersion, stable: ModelVersion) -> Pairs | None:
    """The golden set's pairs, where it was compared with this stable version."""
    posted = version.metadata.get(KEY)
    if not isinstance(posted, Mapping) or posted.get("against") != stable.name:
        return None
    return Pairs(compared=int(posted["compared"]), agreed=int(posted["agreed"]))


def check(version: ModelVersion, stable: ModelVersion | None, plan: Plan) -> None:
    """Refuse a rollout that its parity gate could never pass: a 422 problem.

    A golden set below the budget refuses the version, whatever it was compared with. Without mirrored requests the
    golden set alone must show enough.
    """
    spec = next((gate for gate in plan.statistical if gate.name == GATE and not gate.dry_run), None)
    if spec is None or stable is None:
        return
    settings = gates.get(GATE).fresh(spec.settings)["settings"]
    posted = version.metadata.get(KEY)
    if isinstance(posted, Mapping):
        _check_posted(version, posted, settings)
    if spec.required and plan.shadow is None:
        _check_enough(version, stable, spec)


def _check_posted(version: ModelVersion, posted: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    share = posted["agreed"] / posted["compared"]
    if share < settings["agreement"]:
        raise problems.field(
            "/version",
            "below_parity",
            f"{version} agrees with {posted['against']} on {100 * share:.2f} % of {posted['compared']:,} golden "
            f"images; the plan asks for {100 * settings['agreement']:g} %",
        )
    drop = posted.get("map_drop_points")
    if drop is not None and drop > settings["map_drop_points"]:
        raise problems.field(
            "/version",
            "below_parity",
            f"the mAP of {version} is {drop:g} points below that of {posted['against']} on the golden set; the plan "
            f"allows {settings['map_drop_points']:g}",
        )


def _check_enough(version: ModelVersion, stable: ModelVersion, spec: GateSpec) -> None:
    """Whether the golden set passes the gate by itself."""
    pairs, gate = against(version, stable), gates.get(GATE)
    state = gate.enter_step(gate.fresh(spec.settings), 0.0)
    if pairs is not None:
        state = gate.absorb(state, Interval(0.0, 1.0, Arm(pairs.compared), Arm(pairs.compared), pairs=pairs))
    verdict = gate.verdict(state, spec)
    if verdict.verdict is not Verdict.PASS:
        raise problems.field(
            "/plan/shadow",
            "no_pairs",
            f"gate {GATE} compares answers to the same images: give the plan `shadow`, or post a golden set compared "
            f"with {stable} ({verdict.reason})",
        )
