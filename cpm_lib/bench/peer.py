"""torchvision's Faster R-CNN at the sizes of one of our configurations: what every speed is compared with."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.misc import FrozenBatchNorm2d

from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model.backbone import STRIDES, Backbone

NAME = "torchvision"

_FPN_CHANNELS = 256


def build(config: Config, num_classes: int, size: tuple[int, int]) -> FasterRCNN:
    """torchvision's detector with random weights, and the numbers of `config` wherever it has such a number.

    At the paper's size these are torchvision's own defaults, so that this is its `fasterrcnn_resnet50_fpn` (with
    frozen norms and the last three layers trained, as it is with COCO weights) under another number of classes.
    A slim backbone, which torchvision does not have, is ours in its interface.

    Args:
        size: (height, width) of the images; they are not resized.

    Raises:
        UserError: a backbone that torchvision does not have: deformable, or under a pyramid of another width.
    """
    if config.backbone.deformable:
        raise UserError(f"{config.preset}: torchvision has no deformable backbone; compare with --against PRESET")
    proposals, classification = config.proposals, config.classification
    backbone = _Slim(config) if config.backbone.name == "slim" else _resnet(config)
    if config.solver.channels_last:
        backbone = backbone.to(memory_format=torch.channels_last)
    channels = config.backbone.fpn_channels
    return FasterRCNN(
        backbone,
        min_size=min(size),
        max_size=max(size),
        size_divisible=config.input.size_divisor,
        rpn_anchor_generator=AnchorGenerator(
            tuple((proposals.anchor_scale * stride,) for stride in STRIDES), (proposals.ratios,) * len(STRIDES)
        ),
        rpn_pre_nms_top_n_train=proposals.pre_nms_train,
        rpn_pre_nms_top_n_test=proposals.pre_nms_test,
        rpn_post_nms_top_n_train=proposals.post_nms_train,
        rpn_post_nms_top_n_test=proposals.post_nms_test,
        rpn_nms_thresh=proposals.nms_iou,
        rpn_batch_size_per_image=proposals.anchors_per_image,
        rpn_positive_fraction=proposals.positive_fraction,
        box_roi_pool=MultiScaleRoIAlign(
            ["0", "1", "2", "3"], 7, sampling_ratio=2, canonical_scale=int(classification.canonical_size)
        ),
        box_head=TwoMLPHead(channels * 7 * 7, classification.hidden),
        box_predictor=FastRCNNPredictor(classification.hidden, num_classes),
        box_score_thresh=classification.score_threshold,
        box_nms_thresh=classification.nms_iou,
        box_detections_per_img=classification.detections_per_image,
        box_fg_iou_thresh=classification.positive_iou,
        box_bg_iou_thresh=classification.positive_iou,
        box_batch_size_per_image=classification.rois_per_image,
        box_positive_fraction=classification.positive_fraction,
    )


def _resnet(config: Config) -> nn.Module:
    channels = config.backbone.fpn_channels
    if channels != _FPN_CHANNELS:
        raise UserError(
            f"backbone.fpn_channels is {channels}: torchvision's {config.backbone.name} has {_FPN_CHANNELS}; "
            "compare with --against PRESET"
        )
    return resnet_fpn_backbone(
        backbone_name=config.backbone.name,
        weights=None,
        norm_layer=FrozenBatchNorm2d if config.backbone.norm == "frozen" else nn.BatchNorm2d,
        trainable_layers=5 - config.backbone.frozen_layers,
    )


class _Slim(nn.Module):
    """Our backbone with torchvision's names for the maps."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.backbone = Backbone(config.backbone)
        self.out_channels = config.backbone.fpn_channels

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(zip(("0", "1", "2", "3", "pool"), self.backbone(pixels), strict=True))
