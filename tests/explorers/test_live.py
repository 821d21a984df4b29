"""Live controls: moved without a browser, they show what the library computes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torchvision.ops import batched_nms

from cpm_lib import evaluation
from cpm_lib.boxes import extend_regions
from cpm_lib.errors import UserError
from cpm_lib.explorers import live
from cpm_lib.model.fused_score import soft_nms
from tests.evaluation.samples import make
from tests.explorers.test_gamma import opened, scored
from tests.explorers.test_nms import boxes

PNG = b"\x89PNG"


def test_gamma_evaluates_anew(tmp_path: Path) -> None:
    coco, detections = make(images=8)
    dataset, detections = opened(tmp_path, coco), scored(detections)
    panel = live.gamma(detections, dataset)
    slider, picture, words = panel.children
    for value in (0.8, 0.25, 0.0):
        before = bytes(picture.value)
        slider.value = value
        expected = evaluation.evaluate(evaluation.rescore(detections, "fused", value), dataset)
        assert f"fused, gamma {value:g}" in words.value
        for name in ("AP", "AP50", "AP75"):
            assert f"<td>{expected[name]:.2f}</td>" in words.value
        assert bytes(picture.value).startswith(PNG)
        assert value == 0.8 or bytes(picture.value) != before
    by_class = evaluation.evaluate(evaluation.rescore(detections, "cls", 1.0), dataset)
    assert f"<td>{by_class['AP']:.2f}</td>" in words.value


def test_mapping_moves_the_region() -> None:
    image = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0))
    proposal, truth = torch.tensor([20.0, 30, 80, 70]), torch.tensor([30.0, 24, 92, 80])
    panel = live.mapping(image, proposal, truth)
    ratio, right, _, picture, words = panel.children
    assert "9 of 9 grid points" in words.value
    before = picture.value
    ratio.value, right.value = 1.0, -20.0
    left, top, *_ = extend_regions(proposal[None] - torch.tensor([20.0, 0, 20, 0]), 1.0)[0].tolist()
    assert f"from {left:.1f}, {top:.1f}" in words.value
    assert "9 of 9 grid points" not in words.value
    assert picture.value != before


def test_nms_keeps_what_the_library_keeps() -> None:
    found, scores, labels = boxes(20)
    panel = live.nms(found, scores, labels, classes=("disk", "star"))
    kind, threshold, sigma, picture, words = panel.children
    before = picture.value
    for limit in (0.3, 0.7):
        threshold.value = limit
        keep = batched_nms(found.float(), scores.float(), labels, limit)
        assert f"{len(keep)} of 20 boxes are kept" in words.value
    assert picture.value != before
    kind.value, sigma.value = "gaussian", 0.2
    keep, left = soft_nms(found, scores, labels, "gaussian", 0.7, 0.2)
    assert f"{len(keep)} of 20 boxes" in words.value
    for score in left[:5].tolist():
        assert f"<td>{score:.3f}</td>" in words.value


def test_nothing_to_suppress() -> None:
    *_, words = live.nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long()).children
    assert "0 of 0 boxes" in words.value


def test_missing_ipywidgets_and_missing_scores_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    coco, detections = make(images=2)
    with pytest.raises(UserError, match="without RSM score"):
        live.gamma(detections, opened(tmp_path, coco))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(UserError, match="pip install ipywidgets"):
        live.nms(*boxes(3))
