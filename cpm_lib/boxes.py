"""Boxes: pixel conventions, IoU, coding, and the mapping operation M_j (Sec. 3.2).

Boxes are [N, 4] tensors x1, y1, x2, y2 in pixels. Sizes are continuous, x2 - x1, unless `plus_one`:
then a box includes its last pixel and is x2 - x1 + 1 wide, as in the authors' code (facts 1.5).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_MAX_SCALE = math.log(1000 / 16)
"""Upper bound of the size deltas, so that an untrained head cannot overflow exp (facts 1.5)."""


def sizes(boxes: Tensor, plus_one: bool = False) -> tuple[Tensor, Tensor]:
    """Width and height of each box, [N] and [N]."""
    extra = 1 if plus_one else 0
    return boxes[..., 2] - boxes[..., 0] + extra, boxes[..., 3] - boxes[..., 1] + extra


def area(boxes: Tensor, plus_one: bool = False) -> Tensor:
    """Area [N] in square pixels; negative or zero for degenerate boxes."""
    width, height = sizes(boxes, plus_one)
    return width * height


def iou(boxes: Tensor, others: Tensor, plus_one: bool = False) -> Tensor:
    """Intersection over union [N, M] in 0..1; degenerate (zero-area, inverted) pairs have IoU 0."""
    extra = 1 if plus_one else 0
    top_left = torch.max(boxes[:, None, :2], others[None, :, :2])
    bottom_right = torch.min(boxes[:, None, 2:], others[None, :, 2:])
    overlap = (bottom_right - top_left + extra).clamp(min=0).prod(dim=2)
    union = area(boxes, plus_one)[:, None] + area(others, plus_one)[None, :] - overlap
    return torch.where(overlap > 0, overlap / union, torch.zeros_like(overlap)).clamp(0, 1)


def encode(references: Tensor, boxes: Tensor, weights: tuple[float, ...], plus_one: bool = False) -> Tensor:
    """Deltas [N, 4] (dx, dy, dw, dh, times `weights`) that turn `references` into `boxes`."""
    width, height = sizes(references, plus_one)
    target_width, target_height = sizes(boxes, plus_one)
    dx = (boxes[:, 0] + 0.5 * target_width - (references[:, 0] + 0.5 * width)) / width
    dy = (boxes[:, 1] + 0.5 * target_height - (references[:, 1] + 0.5 * height)) / height
    wx, wy, ww, wh = weights
    return torch.stack(
        (wx * dx, wy * dy, ww * torch.log(target_width / width), wh * torch.log(target_height / height)), dim=1
    )


def decode(deltas: Tensor, references: Tensor, weights: tuple[float, ...], plus_one: bool = False) -> Tensor:
    """Boxes [N, 4]: inverse of `encode`; size deltas are bounded above by log(1000/16)."""
    extra = 1 if plus_one else 0
    width, height = sizes(references, plus_one)
    wx, wy, ww, wh = weights
    centre_x = deltas[:, 0] / wx * width + (references[:, 0] + 0.5 * width)
    centre_y = deltas[:, 1] / wy * height + (references[:, 1] + 0.5 * height)
    new_width = torch.exp((deltas[:, 2] / ww).clamp(max=LOG_MAX_SCALE)) * width
    new_height = torch.exp((deltas[:, 3] / wh).clamp(max=LOG_MAX_SCALE)) * height
    return torch.stack(
        (
            centre_x - 0.5 * new_width,
            centre_y - 0.5 * new_height,
            centre_x + 0.5 * new_width - extra,
            centre_y + 0.5 * new_height - extra,
        ),
        dim=1,
    )


def clip(boxes: Tensor, size: tuple[int, int], plus_one: bool = False) -> Tensor:
    """Boxes [..., 4] clipped to an image of `size` (height, width); with `plus_one` to its last pixel."""
    extra = 1 if plus_one else 0
    height, width = size
    x = boxes[..., 0::2].clamp(0, width - extra)
    y = boxes[..., 1::2].clamp(0, height - extra)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def to_last_pixel(boxes: Tensor) -> Tensor:
    """Continuous boxes [..., 4] as boxes that include their last pixel; those under a pixel wide become a point."""
    return torch.cat((boxes[..., :2], torch.max(boxes[..., 2:] - 1, boxes[..., :2])), dim=-1)


def from_last_pixel(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] that include their last pixel as continuous ones, x2 - x1 wide."""
    return torch.cat((boxes[..., :2], boxes[..., 2:] + 1), dim=-1)


def flip(boxes: Tensor, width: int, plus_one: bool = False) -> Tensor:
    """Boxes [..., 4] of the mirror image of an image `width` pixels wide."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    edge = width - 1 if plus_one else width
    return torch.stack((edge - x2, y1, edge - x1, y2), dim=-1)


def extend_regions(boxes: Tensor, mapping_ratio: float) -> Tensor:
    """Mapping operation M_j: regions [N, 4] around the same centres, sides times `mapping_ratio`.

    The ratio is the paper's: 2 doubles the side, 1 changes nothing, 1 / ratio undoes it (Sec. 3.2, Fig. 3).
    Sizes are x2 - x1 in either pixel convention; inverted boxes stay inverted.
    """
    margin = (mapping_ratio - 1) * ((boxes[..., 2:] - boxes[..., :2]) / 2)
    return torch.cat((boxes[..., :2] - margin, boxes[..., 2:] + margin), dim=-1)
