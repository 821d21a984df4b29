"""The authors' key names, and what they tell about a model; nothing else in the library knows them (facts 11.2, 12)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpm_lib import presets
from cpm_lib.config import Config
from cpm_lib.errors import UserError

_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_CLASSES = tuple(_COCO.split(","))
"""COCO's names in the order of its category ids."""

NORM_GROUPS = 36
"""Groups of the grid branch's GroupNorms in all of the authors' configurations; no file tells them."""


def official_name(name: str, config: Config) -> str:
    """The authors' name of one of our keys (facts 11.2, 12.1).

    Raises:
        UserError: their code has no such part.
    """
    for ours, theirs in _prefixes(config):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise UserError(f"'{name}' has no counterpart in the authors' code; they have CPM R-CNN and Cascade R-CNN only")


def _prefixes(config: Config) -> list[tuple[str, str]]:
    """(ours, theirs) beginnings of keys; what follows is the same."""
    pairs = [("backbone.body.", "Conv_Body."), ("proposals.head.conv.0.0.", "RPN.head.conv.")]
    pairs += [(f"proposals.head.{part}.", f"RPN.head.{part}.") for part in ("cls_logits", "bbox_pred")]
    for blocks, way in (("inner_blocks", "in"), ("layer_blocks", "out")):
        # Ours count from P2 upwards, theirs from P4 downwards, with names of their own for P5.
        pairs += [(f"backbone.fpn.{blocks}.3.0.", f"Conv_Body_FPN.p5_{way}.")]
        pairs += [(f"backbone.fpn.{blocks}.{i}.0.", f"Conv_Body_FPN.fpn_{way}.{2 - i}.") for i in range(3)]
    if config.detector == "faster" or config.grid.head == "original":
        return pairs
    stages, cascade = config.cascade.stages, config.detector == "cascade"
    root = "Cascade_RCNN." if cascade else "Grid_Cascade_RCNN."
    heads = [("resampling.classifier.", "Head_rescore.", "Output_rescore.")]
    if cascade:
        heads += [("classification.classifier.", "Box_Head_1.", "Output_1.")]
        heads += [(f"later.{s}.", f"Box_Head_{s + 2}.", f"Output_{s + 2}.") for s in range(stages - 1)]
        pairs += [(f"regressors.{s}.", f"{root}Output_{s + 1}.bbox_pred.") for s in range(stages)]
    else:
        heads += [("classification.classifier.", "Head_cls.", "Output_cls.")]
        for s in range(stages):
            head, out, ours = f"{root}Head_grid_{s}.", f"{root}Output_grid_{s}.", f"cascade.stages.{s}."
            pairs += [(f"{ours}convs.", f"{head}convs."), (f"{ours}upsample.deconv1.", f"{out}deconv_1.")]
            pairs += [(f"{ours}upsample.norm.", f"{out}norm1."), (f"{ours}upsample.deconv2.", f"{out}deconv_2.")]
            pairs += [
                (f"{ours}fusion.first.", f"{head}forder_trans."),
                (f"{ours}fusion.second.", f"{head}sorder_trans."),
            ]
    for ours, head, out in heads:
        pairs += [(f"{ours}head.", root + head), (f"{ours}predictor.", f"{root}{out}cls_score.")]
    last = f"{root}Output_{stages}." if cascade else f"{root}Output_grid_{stages - 1}."
    return pairs + [(f"iou_scoring.{a}.", f"{last}iou_{b}.") for a, b in
                    (("fc1", "fc1"), ("fc2", "fc2"), ("predictor", "pred"))]  # fmt: skip


def recognise(
    state: Mapping[str, Tensor], preset: str | None, path: Path
) -> tuple[Config, tuple[str, ...], tuple[str, ...]]:
    """Configuration, class names, and the settings in which the file is not its preset."""

    def shape(key: str) -> torch.Size:
        if key not in state:
            raise UserError(f"{path}: '{key}' is missing, so the model cannot be recognised; is it the authors' file?")
        return state[key].shape

    def numbers(pattern: str) -> int:
        return len({found[1] for found in map(re.compile(pattern).match, state) if found})

    cascade = any(key.startswith("Cascade_RCNN.") for key in state)
    root = "Cascade_RCNN." if cascade else "Grid_Cascade_RCNN."
    head, output = ("Box_Head_1", "Output_1") if cascade else ("Head_cls", "Output_cls")
    classes = shape(f"{root}{output}.cls_score.weight")[0]
    conv2 = shape("Conv_Body.layer1.0.conv2.weight")
    depth = numbers(r"Conv_Body\.layer3\.(\d+)\.")
    bodies = {(6, 64, 64): "resnet50", (23, 64, 64): "resnet101", (23, 256, 4): "resnext101_64x4d"}
    if (depth, *conv2[:2]) not in bodies:
        raise UserError(
            f"{path}: a body of {depth} blocks in layer3 with 3x3 kernels of {list(conv2)} is none of "
            f"{', '.join(bodies.values())}"
        )
    stages = numbers(re.escape(root) + (r"Box_Head_(\d+)\." if cascade else r"Head_grid_(\d+)\."))
    structure: dict[str, Any] = {
        "backbone.name": bodies[(depth, *conv2[:2])],
        "backbone.deformable": any(".conv2.conv_offset." in key for key in state),
        "cascade.stages": stages,
        "scoring.ism": any(".iou_pred." in key for key in state),
        "scoring.rsm": any(".Output_rescore." in key for key in state),
        "grid.fusion": any(".forder_trans." in key for key in state),
    }
    sizes: dict[str, Any] = {
        "backbone.fpn_channels": shape("Conv_Body_FPN.p5_in.weight")[0],
        "classification.hidden": shape(f"{root}{head}.fc6.weight")[0],
    }
    if not cascade:
        points = shape(f"{root}Output_grid_0.deconv_2.bias")[0]
        sizes["grid.points"] = math.isqrt(points)
        sizes["grid.channels_per_point"] = shape(f"{root}Output_grid_0.deconv_1.weight")[1]
        sizes["grid.convs"] = numbers(re.escape(root) + r"Head_grid_0\.convs\.(\d+)\.")
        if points * sizes["grid.channels_per_point"] % NORM_GROUPS:
            raise UserError(f"{path}: its grid branch cannot have the authors' {NORM_GROUPS} GroupNorm groups")
    config = presets.get(preset or _nearest_preset(structure, cascade), conventions="official")
    differs = tuple(name for name, value in structure.items() if _setting(config, name) != value)
    if preset is not None and (differs or (config.detector == "cascade") != cascade):
        what = ", ".join(f"{name}={structure[name]}" for name in differs) or root.strip("._")
        raise UserError(f"{path}: is not '{preset}': the file has {what}; leave out --preset to have it recognised")
    plain = not (structure["scoring.ism"] or structure["scoring.rsm"])
    if stages != config.cascade.stages:
        structure["cascade.mapping_ratios"] = [1 + 0.5**s for s in range(stages)]
        structure["cascade.iou_thresholds"] = [0.5 + 0.1 * s for s in range(stages)]
        structure["cascade.stage_weights"] = [0.5**s for s in range(stages)]
    del structure["cascade.stages"]
    if preset is None and not cascade:
        structure["detector"] = "grid" if stages == 1 and plain else "cpm"
    names = COCO_CLASSES if classes == len(COCO_CLASSES) + 1 else tuple(f"class {k}" for k in range(1, classes))
    return config.override(structure | sizes), names, differs


def _nearest_preset(structure: Mapping[str, Any], cascade: bool) -> str:
    """The first preset that agrees with the file in most settings."""

    def agreement(name: str) -> int:
        config = presets.get(name, conventions="official")
        if config.grid.head == "original" or config.detector == "faster" or (config.detector == "cascade") != cascade:
            return -1
        return sum(_setting(config, key) == value for key, value in structure.items())

    return max(presets.PRESETS, key=agreement)


def _setting(config: Config, name: str) -> Any:
    part, _, field = name.partition(".")
    return getattr(getattr(config, part), field)
