"""Grid points: their windows in the heatmap, targets, and decoding by voting (Sec. 3.2, facts 6).

Point j of a 3x3 grid sits in column j // 3 and row j % 3 (column-major: 0 is the top left corner of the
box, 2 its bottom left one, 6 its top right one). All points share one map of `map_size` cells a side laid
over the extended RoI; each is predicted in a window of half that side only.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cpm_lib.boxes import extend_regions


def sub_regions(grid: int = 3, map_size: int = 56, window: int | None = None) -> Tensor:
    """Windows of the grid points in the whole map.

    Args:
        grid: points per side.
        map_size: cells per side of the whole map.
        window: cells per side of a window; default half the map. `map_size` gives whole maps (CVPR 2019).

    Returns:
        Int64 [grid * grid, 4], x1, y1, x2, y2 in cells, end exclusive.
    """
    window = map_size // 2 if window is None else window
    step = (map_size - window) // (grid - 1)
    index = torch.arange(grid * grid)
    x, y = (index // grid) * step, (index % grid) * step
    return torch.stack((x, y, x + window, y + window), dim=1)


def heatmap_targets(
    boxes: Tensor,
    gt_boxes: Tensor,
    mapping_ratio: float,
    *,
    grid: int = 3,
    map_size: int = 56,
    radius: int = 1,
    rounding: Literal["floor", "trunc"] = "floor",
    window: int | None = None,
) -> Tensor:
    """map_gt of Eq. 2: ones at |dx| + |dy| <= radius around each ground-truth grid point.

    The targets are made straight in the windows by comparing cell numbers, on the device of `boxes`.

    Args:
        boxes: RoIs [N, 4] in pixels; gt_boxes: the ground truth matched to each, [N, 4].
        mapping_ratio: side of the extended region over the side of the RoI (paper: 2, 1.5, 1.25).
        rounding: `trunc` puts points up to one cell left of or above the map into cell 0 (official).

    Returns:
        float32 [N, grid * grid, window, window], rows are y. Empty for RoIs whose extended side is at
        most `grid` pixels (also inverted ones), and for points more than `radius` cells outside their window.
    """
    regions = extend_regions(boxes, mapping_ratio)
    side = regions[:, 2:] - regions[:, :2]
    share = 1 - torch.arange(grid, device=boxes.device, dtype=boxes.dtype) / (grid - 1)
    points = share * gt_boxes[:, :2, None] + (1 - share) * gt_boxes[:, 2:, None]
    cells = (points - regions[:, :2, None]) / side[:, :, None] * map_size
    cells = cells.floor() if rounding == "floor" else cells.trunc()
    windows = sub_regions(grid, map_size, window)
    # Asked before the windows are on a GPU, which would have to be waited for.
    axis = torch.arange(int(windows[0, 2] - windows[0, 0]), device=boxes.device, dtype=boxes.dtype)
    windows = windows.to(boxes.device)
    index = torch.arange(grid * grid, device=boxes.device)
    centre_x = cells[:, 0, index // grid] - windows[:, 0]
    centre_y = cells[:, 1, index % grid] - windows[:, 1]
    dx = (axis - centre_x[..., None]).abs()
    dy = (axis - centre_y[..., None]).abs()
    # Cells beside a point outside the whole map are set only if they lie in the map; windows are inside it.
    near = dy[..., :, None] + dx[..., None, :] <= radius
    large_enough = (side > grid).all(dim=1)
    return (near & large_enough[:, None, None, None]).to(torch.float32)


def decode(
    logits: Tensor,
    boxes: Tensor,
    mapping_ratio: float,
    *,
    grid: int = 3,
    map_size: int = 56,
) -> Tensor:
    """S_j and the way back of Eq. 1: heatmaps to boxes by voting; never clips (facts 6.5).

    Each point is the centre of its strongest cell; a side of the box is the mean of its `grid` points,
    weighted with the sigmoid at their peaks.

    Args:
        logits: [N, grid * grid, w, w]; the window w is read from the shape.
        boxes: the RoIs the heatmaps belong to, [N, 4] in pixels.

    Returns:
        [N, 4] in pixels; may leave the image or be inverted.
    """
    window = logits.shape[-1]
    score, peak = logits.float().flatten(2).sigmoid().max(dim=2)
    windows = sub_regions(grid, map_size, window).to(logits.device)
    x = (peak % window + windows[:, 0]).to(boxes.dtype)
    y = (torch.div(peak, window, rounding_mode="floor") + windows[:, 1]).to(boxes.dtype)
    origin = extend_regions(boxes, mapping_ratio)[:, :2, None]
    side = boxes[:, 2:] - boxes[:, :2]
    position = (torch.stack((x, y), dim=1) + 0.5) / map_size * mapping_ratio * side[..., None] + origin
    # [N, column, row]: x is voted along rows of one column, y along columns of one row.
    x, y = position.view(len(boxes), 2, grid, grid).unbind(dim=1)
    weight = score.view(-1, grid, grid)
    left_right = (x * weight).sum(dim=2) / weight.sum(dim=2)
    top_bottom = (y * weight).sum(dim=1) / weight.sum(dim=1)
    return torch.stack((left_right[:, 0], top_bottom[:, 0], left_right[:, -1], top_bottom[:, -1]), dim=1)
