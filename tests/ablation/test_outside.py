"""torchvision's Faster R-CNN as an outside check: the same weights find the same, and it trains repeatably."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cpm_lib import evaluation, presets
from cpm_lib.ablation.outside import Outside
from cpm_lib.data import open_source
from cpm_lib.training import checkpoint

TRUNK = Path(__file__).resolve().parents[2] / "data/checkpoints/trunk.safetensors"


@pytest.fixture
def outside() -> Outside:
    model = Outside(presets.get("faster", "quick"), 7)
    model.load_trunk(TRUNK)
    return model


def test_the_same_weights_find_the_same_boxes(outside: Outside) -> None:
    data = open_source("shapes:smoke:val")
    ours = evaluation.predict(checkpoint.load(TRUNK), data)
    theirs = evaluation.predict(outside.eval(), data)
    assert sum(len(found["scores"]) for found in ours) > 20
    for one, other in zip(ours, theirs, strict=True):
        # Candidates below the threshold of one by rounding may be above it of the other, so the sure ones only.
        sure, order = one["scores"] > 0.1, other["scores"] > 0.1
        assert one["labels"][sure].tolist() == other["labels"][order].tolist()
        torch.testing.assert_close(one["boxes"][sure], other["boxes"][order], rtol=0, atol=0.02)
        torch.testing.assert_close(one["scores"][sure], other["scores"][order], rtol=0, atol=1e-3)


def test_a_training_pass_depends_on_seed_and_iteration_alone(outside: Outside) -> None:
    data = open_source("shapes:smoke:train")
    images, targets = zip(*(data[number] for number in range(2)), strict=True)
    losses = []
    for iteration in (3, 3, 4):
        outside.train().sampling.set(0, iteration)
        losses.append(torch.stack(list(outside(list(images), list(targets)).values())))
    assert losses[0].equal(losses[1])
    assert not losses[0].equal(losses[2])
    losses[0].sum().backward()
    assert outside.detector.roi_heads.box_predictor.bbox_pred.weight.grad is not None
