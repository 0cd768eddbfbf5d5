"""Every published vector of the SPC charts, at its stated tolerance (relative; absolute where the value is 0)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitoring.statistics.charts import attributes, rules, run_length, shewhart, weighted
from monitoring.statistics.charts.chart import Chart

FILE = Path(__file__).parents[3] / "vectors" / "spc_vectors.json"
VECTORS = json.loads(FILE.read_text())["vectors"]


def of(*kinds: str) -> pytest.MarkDecorator:
    """The vectors of these kinds, each under its own id."""
    found = [vector for vector in VECTORS if vector["kind"] in kinds]
    return pytest.mark.parametrize("vector", found, ids=lambda vector: vector["id"])


def near(actual: Any, expected: Any, tol: float) -> None:
    """Each number within tol of the expected one, relatively."""
    expected = np.asarray(expected, float)
    wanted = np.broadcast_to(expected, np.shape(actual))
    np.testing.assert_allclose(actual, wanted, rtol=tol, atol=tol * (wanted == 0).any())


def numbered(points: tuple[int, ...]) -> list[int]:
    return [point + 1 for point in points]  # the vectors count from 1


def check_rules(z: Any, expected: dict[str, Any]) -> None:
    for name, found in (("western_electric", rules.western_electric(z)), ("nelson", rules.nelson(z))):
        wanted = expected[f"{name}_by_rule"]
        assert {f"rule{rule}": numbered(points) for rule, points in found.items()} == wanted, name


def check(chart: Chart, vector: dict[str, Any], center: str = "center") -> None:
    expected, tol = vector["expected"], vector["tol"]
    near(chart.center, expected[center], tol)
    near(chart.lower, expected["lcl"], tol)
    near(chart.upper, expected["ucl"], tol)
    if "western_electric_by_rule" in expected:
        check_rules(chart.z, expected)


def test_all_forty_one_vectors_are_read():
    tested = "xbar R S xbar.one p np c u laney_p ewma_steady ewma_exact cusum rules arl_shewhart arl_cusum"
    tested += " arl_ewma arl_runs_rules cusum_design ewma_design"
    assert len(VECTORS) == 41
    assert {vector["kind"] for vector in VECTORS} == set(tested.split())


@of("xbar")
def test_xbar(vector):
    given = vector["input"]
    first = shewhart.xbar(given["phase1"])
    near(first.spread, vector["expected"]["std_dev"], vector["tol"])
    later = shewhart.xbar(given["phase1"] + given["phase2"], first.center[0], first.spread)
    check(later, vector)


@of("R")
def test_r(vector):
    check(shewhart.r(vector["input"]["phase1"]), vector)


@of("S")
def test_s(vector):
    check(shewhart.s(vector["input"]["phase1"]), vector)


@of("xbar.one")
def test_individuals(vector):
    given = vector["input"]
    first = shewhart.individuals(given["x"])
    near(first.spread, vector["expected"]["std_dev"], vector["tol"])
    check(shewhart.individuals(given["x"] + given.get("new_x", []), first.center[0], first.spread), vector)


@of("p")
def test_p(vector):
    given = vector["input"]
    first = attributes.p(given["d"], given["n"])
    near(first.sigma, vector["expected"]["std_dev"], vector["tol"])
    events, n = given["d"] + given.get("new_d", []), given["n"] + given.get("new_n", [])
    check(attributes.p(events, n, first.center[0]), vector)


@of("np")
def test_np(vector):
    check(attributes.np_(vector["input"]["d"], vector["input"]["n"]), vector)


@of("c")
def test_c(vector):
    chart = attributes.c(vector["input"]["c"])
    near(chart.spread, vector["expected"]["std_dev"], vector["tol"])
    check(chart, vector)


@of("u")
def test_u(vector):
    chart = attributes.u(vector["input"]["c"], vector["input"]["n"])
    near(chart.spread, vector["expected"]["std_dev"], vector["tol"])
    check(chart, vector)


@of("laney_p")
def test_laney_p(vector):
    given, expected = vector["input"], vector["expected"]
    chart = attributes.laney_p(given["d"], given["n"])
    check(chart, vector, center="pbar" if "pbar" in expected else "cl")
    if "sigma_z" in expected:
        near(chart.spread, expected["sigma_z"], vector["tol"])
        assert numbered(np.flatnonzero(chart.outside)) == expected["laney_signals"]
        plain = attributes.p(given["d"], given["n"])
        assert numbered(np.flatnonzero(plain.outside)) == [expected["plain_p_signals"]]


@of("ewma_steady", "ewma_exact")
def test_ewma(vector):
    given, expected, tol = vector["input"], vector["expected"], vector["tol"]
    center, sigma = given.get("target", given.get("center")), given.get("sigma", given.get("sd"))
    limits = "fixed" if vector["kind"] == "ewma_steady" else "time_varying"
    chart = weighted.ewma(given["x"], center, sigma, given["lambda"], given["L"], limits)
    near(chart.value, expected["ewma"], tol)
    near(chart.lower, expected["lcl"], tol)
    near(chart.upper, expected["ucl"], tol)
    assert numbered(np.flatnonzero(chart.outside)) == expected.get("violations", [])


@of("cusum")
def test_cusum(vector):
    given, expected, tol = vector["input"], vector["expected"], vector["tol"]
    sd = given.get("sd", 1)
    target, k, h = given.get("target", given.get("center")), given.get("k_abs", given.get("k")), None
    h = given.get("h_abs", given.get("h"))
    found = weighted.cusum(given["x"], target, k * sd, h * sd)
    near(found.high, np.array(expected.get("hi", expected.get("pos"))) * sd, tol)
    near(found.low, np.abs(expected.get("lo", expected.get("neg"))) * sd, tol)  # qcc's lower sum is negative
    signals = expected.get("signals", sorted(expected.get("viol_upper", []) + expected.get("viol_lower", [])))
    assert numbered(np.flatnonzero(found.signals)) == signals


@of("rules")
def test_rules(vector):
    given = vector["input"]
    check_rules((np.array(given["z"]) - given["center"]) / given["sigma"], vector["expected"])


@of("arl_shewhart")
def test_arl_shewhart(vector):
    given = vector["input"]
    arl = [run_length.arl_shewhart(given["L"], shift) for shift in given["shift"]]
    near(arl, vector["expected"]["arl"], vector["tol"])


@of("arl_cusum")
def test_arl_cusum(vector):
    given = vector["input"]
    arl = [run_length.arl_cusum(given["k"], given["h"], shift) for shift in given["shift"]]
    near(arl, vector["expected"]["arl"], vector["tol"])


@of("arl_ewma")
def test_arl_ewma(vector):
    given = vector["input"]
    limits = {"fix": "fixed", "vacl": "time_varying"}[given["limits"]]
    arl = [
        [run_length.arl_ewma(lam, width, shift, limits) for shift in given["shift"]]
        for lam, width in zip(given["lambda"], given["L"], strict=True)
    ]
    near(arl, vector["expected"]["arl"], vector["tol"])


@of("arl_runs_rules")
def test_arl_rules(vector):
    given = vector["input"]
    arl = [run_length.arl_rules([int(rule) for rule in names], given["shift"]) for names in given["rules"]]
    near(arl, vector["expected"]["arl"], vector["tol"])
    near(arl, vector["expected"]["champ_woodall"], vector["tol"])


@of("cusum_design")
def test_cusum_h(vector):
    given = vector["input"]
    h = [run_length.cusum_h(k, arl0) for k, arl0 in zip(given["k"], given["arl0"], strict=True)]
    near(h, vector["expected"]["h"], vector["tol"])


@of("ewma_design")
def test_ewma_width(vector):
    given = vector["input"]
    width = [run_length.ewma_width(lam, a) for lam, a in zip(given["lambda"], given["arl0"], strict=True)]
    near(width, vector["expected"]["L"], vector["tol"])
