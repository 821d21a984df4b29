"""Scores of cut and covered objects against cases worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cpm_lib.errors import UserError
from cpm_lib.evaluation import overall_appearance, score_by_completeness, score_by_truncation
from tests.evaluation.samples import annotation, detection, truth

OBJECT = [0, 0, 10, 10]


def scene(truncation: list[float], ious: list[float], scores: list[float], **extra: Any) -> Any:
    """One object and one detection of it per image."""
    numbers = range(1, len(ious) + 1)
    objects = [
        annotation(n, 1, OBJECT, truncation=share, **extra) for n, share in zip(numbers, truncation, strict=True)
    ]
    found = [
        detection([[0, 0, 10, 10 * iou]], [score], [1], n, iou_scores=[score])
        for n, iou, score in zip(numbers, ious, scores, strict=True)
    ]
    return truth(*objects, images=len(ious)), found


def test_equal_iou_by_hand() -> None:
    """Bin (0.5, 0.75]: complete 0.6, cut 0.5 and 0.3. Bin (0.75, 1]: complete 0.8 and 0.9, cut 0.8."""
    coco, found = scene(
        [0, 0, 0, 0.5, 0.5, 0.5], [0.6, 0.9, 1.0, 0.7, 0.6, 0.9], [0.6, 0.8, 0.9, 0.5, 0.3, 0.8], occlusion=0.0
    )
    options = {"edges": (0.0, 1.0), "iou_edges": (0.5, 0.75, 1.0)}
    result = score_by_completeness(found, coco, **options, samples=50)
    cells = [(c["high"], c["iou_low"], c["iou_high"], c["n"]) for c in result["cells"]]
    assert cells == [(0, 0.5, 0.75, 1), (0, 0.75, 1, 2), (1, 0.5, 0.75, 2), (1, 0.75, 1, 1)]
    assert [c["iou_scores"] for c in result["cells"]] == pytest.approx([0.6, 0.85, 0.4, 0.8])
    assert [c["iou"] for c in result["cells"]] == pytest.approx([0.6, 0.95, 0.65, 0.9])
    [row] = result["at_equal_iou"]
    # Two cut detections are 0.2 below their bin's complete ones, one is 0.05 below.
    assert row["scores"]["iou_scores"]["difference"] == pytest.approx(-(2 * 0.2 + 0.05) / 3)
    assert row["scores"]["scores"] == row["scores"]["iou_scores"]
    assert row["scores"]["iou_scores"]["low"] <= row["scores"]["iou_scores"]["high"]
    # Plain means would say otherwise: the cut objects are also the worse placed ones.
    plain = score_by_truncation(found, coco, edges=(0.0, 1.0), min_iou=0.5)
    assert plain[1]["scores"] - plain[0]["scores"] == pytest.approx(1.6 / 3 - 2.3 / 3)


def test_bins_with_one_side_only_do_not_count() -> None:
    coco, found = scene([0, 0, 0.5], [0.6, 0.9, 0.9], [0.1, 0.8, 0.7], occlusion=0.0)
    [row] = score_by_completeness(found, coco, edges=(0.0, 1.0), samples=20)["at_equal_iou"]
    assert row["scores"]["scores"]["difference"] == pytest.approx(-0.1)
    coco, found = scene([0, 0.5], [0.6, 0.9], [0.1, 0.7], occlusion=0.0)
    [row] = score_by_completeness(found, coco, edges=(0.0, 1.0), samples=20)["at_equal_iou"]
    assert row["scores"]["scores"] == {"difference": None, "low": None, "high": None, "sd": None, "samples": 20}


def test_covered_objects_are_no_complete_ones() -> None:
    coco, found = scene([0, 0, 0.5], [0.9, 0.9, 0.9], [0.2, 0.8, 0.7], occlusion=0.0)
    coco["annotations"][0]["occlusion"] = 0.4

    def difference(by: Any) -> float | None:
        result = score_by_completeness(found, coco, by=by, edges=(0.0, 1.0), samples=5)
        return result["at_equal_iou"][0]["scores"]["scores"]["difference"]

    assert difference("truncation") == pytest.approx(0.7 - 0.8)
    assert difference("occlusion") == pytest.approx(0.2 - 0.8)
    assert difference("either") == pytest.approx(0.45 - 0.8)


def test_flag_of_voc() -> None:
    coco, found = scene([0, 0], [0.9, 0.9], [0.8, 0.5])
    for number, entry in enumerate(coco["annotations"]):
        entry["truncated"] = number
    result = score_by_completeness(found, coco, by="truncated", edges=(0.0, 1.0), samples=5)
    assert result["at_equal_iou"][0]["scores"]["scores"]["difference"] == pytest.approx(-0.3)
    assert [group["n"] for group in score_by_truncation(found, coco, by="truncated", edges=(0.0, 1.0))] == [1, 1]


def test_overall_appearance_by_hand() -> None:
    """The ISM says the IoU with the whole object, cls that with the visible part."""
    visible, share, full = [0.8, 0.9, 1.0], [0.8, 0.5, 0.6], [0.64, 0.45, 0.6]
    coco, found = scene([1 - s for s in share], visible, full)
    for entry, part in zip(coco["annotations"], share, strict=True):
        width = 10 / part
        entry["full_bbox"] = [10 - width, 0, width, 10]
    for entry, score in zip(found, visible, strict=True):
        entry["cls_scores"] = torch.tensor([score])
    result = overall_appearance(found, coco, samples=50)
    assert result["n"] == 3
    assert (result["iou_visible"], result["iou_full"]) == pytest.approx((0.9, 1.69 / 3))
    ism, cls = result["scores"]["iou_scores"], result["scores"]["cls_scores"]
    # (-0.1, 0, 0.1) against (0.64, 0.45, 0.6), whose squared differences to the mean sum to 0.0200667.
    against = -0.004 / (0.02 * 0.0200667) ** 0.5
    assert ism["full"]["pearson"] == pytest.approx(1) and ism["visible"]["pearson"] == pytest.approx(against, abs=1e-4)
    assert cls["visible"]["pearson"] == pytest.approx(1) and cls["full"]["pearson"] == pytest.approx(against, abs=1e-4)
    assert ism["visible_minus_full"]["difference"] == pytest.approx(against - 1, abs=1e-4)
    assert cls["visible_minus_full"]["difference"] == pytest.approx(1 - against, abs=1e-4)
    assert ism["full"]["error"] == pytest.approx(0, abs=1e-6)
    assert ism["visible"]["error"] == pytest.approx((0.16 + 0.45 + 0.4) / 3)
    assert ism["mean"] == pytest.approx(1.69 / 3)
    # Only objects that are cut by more than this count.
    assert overall_appearance(found, coco, min_truncation=0.3, samples=5)["n"] == 2


def test_nothing_to_measure() -> None:
    coco, found = scene([0.0, 0.0], [0.9, 0.9], [0.8, 0.5], occlusion=0.0, full_bbox=[0, 0, 10, 10])
    none_cut = overall_appearance(found, coco, samples=5)
    assert none_cut["n"] == 0 and none_cut["iou_full"] is None
    assert none_cut["scores"]["iou_scores"]["visible_minus_full"]["difference"] is None
    for given, against in (([], coco), (found, {**coco, "annotations": []})):
        assert overall_appearance(given, against, samples=5)["n"] == 0
        result = score_by_completeness(given, against, samples=5)
        assert {cell["n"] for cell in result["cells"]} == {0}
        assert all(row["scores"]["scores"]["difference"] is None for row in result["at_equal_iou"])
        assert {group["n"] for group in score_by_truncation(given, against)} == {0}


def test_nan_scores_are_left_out() -> None:
    coco, found = scene([0, 0, 0.5], [0.9, 0.9, 0.9], [0.8, torch.nan, 0.7], occlusion=0.0)
    result = score_by_completeness(found, coco, edges=(0.0, 1.0), samples=5)
    assert result["at_equal_iou"][0]["scores"]["scores"]["difference"] == pytest.approx(-0.1)
    assert [(c["n"], c["scores"]) for c in result["cells"] if c["n"]] == [
        (2, pytest.approx(0.8)),
        (1, pytest.approx(0.7)),
    ]
    assert score_by_truncation(found, coco)[0]["scores"] == pytest.approx(0.8)


def test_data_without_the_keys() -> None:
    coco, found = scene([0.5], [0.9], [0.8])
    with pytest.raises(UserError, match="annotation of image 1 without 'full_bbox'"):
        overall_appearance(found, coco)
    for by in ("occlusion", "truncated", "either"):
        with pytest.raises(UserError, match="without"):
            score_by_completeness(found, coco, by=by)  # type: ignore[arg-type]
