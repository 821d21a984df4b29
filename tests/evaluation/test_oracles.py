"""Oracles worked out by hand, and that the promised ones never lose."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from cpm_lib.evaluation import error_bins, evaluate, oracles
from tests.evaluation.samples import annotation, detection, make, scenes, truth

METRICS = ("AP", "AP50", "AP75", "AP90")


def duplicate_scene() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Two objects, both found, the second by IoU 0.6; the first a second time, by 0.9 but with a low score."""
    coco = truth(annotation(1, 1, [0, 0, 10, 10]), annotation(1, 1, [20, 0, 30, 10]), classes=1)
    boxes = [[0, 0, 10, 10], [20, 0, 30, 6], [0, 0, 10, 9]]
    return coco, [detection(boxes, [0.9, 0.8, 0.1], [1, 1, 1], cls_scores=[0.9, 0.8, 0.1])]


def test_by_hand() -> None:
    coco, detections = duplicate_scene()
    result = oracles(detections, coco)
    assert set(result) == {"plain", "true_iou", "cls_true_iou", "hits_first", "true_boxes", "no_duplicates"}
    # At IoU 0.5 both objects are found before the duplicate comes; at 0.75 only the first is: 51 of 101 points.
    assert result["plain"]["AP50"] == pytest.approx(100)
    assert result["plain"]["AP75"] == pytest.approx(100 * 51 / 101)
    # A perfect IoU as score puts the duplicate (0.9) before the second object (0.6): 50 points have precision 2/3.
    assert result["true_iou"]["AP50"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    # The classification score knows better: 0.9 * 1, 0.8 * 0.6, 0.1 * 0.9.
    assert result["cls_true_iou"]["AP50"] == pytest.approx(100)
    assert result["hits_first"] == pytest.approx(result["plain"])
    assert result["no_duplicates"] == pytest.approx(result["plain"])
    # With true boxes the second object is found at every threshold.
    assert result["true_boxes"] == pytest.approx(dict.fromkeys(METRICS, 100))


def test_scores_and_duplicates_by_hand() -> None:
    """The duplicate and a box of background stand before the second hit."""
    coco, [found] = duplicate_scene()
    boxes = [*found["boxes"].tolist(), [60, 0, 70, 10]]
    result = oracles([detection(boxes, [0.9, 0.2, 0.7, 0.5], [1] * 4)], coco)
    assert "cls_true_iou" not in result
    assert result["plain"]["AP50"] == pytest.approx(100 * (51 + 50 * 2 / 4) / 101)
    assert result["no_duplicates"]["AP50"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert result["hits_first"]["AP50"] == pytest.approx(100)
    assert result["true_boxes"]["AP"] == pytest.approx(100 * (51 + 50 * 2 / 4) / 101)
    # The same as mending that bin.
    mended = error_bins([detection(boxes, [0.9, 0.2, 0.7, 0.5], [1] * 4)], coco)["dap"]["duplicate"]
    assert mended == pytest.approx(result["no_duplicates"]["AP50"] - result["plain"]["AP50"])


def test_true_boxes_leave_background_where_it_is() -> None:
    coco = truth(annotation(1, 1, [0, 0, 10, 10]), classes=1)
    touching = detection([[0, 0, 10, 0.5], [9, 0, 19, 10]], [0.9, 0.8], [1, 1])  # IoU 0.05 and 1/19
    assert oracles([touching], coco)["true_boxes"]["AP"] == 0
    near = detection([[0, 0, 10, 2]], [0.9], [1])
    assert oracles([near], coco)["true_boxes"]["AP"] == pytest.approx(100)


def test_no_detection_no_object_one_class() -> None:
    coco = truth(annotation(1, 1, [0, 0, 10, 10]), classes=1)
    for empty in ([], [detection([], [], [])]):
        assert all(set(row.values()) == {0.0} for row in oracles(empty, coco).values())
    nothing = oracles([detection([[0, 0, 10, 10]], [0.9], [1])], truth(classes=1))
    assert all(set(row.values()) == {None} for row in nothing.values())


def test_plain_is_what_evaluate_says() -> None:
    coco, detections = make(images=30)
    result, expected = oracles(detections, coco), evaluate(detections, coco)
    assert result["plain"] == pytest.approx({name: expected[name] for name in METRICS})
    assert result["hits_first"]["AP"] > result["plain"]["AP"]


@given(scene=scenes())
def test_promised_oracles_never_lose(scene) -> None:  # type: ignore[no-untyped-def]
    coco, detections = scene
    result = oracles(detections, coco)
    for name in ("hits_first", "true_boxes", "no_duplicates"):
        for metric in METRICS:
            plain, better = result["plain"][metric], result[name][metric]
            assert (plain is None) == (better is None)
            assert plain is None or better >= plain - 1e-9


@given(scene=scenes(apart=True))
def test_true_iou_is_the_best_score_without_duplicates(scene) -> None:  # type: ignore[no-untyped-def]
    coco, detections = scene
    result = oracles(detections, coco)
    assert result["true_iou"] == pytest.approx(result["hits_first"])
