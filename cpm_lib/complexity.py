"""Parameters, multiply-adds and memory of a detector, part by part, without running it on data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cpm_lib.config import Config
from cpm_lib.model import build_model
from cpm_lib.model.backbone import STRIDES
from cpm_lib.model.cpm_rcnn import CPMRCNN
from cpm_lib.model.detector import Detector
from cpm_lib.model.grid_branch import POOL_SIZE, GridBranch


def roi_align_flops(
    features: tuple[int, ...], rois: tuple[int, ...], scale: float, height: int, width: int, samples: int,
    *_: Any, out_shape: Any = None, **__: Any,
) -> int:  # fmt: skip
    """Operations of RoIAlign: four multiply-adds per sample, channel and bin (shapes, not tensors)."""
    return 2 * 4 * samples * samples * height * width * rois[0] * features[1]


def deform_conv_flops(features: tuple[int, ...], weight: tuple[int, ...], *_: Any, out_shape: Any, **__: Any) -> int:
    """Operations of a deformable convolution: the convolution, and four multiply-adds per sampled value."""
    outputs, per_group, kernel_height, kernel_width = weight
    batch, _, height, width = out_shape
    places = batch * height * width
    taps = kernel_height * kernel_width
    return 2 * places * taps * (outputs * per_group + 4 * features[1])


UNKNOWN_TO_TORCH: dict[Any, Callable[..., int]] = {
    torch.ops.torchvision.roi_align: roi_align_flops,
    torch.ops.torchvision.deform_conv2d: deform_conv_flops,
}
"""Formulas for torch's counter, which has none for torchvision's operators."""


def count_flops(function: Callable[..., Any], *inputs: Any) -> int:
    """Floating point operations of one call; a multiply-add counts 2."""
    counter = FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_TORCH)
    with counter, torch.no_grad():
        function(*inputs)
    return counter.get_total_flops()


def parameters(model: nn.Module) -> int:
    """Values in the authors' layout: parameters, and frozen norms as one gain and bias per channel (facts 12)."""
    values = sum(p.numel() for p in model.parameters())
    return values + sum(b.numel() for name, b in model.named_buffers() if name.endswith((".weight", ".bias")))


def anchor_values(config: Config) -> int:
    """Numbers in the anchor buffers of an authors' checkpoint, which belong to its total."""
    return len(STRIDES) * len(config.proposals.ratios) * 4


def describe(config: Config, num_classes: int = 81, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Cost of one image.

    Args:
        size: (height, width) of the network input; default short side `test_size`, long side `max_size`,
            rounded up to a multiple of 32.

    Returns:
        ``parameters``, ``parameters_with_anchors`` (the authors' file also stores the anchors), ``gmac`` {part:
        10^9 multiply-adds}, ``total_gmac``, ``rois`` {part: number assumed}, ``weights_mb`` (float32),
        ``input`` [height, width].
    """
    with torch.device("meta"):
        model = build_model(config.override({"backbone.pretrained": False}), num_classes).eval()
    height, width = size or tuple(-(-s // 32) * 32 for s in (config.input.test_size, config.input.max_size))
    flops, rois = _parts(model, config, height, width)
    gmac = {part: value / 2e9 for part, value in flops.items()}
    number = parameters(model)
    return {
        "preset": config.preset,
        "profile": config.profile,
        "input": [height, width],
        "parameters": number,
        "parameters_with_anchors": number + anchor_values(config),
        "weights_mb": number * 4 / 2**20,
        "gmac": gmac,
        "total_gmac": sum(gmac.values()),
        "rois": rois,
    }


def _parts(model: Detector, config: Config, height: int, width: int) -> tuple[dict[str, int], dict[str, int]]:
    channels, proposals = config.backbone.fpn_channels, config.proposals.post_nms_test
    detections = config.conventions.rois_at_test or config.classification.detections_per_image

    def empty(*shape: int) -> Tensor:
        return torch.empty(*shape, device="meta")

    def pooled(number: int, size: int) -> tuple[int, Tensor]:
        shapes = ((1, channels, height // 8, width // 8), (number, 5))
        return roi_align_flops(*shapes, 1 / 8, size, size, 2), empty(number, channels, size, size)

    pixels = empty(1, 3, height, width)
    body = [empty(*maps.shape) for maps in model.backbone.body_maps(pixels)]
    pyramid = [empty(1, channels, -(-height // s), -(-width // s)) for s in STRIDES]
    flops = {
        "backbone": count_flops(model.backbone.body_maps, pixels),
        "FPN": count_flops(model.backbone.fpn, {str(k): maps for k, maps in enumerate(body)}),
        "RPN": count_flops(model.proposals.head, pyramid),
    }
    rois = {}

    def classifier_flops(classifier: nn.Module, number: int) -> int:
        pooling, maps = pooled(number, 7)
        return pooling + count_flops(nn.Sequential(classifier.head, classifier.predictor), maps)  # type: ignore[arg-type]

    flops["classification"] = classifier_flops(model.classification.classifier, proposals)  # type: ignore[union-attr,arg-type]
    rois["classification"] = proposals
    if isinstance(model, CPMRCNN):
        for stage, branch in enumerate(model.cascade.stages, start=1):
            assert isinstance(branch, GridBranch)
            pooling, maps = pooled(detections, POOL_SIZE)
            flops[f"grid stage {stage}"] = pooling + count_flops(branch, maps)
            rois[f"grid stage {stage}"] = detections
        if model.iou_scoring is not None:
            features = empty(detections, model.cascade.stages[-1].feature_size)  # type: ignore[arg-type]
            flops["ISM"] = count_flops(model.iou_scoring, features)
            rois["ISM"] = detections
    else:
        for stage, classifier in enumerate(getattr(model, "later", ()), start=2):
            flops[f"box stage {stage}"] = classifier_flops(classifier, proposals)
            rois[f"box stage {stage}"] = proposals
        if getattr(model, "iou_scoring", None) is not None:
            flops["ISM"] = count_flops(model.iou_scoring, empty(proposals, config.classification.hidden))  # type: ignore[arg-type]
            rois["ISM"] = proposals
    resampling = getattr(model, "resampling", None)
    if resampling is not None:
        flops["RSM"] = classifier_flops(resampling.classifier, detections)
        rois["RSM"] = detections
    return flops, rois
