"""Are rows read as they were given, put under the right segment, and bad columns left out by name?"""

from __future__ import annotations

import numpy as np
import pytest
from davy.batch import Batch, segment_of, split
from davy.wire import MAX_SEGMENT_KEY

IDS = ["a", "b", "c"]


def test_columns_that_do_not_fit_are_left_out_and_named():
    columns = {
        "confidences": [0.1, 0.2],
        "embeddings": np.zeros(3),
        "latency_seconds": ["fast", "slow", "slow"],
        "labels": ["x", "y", "z"],
        "keys": None,
    }
    batch = Batch.of(IDS, columns)
    assert set(batch.columns) == {"labels"}
    assert [misfit.split(":")[0] for misfit in batch.misfits] == [
        "confidences",
        "embeddings",
        "latency_seconds",
    ]


@pytest.mark.parametrize("errors", [[True], [0.5, 0, 1], ["no", "no", "yes"]])
def test_errors_that_do_not_fit_are_refused_since_a_row_could_pass_for_good(errors):
    with pytest.raises((ValueError, TypeError)):
        Batch.of(IDS, {"errors": errors})


def test_ids_may_be_numbers_or_numpy_texts():
    assert Batch.of(np.array([7, 8]), {}).ids == ["7", "8"]
    assert [type(i) for i in Batch.of(np.array(["a"]), {}).ids] == [str]


def test_one_segment_for_all_rows_is_one_part():
    [(purpose, segment, part)] = split(Batch.of(IDS, {}), "live", {"device": "ios"})
    assert (purpose, segment.values, part.ids) == ("live", {"device": "ios"}, IDS)


def test_rows_are_split_by_purpose_and_by_each_segment():
    batch = Batch.of(IDS, {"confidences": [0.1, 0.2, 0.3], "labels": ["x", "y", "z"]})
    parts = split(batch, ["live", "shadow", "live"], {"device": ["ios", "ios", None], "country": "at"})
    assert [(p, dict(s.values), b.ids, b.columns["labels"]) for p, s, b in parts] == [
        ("live", {"device": "ios", "country": "at"}, ["a"], ["x"]),
        ("shadow", {"device": "ios", "country": "at"}, ["b"], ["y"]),
        ("live", {"country": "at"}, ["c"], ["z"]),
    ]
    assert parts[2][2].columns["confidences"].tolist() == [0.3]


@pytest.mark.parametrize(
    ("purpose", "segments"),
    [("lively", {}), (["live"] * 2, {}), (["live", "live", "?"], {}), ("live", {"device": ["ios"]})],
)
def test_an_unknown_purpose_or_another_length_is_refused(purpose, segments):
    with pytest.raises(ValueError):
        split(Batch.of(IDS, {}), purpose, segments)


def test_the_order_of_names_makes_no_other_segment():
    assert segment_of((("a", "1"), ("b", "2"))).key == segment_of((("b", "2"), ("a", "1"))).key


def test_a_segment_is_made_fit_for_the_wire():
    assert segment_of((("device", "i\x00o\ns"), ("x", ""), ("\n", "y"))).values == {"device": "ios"}
    assert len(segment_of((("device", "x" * 500),)).key) <= MAX_SEGMENT_KEY
    assert segment_of(tuple((f"name-{i}", "x" * 90) for i in range(5))).key == ""
