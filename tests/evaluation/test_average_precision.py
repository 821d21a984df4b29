"""AP from single verdicts: equal to pycocotools, and the verdicts themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from cpm_lib.evaluation import GroundTruth, evaluate
from cpm_lib.evaluation.average_precision import average_precision, judge
from tests.evaluation.samples import annotation, detection, make, scenes, truth


def test_equals_pycocotools_at_every_threshold() -> None:
    coco, detections = make(images=60)
    judged = judge(detections, GroundTruth.of(coco))
    assert average_precision(judged) == pytest.approx(evaluate(detections, coco, curves=True)["curves"]["all"])


@given(scene=scenes())
def test_equals_pycocotools_with_crowds_and_equal_scores(scene) -> None:  # type: ignore[no-untyped-def]
    coco, detections = scene
    expected = evaluate(detections, coco, curves=True)["curves"]["all"]
    assert average_precision(judge(detections, GroundTruth.of(coco))) == pytest.approx(expected)


def test_recall_that_falls_on_a_recall_point() -> None:
    """7 of 20 objects: 0.35 is one of the 101 points, up to rounding, and both must round alike."""
    for found in range(21):
        boxes = [[20.0 * k, 0, 20 * k + 10, 10] for k in range(20)]
        coco = truth(*(annotation(1, 1, box) for box in boxes), classes=1)
        detections = [detection(boxes[:found], [0.5] * found, [1] * found)]
        expected = evaluate(detections, coco)["AP50"]
        assert average_precision(judge(detections, GroundTruth.of(coco)))[0] == pytest.approx(expected)


def test_verdicts() -> None:
    coco = truth(
        annotation(1, 2, [50, 0, 60, 10], iscrowd=1),
        annotation(2, 1, [0, 0, 10, 10]),
        images=2,
    )
    detections = [
        detection([[0, 0, 10, 8], [0, 0, 10, 10]], [0.4, 0.6], [1, 1], image=2),
        detection([[50, 0, 55, 10], [0, 0, 10, 10]], [0.9, 0.4], [2, 1], image=1),
    ]
    judged = judge(detections, GroundTruth.of(coco))
    assert judged.image.tolist() == [1, 1, 0, 0]
    assert judged.found[0].tolist() == [-1, 1, -1, -1]
    assert judged.hit[0].tolist() == [False, True, False, False]
    assert judged.ignored[0].tolist() == [False, False, True, False]  # on a crowd
    assert judged.false[0].tolist() == [True, False, False, True]
    assert judged.ranking().tolist() == [2, 1, 3, 0]  # equal scores by image
    assert {category: objects.tolist() for category, objects in judged.objects.items()} == {1: [0, 1], 2: [0, 0]}


def test_beyond_the_best_hundred_nothing_counts() -> None:
    coco = truth(annotation(1, 1, [0, 0, 10, 10]))
    boxes = [[20.0, 0, 30, 10]] * 100 + [[0.0, 0, 10, 10]]
    judged = judge([detection(boxes, [0.9] * 100 + [0.1], [1] * 101)], GroundTruth.of(coco))
    assert judged.false[0].sum() == 100 and judged.ignored[0].tolist() == [False] * 100 + [True]
    assert average_precision(judged) == [0.0] * 10


def test_nan_ranks_last() -> None:
    coco = truth(annotation(1, 1, [0, 0, 10, 10]))
    judged = judge([detection([[0, 0, 10, 10], [20, 0, 30, 10]], [torch.nan, 0.1], [1, 1])], GroundTruth.of(coco))
    assert judged.ranking().tolist() == [1, 0]
    assert average_precision(judged)[0] == pytest.approx(50)


def test_empty() -> None:
    coco = truth(annotation(1, 1, [0, 0, 10, 10]))
    assert average_precision(judge([], GroundTruth.of(coco))) == [0.0] * 10
    nothing = judge([detection([[0, 0, 1, 1]], [1.0], [1])], GroundTruth.of(truth()))
    assert average_precision(nothing) == [None] * 10
