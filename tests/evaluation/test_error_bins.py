"""Error bins and the AP they cost, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from cpm_lib.errors import UserError
from cpm_lib.evaluation import error_bins, evaluate
from tests.evaluation.samples import annotation, detection, make, scenes, truth

BINS = ("duplicate", "classification", "localisation", "both", "background", "missed")


def one_of_each() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Class 1 has four objects and class 2 has two, all in one image, and every error is made once."""
    boxes = {
        "found": [0, 0, 10, 10],
        "badly": [20, 0, 30, 10],
        "missed": [40, 0, 50, 10],
        "later": [60, 0, 70, 10],
        "named 1": [80, 0, 90, 10],
        "last": [100, 0, 110, 10],
    }
    coco = truth(*(annotation(1, 1 if number < 4 else 2, box) for number, box in enumerate(boxes.values())))
    found = [
        (boxes["found"], 0.9, 1),
        ([0, 0, 10, 9], 0.8, 1),  # duplicate: IoU 0.9 with an object that is found already
        (boxes["named 1"], 0.7, 1),  # classification: lies on an object of class 2
        ([20, 0, 30, 3], 0.6, 1),  # localisation: IoU 0.3
        (boxes["later"], 0.55, 1),
        ([20, 6, 30, 10], 0.5, 2),  # both: IoU 0.4 with an object of class 1
        ([0, 50, 10, 60], 0.4, 2),  # background
        (boxes["last"], 0.3, 2),
    ]
    return coco, [detection(*map(list, zip(*found, strict=True)))]


def test_every_bin_by_hand() -> None:
    """Of 101 recall points, class 1 has 26 (recall up to 1/4) at precision 1 and 25 at 2/5: 36. Class 2 has 51 (up to
    1/2) at 1/3: 17."""
    coco, detections = one_of_each()
    result = error_bins(detections, coco)
    assert result["counts"] == {"hit": 3, **dict.fromkeys(BINS, 1)}
    assert (result["objects"], result["threshold"], result["background"]) == (6, 0.5, 0.1)
    assert result["ap"] == pytest.approx(100 * (36 + 17) / 2 / 101)
    assert result["ap"] == pytest.approx(evaluate(detections, coco)["AP50"])
    mended = {
        # The second hit of class 1 has precision 2/4.
        "duplicate": (26 + 25 / 2, 17),
        # So it has here; and class 2 begins with a hit, its second one having precision 2/4.
        "classification": (26 + 25 / 2, 51 + 50 / 2),
        # Hits at ranks 1, 4 and 5: recall up to 3/4 at precision 3/5.
        "localisation": (26 + 50 * 3 / 5, 17),
        "both": (36, 51 / 2),
        "background": (36, 51 / 2),
        # Recall 1/3 and 2/3: 34 and 33 points.
        "missed": (34 + 33 * 2 / 5, 17),
    }
    expected = {name: 100 * (sum(points) - 53) / 2 / 101 for name, points in mended.items()}
    assert result["dap"] == pytest.approx(expected)


def test_threshold_moves_errors_between_bins() -> None:
    coco, detections = one_of_each()
    result = error_bins(detections, coco, threshold=0.95)
    assert result["counts"] == {
        **{"hit": 3, "duplicate": 0, "classification": 1, "localisation": 2},
        **{"both": 1, "background": 1, "missed": 1},
    }
    assert result["ap"] == pytest.approx(evaluate(detections, coco, curves=True)["curves"]["all"][-1])
    # An IoU of 0.3 is background once everything below 0.35 is.
    wide = error_bins(detections, coco, background=0.35)["counts"]
    assert (wide["localisation"], wide["both"], wide["background"], wide["missed"]) == (0, 1, 2, 2)


def test_a_mended_detection_takes_the_place_of_a_worse_ranked_hit() -> None:
    coco = truth(annotation(1, 1, [0, 0, 10, 10]), classes=1)
    boxes = [[0, 0, 10, 4], [50, 0, 60, 10], [0, 0, 10, 10], [0, 0, 10, 3]]
    result = error_bins([detection(boxes, [0.9, 0.8, 0.7, 0.6], [1] * 4)], coco)
    assert result["ap"] == pytest.approx(100 / 3)
    assert (result["counts"]["localisation"], result["counts"]["background"]) == (2, 1)
    # The first box becomes the hit; the hit of before and the last box would be duplicates of it.
    assert result["dap"]["localisation"] == pytest.approx(100 - 100 / 3)
    assert result["dap"]["background"] == pytest.approx(50 - 100 / 3)


def test_overlap_with_another_class_comes_before_a_poor_overlap_with_the_own() -> None:
    coco = truth(annotation(1, 1, [0, 0, 10, 10]), annotation(1, 2, [0, 2, 10, 12]))
    result = error_bins([detection([[0, 6, 10, 12]], [0.9], [1])], coco)  # IoU 1/3 with class 1, 0.6 with class 2
    assert result["counts"]["classification"] == 1 and result["counts"]["localisation"] == 0
    assert result["counts"]["missed"] == 1
    # Class 2 is found completely, class 1 not at all.
    assert result["dap"]["classification"] == pytest.approx(50)


def test_no_detection_no_object_one_class() -> None:
    coco = truth(annotation(1, 1, [0, 0, 10, 10]), annotation(1, 1, [20, 0, 30, 10]), classes=1)
    nothing_found = error_bins([], coco)
    assert nothing_found["ap"] == 0 and nothing_found["counts"]["missed"] == nothing_found["objects"] == 2
    assert nothing_found["dap"] == {**dict.fromkeys(BINS, 0.0), "missed": 100.0}
    nothing_there = error_bins([detection([[0, 0, 10, 10]], [0.9], [1])], truth(classes=1))
    assert nothing_there["ap"] is None and set(nothing_there["dap"].values()) == {None}
    assert nothing_there["counts"]["background"] == 1 and nothing_there["objects"] == 0
    perfect = error_bins([detection([[0, 0, 10, 10], [20, 0, 30, 10]], [0.9, 0.9], [1, 1])], coco)
    assert perfect["ap"] == 100 and perfect["dap"] == dict.fromkeys(BINS, 0.0)


def test_crowds_are_neither_errors_nor_missed() -> None:
    coco = truth(annotation(1, 1, [0, 0, 10, 10]), annotation(1, 1, [40, 0, 90, 50], iscrowd=1))
    result = error_bins([detection([[0, 0, 10, 10], [50, 0, 60, 10]], [0.5, 0.9], [1, 1])], coco)
    assert result["counts"] == {"hit": 1, **dict.fromkeys(BINS, 0)}


@given(scene=scenes())
def test_every_false_positive_in_one_bin_and_no_bin_costs_ap(scene) -> None:  # type: ignore[no-untyped-def]
    coco, detections = scene
    for threshold in (0.5, 0.75):
        result = error_bins(detections, coco, threshold=threshold)
        total = sum(len(d["boxes"]) for d in detections)
        assert sum(result["counts"].values()) - result["counts"]["missed"] <= total  # the rest lies on crowds
        assert result["counts"]["hit"] + result["counts"]["missed"] <= result["objects"]
        assert all(gain is None or 0 <= gain <= 100 - result["ap"] + 1e-6 for gain in result["dap"].values())


def test_made_up_data() -> None:
    coco, detections = make(images=30)
    result = error_bins(detections, coco)
    assert result["ap"] == pytest.approx(evaluate(detections, coco)["AP50"])
    assert all(gain >= 0 for gain in result["dap"].values())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"threshold": 0.52}, "0.52"), ({"threshold": 0.3}, "0.3"), ({"background": 0.5}, "background 0.5")],
)
def test_impossible_thresholds(options: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        error_bins([], truth(), **options)
