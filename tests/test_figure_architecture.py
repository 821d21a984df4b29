"""Figure 2 from a forward pass: shapes are those of the configuration, for every size and number of stages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cpm_lib import build_model, presets
from cpm_lib.errors import UserError
from cpm_lib.figure_architecture import architecture, traced_shapes
from cpm_lib.model.cpm_rcnn import CPMRCNN

CLASSES = 6
SMALL: dict[str, Any] = {
    "input.test_size": 64,
    "input.max_size": 96,
    "conventions.rois_at_test": 2,
    "proposals.post_nms_test": 20,
}
"""The work of a forward pass, not the widths of its layers."""


def detector(preset: str, profile: str) -> Any:
    torch.manual_seed(0)
    change = SMALL if profile in ("gpu", "paper") else {}
    return build_model(presets.get(preset, profile).override(change), CLASSES)


@pytest.mark.parametrize("profile", ["smoke", "quick", "gpu", "paper"])
def test_shapes_are_those_of_the_configuration(profile: str) -> None:
    model = detector("cpm", profile)
    config = model.config
    shapes = traced_shapes(model, torch.rand(3, 80, 100))
    width, points = config.grid.points**2 * config.grid.channels_per_point, config.grid.points**2
    pyramid, hidden = config.backbone.fpn_channels, config.classification.hidden
    height, across = shapes["pixels"][2:]
    assert shapes["pixels"][:2] == (1, 3)
    assert height % 32 == across % 32 == 0
    for level, stride in enumerate((4, 8, 16, 32), start=2):
        assert shapes[f"P{level}"] == (pyramid, height // stride, across // stride)
        assert shapes[f"C{level}"][1:] == (height // stride, across // stride)
    proposals, rois = shapes["proposals"][0], shapes["stage 1 pooled"][0]
    assert 0 < proposals <= config.proposals.post_nms_test
    assert 0 < rois <= config.conventions.rois_at_test
    assert shapes["pooled"] == (proposals, pyramid, 7, 7)
    assert shapes["hidden"] == (proposals, hidden)
    assert shapes["logits"] == (proposals, CLASSES)
    for stage in range(1, 4):
        assert shapes[f"stage {stage} pooled"] == (rois, pyramid, 14, 14)
        assert shapes[f"stage {stage} features"] == (rois, width, 7, 7)
        assert shapes[f"stage {stage} heatmaps"] == (rois, points, 28, 28)
    assert shapes["ISM input"] == shapes["stage 3 features"]
    assert shapes["ISM output"] == (rois, 2)
    assert shapes["RSM pooled"] == (rois, pyramid, 7, 7)
    assert shapes["RSM output"] == (rois, CLASSES)
    assert shapes["detections"][1] == 4


def words(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.axes[0].texts)


@pytest.mark.parametrize("preset", ["cpm", "cpm-2stage", "table1-ism-1stage", "table1-rsm-1stage", "grid-fused"])
def test_draws_every_number_of_stages(preset: str) -> None:
    model = detector(preset, "smoke")
    image = torch.rand(3, 64, 64)
    found, shapes = words(architecture(model, image)), traced_shapes(model, image)
    assert found.count("mapping ratio") == model.config.cascade.stages
    assert ("ISM\n" in found + "\n") == model.config.scoring.ism
    for shape in shapes.values():
        assert " × ".join(map(str, shape[-3:])) in found


def test_the_original_head_keeps_its_resolution() -> None:
    shapes = traced_shapes(detector("grid-original", "smoke"), torch.rand(3, 64, 64))
    assert shapes["stage 1 features"][2:] == (14, 14)
    assert shapes["stage 1 heatmaps"][2:] == (56, 56)


def test_leaves_the_model_as_it_was() -> None:
    model = detector("cpm", "smoke")
    assert isinstance(model, CPMRCNN)
    model.train()
    traced_shapes(model, torch.rand(3, 64, 64))
    assert model.training
    modules: list[nn.Module] = list(model.modules())
    assert not any(module._forward_hooks for module in modules)


def test_a_picture_without_detections() -> None:
    model = build_model(presets.get("cpm", "smoke").override({"classification.score_threshold": 0.999}), CLASSES)
    assert "0 RoIs" in words(architecture(model, torch.zeros(3, 64, 64)))


def test_other_detectors_are_refused() -> None:
    with pytest.raises(UserError, match="faster: the drawing knows"):
        architecture(detector("faster", "smoke"), torch.rand(3, 64, 64))
