from __future__ import annotations

import csv
import math

import pytest

from benchmarks.judge.figures import Row, clopper_pearson, quantile, rate, write


def test_no_event_of_5000_has_the_exact_upper_limit():
    assert clopper_pearson(0, 5000) == (0.0, pytest.approx(1 - 0.025 ** (1 / 5000)))


def test_limits_are_clopper_and_pearsons():
    assert clopper_pearson(2, 20) == pytest.approx((0.0123, 0.3170), abs=1e-4)  # published table
    assert clopper_pearson(20, 20)[1] == 1.0


def test_a_quantile_stands_between_the_order_statistics_that_bracket_it():
    row = quantile("a", "median", list(range(1, 101)), 0.5, "requests", most=60)
    assert (row.figure, row.low, row.high) == (50, 40, 61)
    assert row.met == "met"


def test_runs_without_an_end_count_as_endless():
    row = quantile("a", "median", [1.0, math.inf, math.inf], 0.5, "s", most=10)
    assert row.figure == math.inf
    assert row.met.startswith("missed")


def test_a_missed_target_says_by_how_much():
    assert rate("a", "rolled back", 30, 1000, most_percent=1.0).met == "missed by 2 %"
    assert rate("a", "rolled back", 30, 1000).met == ""


def test_rows_of_earlier_calls_stay_and_a_row_measured_again_is_replaced(tmp_path):
    path = tmp_path / "table.csv"
    write(
        path,
        [Row("a", "x", 1.0, None, None, "s", None, 1), Row("b", "y", 2.0, None, None, "s", 1.0, 1)],
        "first",
    )
    write(path, [Row("a", "x", 3.0, 2.0, 4.0, "s", None, 5)], "second")
    with path.open() as file:
        rows = {line["row"]: line for line in csv.DictReader(file)}
    assert (rows["a"]["figure"], rows["a"]["command"]) == ("3", "second")
    assert (rows["b"]["figure"], rows["b"]["met"]) == ("2", "missed by 1 s")
