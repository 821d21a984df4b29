"""What a detector costs: parameters in the authors' layout, multiply-adds, and torch's blind spots."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import deform_conv2d, roi_align

from cpm_lib import complexity, presets


def test_the_main_configuration_has_the_authors_number_of_values() -> None:
    described = complexity.describe(presets.get("cpm"), num_classes=81)
    assert described["parameters_with_anchors"] == 153_888_650
    assert round(described["parameters"] / 1e6, 1) == 153.9


def test_multiply_adds_of_the_parts() -> None:
    gmac = complexity.describe(presets.get("cpm"))["gmac"]
    # 3x3 convolutions with 256 channels over P2..P6, and two more 1x1 ones, of 800 x 1344 pixels
    cells = sum((800 // s) * (1344 // s) for s in (4, 8, 16, 32)) + 13 * 21
    assert gmac["RPN"] == pytest.approx(cells * (256 * 256 * 9 + 256 * 15) / 1e9)
    fully_connected = 1000 * (12544 * 1024 + 1024 * 1024 + 1024 * 81) / 1e9
    pooling = 1000 * 256 * 49 * 16 / 1e9
    assert gmac["classification"] == pytest.approx(fully_connected + pooling)
    assert gmac["grid stage 1"] == gmac["grid stage 3"]


def test_operators_torch_does_not_know() -> None:
    maps, rois = torch.zeros(2, 8, 16, 16), torch.zeros(5, 5)
    assert complexity.count_flops(roi_align, maps, rois, 7, 1.0, 2) == 2 * 5 * 8 * 49 * 16
    weight, offset = torch.zeros(6, 4, 3, 3), torch.zeros(2, 18, 16, 16)
    counted = complexity.count_flops(lambda: deform_conv2d(maps, offset, weight, padding=1))
    assert counted == 2 * (2 * 256) * 9 * (6 * 4 + 4 * 8)


@pytest.mark.parametrize("preset", ["faster", "cascade-ism-rsm", "grid-fused", "cpm-x101-dcn"])
def test_other_presets(preset: str) -> None:
    described = complexity.describe(presets.get(preset), size=(128, 128))
    assert described["total_gmac"] == pytest.approx(sum(described["gmac"].values()))
    assert all(value > 0 for value in described["gmac"].values())
