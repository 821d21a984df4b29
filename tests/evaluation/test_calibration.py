"""Correlation, calibration and hysteresis of scores against cases worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cpm_lib.errors import UserError
from cpm_lib.evaluation import calibration, hysteresis, score_correlation, score_quality
from cpm_lib.evaluation.bootstrap import bootstrap_sums
from tests.evaluation.samples import annotation, detection, truth


def test_calibration_by_hand() -> None:
    """Two scores in [0.5, 0.75) with mean 0.6 over mean IoU 0.7, two in [0.75, 1] with mean 0.95 over 0.75."""
    result = calibration(torch.tensor([0.5, 0.7, 0.9, 1.0]), torch.tensor([0.8, 0.6, 0.7, 0.8]), bins=4)
    assert result["error"] == pytest.approx((2 * 0.1 + 2 * 0.2) / 4)
    assert result["bias"] == pytest.approx(0.775 - 0.725)
    empty = {"n": 0, "score": None, "iou": None}
    assert result["bins"][:2] == [{"low": 0.0, "high": 0.25, **empty}, {"low": 0.25, "high": 0.5, **empty}]
    assert result["bins"][2] == pytest.approx({"low": 0.5, "high": 0.75, "n": 2, "score": 0.6, "iou": 0.7})
    assert result["bins"][3] == pytest.approx({"low": 0.75, "high": 1.0, "n": 2, "score": 0.95, "iou": 0.75})


def test_calibration_of_raw_and_missing_scores() -> None:
    """A score above 1 or below 0 counts in the outermost bin; NaN is left out."""
    result = calibration(torch.tensor([1.5, -0.5, torch.nan]), torch.tensor([1.0, 0.0, 0.3]), bins=2)
    assert [row["n"] for row in result["bins"]] == [1, 1]
    assert result["error"] == pytest.approx(0.5) and result["bias"] == pytest.approx(0)
    assert score_correlation(torch.tensor([0.1, 0.2, torch.nan]), torch.tensor([0.1, 0.2, 0.3]))["n"] == 2
    nothing = calibration(torch.zeros(0), torch.zeros(0))
    assert nothing["error"] is None and nothing["bias"] is None and len(nothing["bins"]) == 10


shares = st.floats(0, 1, width=32)


@given(pairs=st.lists(st.tuples(shares, shares), max_size=8), bins=st.integers(1, 12))
def test_ranges(pairs: list[tuple[float, float]], bins: int) -> None:
    scores, ious = torch.tensor(pairs).reshape(-1, 2).unbind(dim=1)
    full, table = score_correlation(scores, ious, bins), calibration(scores, ious, bins)
    assert full["n"] == len(pairs) == sum(row["n"] for row in table["bins"])
    for name in ("pearson", "spearman"):
        assert full[name] is None or abs(full[name]) <= 1 + 1e-9
    if pairs:
        # The bins' gaps, weighed by their numbers, cannot cancel more than all detections together.
        assert abs(table["bias"]) - 1e-9 <= table["error"] <= 1
    if pairs and bins == 1:
        assert table["error"] == pytest.approx(abs(table["bias"]))


def bars(heights: list[float]) -> list[list[float]]:
    """Boxes whose IoU with the object [0, 0, 10, 10] is the height."""
    return [[0, 0, 10, 10 * height] for height in heights]


def cascade(**changes: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Three images with one object each: cls knows the proposal's IoU, rsm that of the final box."""
    coco = truth(*(annotation(image, 1, [0, 0, 10, 10]) for image in (1, 2, 3)), images=3)
    proposals, middle, final = bars([0.5, 0.6, 0.7]), bars([0.6, 0.7, 0.8]), bars([0.9, 0.8, 1.0])
    detections = []
    for k, (cls, rsm) in enumerate([(0.5, 0.9), (0.6, 0.8), (0.7, 1.0)]):
        parts = {
            "proposals": [proposals[k]],
            "stage_boxes": [[middle[k], final[k]]],
            "cls_scores": [cls],
            "rsm_scores": [rsm],
        }
        detections.append({**detection([final[k]], [cls], [1], k + 1, **parts), **changes})
    return coco, detections


def test_score_quality() -> None:
    coco, detections = cascade()
    result = score_quality(detections, coco, gamma=0.5)
    assert set(result) == {"cls_scores", "rsm_scores", "scores", "cls_rsm"}
    assert result["rsm_scores"]["pearson"] == pytest.approx(1)
    assert result["rsm_scores"]["calibration_error"] == pytest.approx(0, abs=1e-6)
    # (-0.1, 0, 0.1) against (0, -0.1, 0.1).
    assert result["cls_scores"]["pearson"] == pytest.approx(0.5)
    assert result["cls_scores"]["spearman"] == pytest.approx(0.5)
    assert result["cls_scores"]["bias"] == pytest.approx(0.6 - 0.9)
    assert result["cls_scores"]["calibration_error"] == pytest.approx(0.3)
    assert score_quality(detections, coco, min_iou=0.85)["cls_scores"]["n"] == 2


def test_hysteresis_by_hand() -> None:
    coco, detections = cascade()
    result = hysteresis(detections, coco, samples=200)
    assert result["n"] == 3
    assert result["iou"] == pytest.approx({"proposal": 0.6, "stage1": 0.7, "final": 0.9})
    cls, rsm = result["scores"]["cls_scores"], result["scores"]["rsm_scores"]
    assert cls["pearson"] == pytest.approx({"proposal": 1, "stage1": 1, "final": 0.5})
    assert rsm["pearson"] == pytest.approx({"proposal": 0.5, "stage1": 0.5, "final": 1})
    assert cls["final_minus_proposal"]["difference"] == pytest.approx(-0.5)
    assert rsm["final_minus_proposal"]["difference"] == pytest.approx(0.5)
    # Of three images, those draws count that hold at least two; two points lie on a line.
    assert cls["final_minus_proposal"]["low"] == pytest.approx(-2)
    assert cls["final_minus_proposal"]["high"] == pytest.approx(0)


def test_hysteresis_measures_the_proposal_against_the_object_of_the_final_box() -> None:
    """The second proposal lies on another object than its final box: it is no proposal of that object."""
    coco = truth(annotation(1, 1, [0, 0, 10, 10]), annotation(1, 1, [20, 0, 30, 10]))
    boxes, proposals = [[0, 0, 10, 9], [20, 0, 30, 10]], [[0, 0, 10, 8], [0, 0, 10, 10]]
    found = detection(boxes, [0.9, 0.8], [1, 1], proposals=proposals)
    result = hysteresis([found], coco, samples=5)
    assert result["n"] == 1 and result["iou"] == pytest.approx({"proposal": 0.8, "final": 0.9})
    everything = hysteresis([found], coco, min_iou=0, samples=5)
    assert everything["iou"] == pytest.approx({"proposal": 0.4, "final": 0.95})


def test_nothing_to_measure() -> None:
    coco, detections = cascade()
    for found, against in (([], coco), (detections, {**coco, "annotations": []})):
        result = hysteresis(found, against, samples=5)
        assert result["n"] == 0 and set(result["iou"].values()) == {None}
        assert all(row["final_minus_proposal"]["difference"] is None for row in result["scores"].values())
        quality = score_quality(found, against, min_iou=0.1)
        assert all(row["n"] == 0 and row["pearson"] is None for row in quality.values())
    same = cascade(cls_scores=torch.tensor([0.5]))[1]
    assert hysteresis(same, coco, samples=5)["scores"]["cls_scores"]["final_minus_proposal"]["difference"] is None


def test_bad_input() -> None:
    coco, detections = cascade()
    bare = [{key: value for key, value in d.items() if key != "proposals"} for d in detections]
    with pytest.raises(UserError, match="image 1: no 'proposals'"):
        hysteresis(bare, coco)
    detections[1]["stage_boxes"] = detections[1]["stage_boxes"][:, :1]
    with pytest.raises(UserError, match=r"stages"):
        hysteresis(detections, coco)


def test_bootstrap_of_sums() -> None:
    """Two images with sums 1 and 3: the draws are (1 + 1), (1 + 3) and (3 + 3) of two."""
    values = torch.tensor([[1.0, 1], [1, 1], [2, 1]])
    result = bootstrap_sums(torch.tensor([0, 1, 1]), values, lambda sums: sums[:, 0], images=2, samples=400)
    assert (result["difference"], result["low"], result["high"], result["samples"]) == (4, 2, 6, 400)
    again = bootstrap_sums(torch.tensor([0, 1, 1]), values, lambda sums: sums[:, 0], images=2, samples=400)
    assert again == result
