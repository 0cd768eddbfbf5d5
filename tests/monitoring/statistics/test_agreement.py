from __future__ import annotations

import numpy as np
import pytest

from monitoring.statistics.agreement import cosine, in_words, match_boxes


def found(label, *box):
    return {"label": label, "confidence": 0.9, "box": list(box) or None}


def test_boxes_agree_when_each_has_its_counterpart_in_any_order():
    one = [found("hat", 0, 0, 10, 10), found("shoe", 50, 50, 20, 10)]
    other = [found("shoe", 51, 50, 20, 10), found("hat", 0, 1, 10, 10)]
    match = match_boxes(one, other)
    assert match.agreed
    assert match.iou == pytest.approx((90 / 110 + 190 / 210) / 2)


@pytest.mark.parametrize(
    "other",
    [
        [],
        [found("shoe", 0, 0, 10, 10)],  # another label
        [found("hat", 6, 0, 10, 10)],  # IoU 4/16
        [found("hat", 0, 0, 10, 10), found("hat", 0, 0, 10, 10)],  # one too many
        [found("hat", 0, 0, 10, 0)],  # a box without area
        [found("hat")],  # no box
    ],
)
def test_boxes_disagree_when_one_is_left_over(other):
    assert not match_boxes([found("hat", 0, 0, 10, 10)], other).agreed
    assert not match_boxes(other, [found("hat", 0, 0, 10, 10)]).agreed


def test_a_box_is_matched_once_with_its_best_counterpart():
    one = [found("hat", 0, 0, 10, 10), found("hat", 2, 0, 10, 10)]
    other = [found("hat", 2, 0, 10, 10), found("hat", 0, 0, 10, 10)]
    assert match_boxes(one, other).iou == 1.0


def test_two_empty_images_agree():
    assert match_boxes([], []).agreed


def test_objects_that_are_only_counted_match_by_label():
    assert match_boxes([found("hat"), found("shoe")], [found("shoe"), found("hat")]).agreed


def test_detections_in_words_are_the_same_for_the_same_objects():
    assert in_words([found("shoe"), found("hat"), found("shoe")]) == "2 shoe, 1 hat"
    assert in_words([]) == "nothing"
    assert len(in_words([found("x" * 200), found("y" * 200)])) <= 255


def test_cosine_of_embeddings():
    assert cosine([1, 0], [2, 0]) == pytest.approx(1)
    assert cosine([1, 0], [0, 3]) == pytest.approx(0)
    assert cosine([1, 2], [-1, -2]) == pytest.approx(-1)


@pytest.mark.parametrize("other", [[], [1.0], [0.0, 0.0], [np.inf, 1.0]])
def test_no_cosine_where_there_is_none(other):
    assert cosine([1.0, 2.0], other) is None
