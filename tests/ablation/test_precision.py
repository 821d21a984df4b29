"""bfloat16 against float32: the record of one set of weights, and distances between two sets of boxes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cpm_lib import evaluation
from cpm_lib.ablation import precision
from cpm_lib.ablation.setting import Setting
from cpm_lib.evaluation.ground_truth import Detection


def test_the_shipped_model_in_both_precisions(setting: Setting, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = precision.record(setting)
    rows, boxes = made.metrics["rows"], made.metrics["boxes"]
    assert list(rows) == ["float32", "bfloat16"]
    change = made.differences["precision"]["bfloat16"]["AP"]
    assert change["difference"] == pytest.approx((rows["bfloat16"]["AP"] or 0.0) - (rows["float32"]["AP"] or 0.0))
    assert boxes["detections"] > 0
    assert 0 < boxes["median_px"] < 1, "bfloat16 rounds, so boxes differ, but by little"
    monkeypatch.setattr(evaluation, "predict", lambda *_, **__: pytest.fail("the record is there"))
    assert precision.record(setting) == made


def _detection(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Detection:
    return {
        "image_id": 0,
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float32),
    }


def test_distance_is_that_to_the_nearest_box_of_the_class() -> None:
    one = _detection([[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 5, 5]], [1, 2, 1], [0.9, 0.8, 0.01])
    other = _detection([[0, 0, 10, 10.5], [20, 20, 40, 40], [0, 0.2, 10, 10]], [1, 1, 1], [0.9, 0.8, 0.7])
    assert precision.box_distances([one], [other]) == {
        "median_px": pytest.approx(0.2),
        "p90_px": pytest.approx(0.2),
        "unpaired": 1,
        "detections": 2,
    }


def test_no_detections_have_no_distance() -> None:
    empty, some = _detection([], [], []), _detection([[0, 0, 10, 10]], [1], [0.9])
    assert precision.box_distances([empty], [some])["median_px"] is None
    assert precision.box_distances([some], [empty]) == {
        "median_px": None,
        "p90_px": None,
        "unpaired": 1,
        "detections": 1,
    }
