"""The paired heads: nothing of the trunk moves, nothing passes between heads, and they are the library's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from cpm_lib import presets
from cpm_lib.ablation import paired
from cpm_lib.ablation.paired_heads import CHAINS, FALLING, ISM, PairedHeads
from cpm_lib.ablation.setting import Setting
from cpm_lib.data.loading import training_batches
from cpm_lib.errors import UserError
from cpm_lib.model import CPMRCNN
from cpm_lib.training import optimisation


@pytest.fixture(scope="module")
def model(setting: Setting) -> PairedHeads:
    torch.manual_seed(1)
    heads = PairedHeads(paired.paired_config("smoke"), len(setting.train.classes) + 1)
    heads.load_trunk(paired.trunk(setting))
    return heads


@pytest.fixture(scope="module")
def batch(setting: Setting) -> Any:
    return next(training_batches(setting.train, paired.paired_config("smoke"), seed=0, stop=1))


def test_every_stage_and_score_has_a_name_of_its_own(model: PairedHeads) -> None:
    stages = {name: len([box for box in model.boxes if box.rstrip("123") == name]) for name in CHAINS}
    assert stages == {"falling": 3, "constant": 2, "falling-level": 2, "constant-level": 2, "unmapped": 2}
    assert len(set(model.boxes + model.parts)) == len(model.boxes) + len(model.parts)
    assert CHAINS["falling-level"].iou_thresholds == (0.5, 0.5, 0.5)
    assert CHAINS["unmapped"].mapping_ratios == (1.0, 1.0) and FALLING.mapping_ratios == (2.0, 1.5, 1.25)


def test_heads_of_one_form_start_alike(model: PairedHeads) -> None:
    first = model.chains["falling"].stages[0].state_dict()  # type: ignore[union-attr,index]
    for name, stage in (("falling", 2), ("constant", 1), ("unmapped", 0)):
        other = model.chains[name].stages[stage].state_dict()  # type: ignore[union-attr,index]
        assert all(torch.equal(first[key], other[key]) for key in first)
    assert torch.equal(model.second.head.fc6.weight, model.resampling["falling3"].classifier.head.fc6.weight)  # type: ignore[union-attr]


def test_a_step_moves_the_heads_and_nothing_else(model: PairedHeads, batch: Any) -> None:
    optimiser = optimisation.build_optimiser(model.train(), model.config.solver)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.sampling.set(0, 1)
    losses = model(*batch)
    assert {f"loss_iou_{name}" for name in ISM} <= set(losses)
    torch.stack(list(losses.values())).sum().backward()
    optimiser.step()
    moved = {
        name.partition(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"chains", "iou_scoring", "resampling", "second", "offset"}
    model.load_state_dict(before)


def test_no_gradient_passes_from_one_head_to_another(model: PairedHeads, batch: Any) -> None:
    model.train().zero_grad()
    model.sampling.set(0, 1)
    losses = model(*batch)
    torch.stack([loss for name, loss in losses.items() if not name.startswith("loss_grid")]).sum().backward()
    assert all(parameter.grad is None for parameter in model.chains.parameters())
    losses["loss_grid_falling2"].backward()
    with_gradient = {name for name, value in model.chains.named_parameters() if value.grad is not None}
    assert with_gradient and all(name.startswith("falling.stages.1.") for name in with_gradient)


def test_chains_of_equal_threshold_train_on_the_same_rois(model: PairedHeads, batch: Any) -> None:
    model.train()
    model.sampling.set(0, 1)
    with torch.no_grad():
        prepared = model.prepare(*batch)
        features = model.backbone(prepared.pixels)
        samples = model.sample(model.proposals(features, prepared)[0], prepared)
        reached = model.train_chains(features, samples, prepared)[1]
    for one, other in (("falling2", "constant2"), ("falling-level2", "constant-level2")):
        assert torch.equal(reached[one].entering.boxes, reached[other].entering.boxes)
    assert set(reached) == set(model.boxes) - {"offset", "faster"}


def test_the_falling_chain_is_cpm_rcnn(model: PairedHeads, setting: Setting) -> None:
    """With the same weights the library's detector gives the same boxes and scores."""
    config = replace(model.config, cascade=FALLING)
    detector = CPMRCNN(config, model.num_classes)
    taken = {"chains.falling.": "cascade.", "iou_scoring.falling3-l2-output.": "iou_scoring.",
             "resampling.falling3.": "resampling."}  # fmt: skip
    weights = {}
    for name, value in model.state_dict().items():
        for prefix, own in taken.items():
            name = own + name.removeprefix(prefix) if name.startswith(prefix) else name
        weights[name] = value
    assert not detector.load_state_dict(weights, strict=False).missing_keys
    images = [setting.val[index][0] for index in range(4)]
    with torch.inference_mode():
        expected, found = detector.eval()(images), model.eval()(images)
    for one, other in zip(expected, found, strict=True):
        order = one["cls_scores"].argsort(descending=True, stable=True)
        parts = dict(zip(model.parts, other["parts"].unbind(dim=1), strict=True))
        column = [model.boxes.index(name) for name in ("falling1", "falling2", "falling3")]
        assert len(order) and torch.allclose(one["cls_scores"][order], other["scores"])
        assert torch.allclose(one["stage_boxes"][order], other["stage_boxes"][:, column], atol=1e-4)
        assert torch.allclose(one["iou_scores"][order], parts["ism-falling3-l2-output"].clamp(0, 1), atol=1e-5)
        assert torch.allclose(one["rsm_scores"][order], parts["rsm-falling3"], atol=1e-5)


def test_a_trunk_of_another_size_is_named(root: Any) -> None:
    heads = PairedHeads(presets.get("cpm", "smoke"), 7)
    with pytest.raises(UserError, match=r"trunk\.safetensors: no 'backbone\.body\.conv1\.weight' of shape \[8, 3"):
        heads.load_trunk(root / "data" / "checkpoints" / "trunk.safetensors")
