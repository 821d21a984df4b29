"""Weights by the rule of the recordings: every value from its key and position alone."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import torch
from torch import Tensor

from cpm_lib import official, presets
from cpm_lib.config import Config
from cpm_lib.model import Detector, build_model
from cpm_lib.official_names import COCO_CLASSES, official_name
from cpm_lib.training.card import Card
from cpm_lib.training.checkpoint import Weights
from tests.golden.harness import rule

NUM_CLASSES = 81
_GAINS = {
    "Conv_Body.conv1.weight": 0.006,
    "RPN.head.cls_logits.weight": 0.7,
    "RPN.head.bbox_pred.weight": 0.08,
    "Output_cls.cls_score.weight": 3.0,
    "Output_rescore.cls_score.weight": 1.0,
    "iou_pred.weight": 0.1,
    "deconv_2.weight": 4.0,
}


def fill(key: str, *shape: int) -> Tensor:
    """The tensor of a key of the authors' un-converted model."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if key.endswith("iou_pred.bias"):
        return torch.tensor([0.3, 0.7])
    if key.endswith("running_mean"):
        return rule(key, *shape, scale=0.1)
    if key.endswith("running_var"):
        return rule(key, *shape, scale=0.5, offset=1.0)
    if key.endswith(".bias"):
        return rule(key, *shape, scale=0.05)
    if len(shape) == 1:
        gain = 0.25 if ".bn3." in key else 1.0
        return rule(key, *shape, scale=0.2 * gain, offset=gain)
    fan = shape[0] / 9 * 4 if ".deconv_" in key else math.prod(shape[1:])
    gain = next((value for end, value in _GAINS.items() if key.endswith(end)), math.sqrt(2))
    return rule(key, *shape, scale=gain * math.sqrt(3 / fan))


def official_state(config: Config, num_classes: int = NUM_CLASSES) -> Weights:
    """A state dict of the authors' un-converted model, filled by the rule."""
    with torch.device("meta"):
        model = build_model(config, num_classes)
    state = {}
    for name, value in model.state_dict().items():
        key = official_name(name, config)
        # The authors' box regressors have four more rows, which nobody reads.
        shape = (8, *value.shape[1:]) if name.startswith("regressors.") else tuple(value.shape)
        state[key] = fill(key, *shape)
        if name.startswith("backbone.body.") and value.ndim == 1 and key.endswith(".weight"):
            norm = key.removesuffix("weight")
            state |= {norm + part: fill(norm + part, *shape) for part in ("running_mean", "running_var")}
    return state


@functools.lru_cache(maxsize=1)
def weights(preset: str) -> Weights:
    """Our weights of a preset, by way of the authors' names, with every BatchNorm folded."""
    config = presets.get(preset, conventions="official")
    card = Card(config, COCO_CLASSES)
    return official.from_official(official_state(config), card, Path("rule"))[0]


def filled_model(config: Config, shared: bool = True) -> Detector:
    """A detector of the preset's own shape with rule weights; `shared` tensors must not be changed."""
    with torch.device("meta"):
        model = build_model(config, NUM_CLASSES)
    values = weights(config.preset)
    model.load_state_dict(values if shared else {key: value.clone() for key, value in values.items()}, assign=True)
    return model
