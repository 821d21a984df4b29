"""Crop classification gives a detector's backbone, the same one each time."""

from __future__ import annotations

import torch

from cpm_lib import presets
from cpm_lib.data import open_source
from cpm_lib.model import build_model
from cpm_lib.training.pretraining import pretrain_backbone


def test_gives_the_body_of_a_detector_and_is_repeatable() -> None:
    config, data = presets.get("cpm", "smoke"), open_source("shapes:smoke:train")
    first, accuracy = pretrain_backbone(config, data, epochs=1, batch_size=16, held_out=6)
    second, _ = pretrain_backbone(config, data, epochs=1, batch_size=16, held_out=6)
    assert 0 <= accuracy <= 1
    assert all(torch.equal(first[name], second[name]) for name in first)
    own = build_model(config, len(data.classes) + 1).state_dict()
    body = {name for name in own if name.startswith("backbone.body.")}
    assert set(first) == body
    assert all(first[name].shape == own[name].shape for name in body)
