"""The only importer of torchvision's private helpers, and the one switch for the CPU's RoIAlign.

`torchvision.models.detection._utils` is private and may move; whoever repairs that does it here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import roi_align as _roi_align

__all__ = ["FAST_CPU", "Matcher", "RPNHead", "roi_align"]

FAST_CPU = True
"""Whether RoIAlign on small CPU feature maps runs as two matrix products; False: torchvision always."""

_SMALL_MAP = 64 * 64


def roi_align(features: Tensor, rois: Tensor, output_size: int, spatial_scale: float, sampling_ratio: int) -> Tensor:
    """RoIAlign without half-pixel shift (facts 4).

    Args:
        features: [B, C, H, W].
        rois: [R, 5], image index then x1, y1, x2, y2 in pixels of the network input.

    Returns:
        [R, C, output_size, output_size]
    """
    small = features.shape[-2] * features.shape[-1] <= _SMALL_MAP
    if FAST_CPU and small and not features.is_cuda and sampling_ratio > 0 and len(rois):
        return separable_roi_align(features, rois, output_size, spatial_scale, sampling_ratio)
    # In float32 on every device: a coordinate in bfloat16 would be off by several pixels.
    return _roi_align(features.float(), rois.float(), output_size, spatial_scale, sampling_ratio, aligned=False)


def separable_roi_align(
    features: Tensor, rois: Tensor, output_size: int, spatial_scale: float, sampling_ratio: int
) -> Tensor:
    """`roi_align` as rows x map x columns: bilinear interpolation is a product of two 1-D ones.

    Its backward pass is two matrix products as well, where torchvision's CPU kernel scatters one
    value at a time. Equal to torchvision up to rounding.
    """
    _, channels, height, width = features.shape
    features = features.float()
    boxes = rois[:, 1:].float() * spatial_scale
    rows = _interpolation(boxes[:, 1], boxes[:, 3], height, output_size, sampling_ratio)
    columns = _interpolation(boxes[:, 0], boxes[:, 2], width, output_size, sampling_ratio)
    image_of = rois[:, 0].long()
    order = torch.argsort(image_of, stable=True)
    counts = torch.bincount(image_of, minlength=len(features)).tolist()
    pooled = []
    with torch.autocast(features.device.type, enabled=False):
        for image, index in enumerate(order.split(counts)):
            if not len(index):
                continue
            stretched = rows[index].reshape(-1, height) @ features[image].transpose(0, 1).reshape(height, -1)
            stretched = stretched.view(len(index), output_size * channels, width)
            both = stretched @ columns[index].transpose(1, 2)
            pooled.append(both.view(len(index), output_size, channels, output_size).transpose(1, 2))
    return torch.cat(pooled)[torch.argsort(order)]


def _interpolation(low: Tensor, high: Tensor, size: int, bins: int, samples: int) -> Tensor:
    """Weights [R, bins, size] that average `samples` linear interpolations per bin along one axis."""
    bin_length = ((high - low).clamp(min=1.0) / bins)[:, None, None]
    bin_number = torch.arange(bins, device=low.device)[:, None]
    sample = torch.arange(samples, device=low.device) + 0.5
    # In the compiled kernel's order of operations: another order moves the coordinates by a rounding error.
    at = (low[:, None, None] + bin_number * bin_length + sample * bin_length / samples).flatten(1)
    inside = (at >= -1.0) & (at <= size)
    cells = torch.arange(size, device=low.device, dtype=at.dtype)
    hat = (1 - (at.clamp(0, size - 1)[..., None] - cells).abs()).clamp(min=0) * inside[..., None]
    return hat.view(len(low), bins, samples, size).mean(dim=2)
