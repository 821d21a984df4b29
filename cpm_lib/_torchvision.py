"""The only importer of torchvision's private helpers, and the one switch for the CPU's RoIAlign.

`torchvision.models.detection._utils` is private and may move; whoever repairs that does it here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import roi_align as _roi_align

__all__ = ["FAST_CPU", "Matcher", "RPNHead", "roi_align"]

FAST_CPU = True
"""Whether RoIAlign on the CPU gathers rows of a channels-last map (`gathered_roi_align`); False: torchvision always."""


def roi_align(features: Tensor, rois: Tensor, output_size: int, spatial_scale: float, sampling_ratio: int) -> Tensor:
    """RoIAlign without half-pixel shift (facts 4).

    Args:
        features: [B, C, H, W].
        rois: [R, 5], image index then x1, y1, x2, y2 in pixels of the network input.

    Returns:
        [R, C, output_size, output_size]
    """
    # In float32 on every device: a coordinate in bfloat16 would be off by several pixels.
    features, rois = features.float(), rois.float()
    if FAST_CPU and features.device.type == "cpu" and sampling_ratio > 0 and len(rois):
        return gathered_roi_align(features, rois, output_size, spatial_scale, sampling_ratio)
    return _roi_align(features, rois, output_size, spatial_scale, sampling_ratio, aligned=False)


def gathered_roi_align(
    features: Tensor, rois: Tensor, output_size: int, spatial_scale: float, sampling_ratio: int
) -> Tensor:
    """`roi_align` as weighted sums of whole pixels: every bin adds 2 x 2 pixels for each of its sampling points.

    In a channels-last map all channels of a pixel lie together, so that the CPU reads them as one row and needs no
    address per channel, in which torchvision's kernel spends its time. Equal to it up to rounding; the result is
    channels-last too.
    """
    _, channels, height, width = features.shape
    pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)
    boxes = rois[:, 1:] * spatial_scale
    rows, row_weights = _neighbours(boxes[:, 1], boxes[:, 3], height, output_size, sampling_ratio)
    columns, column_weights = _neighbours(boxes[:, 0], boxes[:, 2], width, output_size, sampling_ratio)
    first_row = rois[:, 0].long()[:, None, None] * height
    index = ((first_row + rows) * width)[:, :, None, :, None] + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    terms = (2 * sampling_ratio) ** 2
    bins = F.embedding_bag(
        index.reshape(-1, terms), pixels, per_sample_weights=weights.reshape(-1, terms), mode="sum"
    )  # fmt: skip
    return bins.view(len(rois), output_size, output_size, channels).permute(0, 3, 1, 2)


def _neighbours(low: Tensor, high: Tensor, size: int, bins: int, samples: int) -> tuple[Tensor, Tensor]:
    """Cells below and above each sampling point along one axis, and their shares of the bin, [R, bins, 2 * samples]."""
    bin_length = ((high - low).clamp(min=1.0) / bins)[:, None, None]
    bin_number = torch.arange(bins, device=low.device)[:, None]
    sample = torch.arange(samples, device=low.device) + 0.5
    # In the compiled kernel's order of operations: another order moves the coordinates by a rounding error.
    at = low[:, None, None] + bin_number * bin_length + sample * bin_length / samples
    inside = (at >= -1.0) & (at <= size)
    at = at.clamp(0, size - 1)
    # Boxes that are not numbers read cell 0 with a share that is not a number.
    below = at.nan_to_num(nan=0.0).floor()
    share = at - below
    cells = torch.stack((below, (below + 1).clamp(max=size - 1)), dim=-1).long()
    shares = torch.stack((1 - share, share), dim=-1) * inside[..., None] / samples
    return cells.flatten(2), shares.flatten(2)
