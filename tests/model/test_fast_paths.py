"""The whole detector with and without the CPU's fast paths."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from cpm_lib import _torchvision, presets
from cpm_lib.bench import switches
from cpm_lib.bench.case import Running, forced
from cpm_lib.config import Config
from cpm_lib.model import backbone, fast_convs, strided_gradient, winograd

# Narrow, but for the grid branch, whose width decides about its convolutions.
SETTINGS = {
    "backbone.name": "resnet50",
    "backbone.norm": "frozen",
    "backbone.frozen_layers": 2,
    "grid.channels_per_point": 32,
    "grid.convs": 3,
    "grid.norm_groups": 36,
}


def config() -> Config:
    return presets.get("cpm", "smoke").override(SETTINGS)


def test_detections_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_convs, "SMALL_MAPS_TILES", 1)
    running = Running(forced(config(), "inference", 12, size=(64, 96)))
    (fast,) = running.detect()
    with switches.without():
        (slow,) = running.detect()
    assert fast.keys() == slow.keys() and len(fast["boxes"]) == 12
    assert torch.equal(fast["labels"], slow["labels"])
    distance = (fast["stage_boxes"] - slow["stage_boxes"]).abs()
    assert float(distance.median()) < 1e-3 and float(distance.max()) < 0.25
    for key in ("cls_scores", "iou_scores", "rsm_scores", "scores"):
        torch.testing.assert_close(fast[key], slow[key], rtol=1e-4, atol=1e-5)


def test_losses_and_gradients_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    # Such a processor, and no map too small.
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(fast_convs, "SMALL_MAPS_TILES", 1)
    monkeypatch.setattr(fast_convs, "LARGE_MAPS_PIXELS", 1)
    wide = config().override({"backbone.fpn_channels": 128})
    used = {winograd.winograd_weight_gradient: 0, strided_gradient.strided_weight_gradient: 0}
    for function in used:

        def counted(*arguments: Any, function: Any = function) -> torch.Tensor:
            used[function] += 1
            return function(*arguments)

        monkeypatch.setattr(sys.modules[function.__module__], function.__name__, counted)

    def step() -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        running = Running(forced(wide, "training", 4, size=(64, 96)))
        losses = running.step()
        gradients = {name: p.grad for name, p in running.model.named_parameters() if p.grad is not None}
        return {name: float(loss.detach()) for name, loss in losses.items()}, gradients

    losses, gradients = step()
    assert all(used.values())
    with switches.without():
        plain_losses, plain_gradients = step()
    assert losses == pytest.approx(plain_losses, rel=1e-5, abs=1e-7)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in plain_gradients.items():
        assert (gradients[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-7, name


def test_folded_affines_keep_their_place_in_checkpoints() -> None:
    model = backbone.Backbone(config().backbone)
    names = set(model.state_dict())
    assert {"body.conv1.weight", "body.bn1.weight", "body.bn1.bias", "body.layer1.0.downsample.1.bias"} <= names
    assert not [name for name in names if "affine" in name]
    affine, conv = model.body.bn1, model.body.conv1
    affine.weight.fill_(2.0)
    affine.bias.fill_(-1.0)
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(
        affine(conv(pixels)), 2 * torch.nn.functional.conv2d(pixels, conv.weight, stride=2, padding=3) - 1
    )


def test_boxes_that_are_not_numbers_come_out_as_such() -> None:
    rois = torch.tensor([[0.0, 1.0, 1.0, 9.0, 9.0], [0.0, float("nan"), 1.0, 9.0, 9.0]])
    pooled = _torchvision.roi_align(torch.ones(1, 2, 8, 8), rois, 7, 0.5, sampling_ratio=2)
    assert pooled[0].isfinite().all() and pooled[1].isnan().all()
