"""Heatmap targets by the definition: a plain loop over RoIs, grid points and cells. Slow, and easy to believe."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def heatmap_targets(
    boxes: Tensor,
    gt_boxes: Tensor,
    mapping_ratio: float,
    grid: int = 3,
    map_size: int = 56,
    radius: int = 1,
    rounding: str = "floor",
) -> Tensor:
    """See `cpm_lib.model.grid_points.heatmap_targets`: float32 [N, grid * grid, map_size / 2, map_size / 2]."""
    window = map_size // 2
    step = window // (grid - 1)
    maps = torch.zeros(len(boxes), grid * grid, window, window)
    round_ = {"floor": math.floor, "trunc": math.trunc}[rounding]
    for number, (box, truth) in enumerate(zip(boxes.double().tolist(), gt_boxes.double().tolist(), strict=True)):
        left, top, right, bottom = box
        margin_x, margin_y = (mapping_ratio - 1) * (right - left) / 2, (mapping_ratio - 1) * (bottom - top) / 2
        left, right, top, bottom = left - margin_x, right + margin_x, top - margin_y, bottom + margin_y
        if right - left <= grid or bottom - top <= grid:
            continue
        for point in range(grid * grid):
            column, row = divmod(point, grid)
            share_x, share_y = column / (grid - 1), row / (grid - 1)
            x = truth[0] + share_x * (truth[2] - truth[0])
            y = truth[1] + share_y * (truth[3] - truth[1])
            cell_x = round_((x - left) / (right - left) * map_size)
            cell_y = round_((y - top) / (bottom - top) * map_size)
            for map_y in range(row * step, row * step + window):
                for map_x in range(column * step, column * step + window):
                    if abs(map_x - cell_x) + abs(map_y - cell_y) <= radius:
                        maps[number, point, map_y - row * step, map_x - column * step] = 1
    return maps
