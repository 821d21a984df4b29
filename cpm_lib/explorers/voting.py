"""Voting: nine peaks, and the box that their weighted means make (Sec. 3.2, Eq. 1)."""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import Tensor

from cpm_lib import figure_grid
from cpm_lib.boxes import extend_regions
from cpm_lib.explorers.component import Explorer, picture, plain
from cpm_lib.explorers.crop import crop
from cpm_lib.model.grid_points import heatmap_targets, sub_regions


def voting(
    image: Tensor,
    roi: Tensor,
    truth: Tensor,
    heatmaps: Tensor,
    mapping_ratio: float = 2.0,
    *,
    map_size: int = 56,
) -> Explorer:
    """Drag the peak of any grid point, or change its confidence, and see the box that the votes make.

    Args:
        image: float [3,H,W] in 0..1; roi, truth: [4] xyxy in pixels.
        heatmaps: logits [points^2, w, w] of the RoI, as a `GridBranch` puts them out, to start from.
        mapping_ratio: of the stage they come from.
    """
    grid, window = math.isqrt(len(heatmaps)), heatmaps.shape[-1]
    maps = heatmaps.detach().cpu().float().sigmoid()
    roi, truth = roi.cpu().float(), truth.cpu().float()
    region = extend_regions(roi[None], mapping_ratio)
    targets = heatmap_targets(roi[None], truth[None], mapping_ratio, grid=grid, map_size=map_size, window=window)[0]
    return Explorer(
        "voting",
        "Nine points vote for a box",
        f"A RoI with the region of mapping ratio {mapping_ratio:g}, its nine heatmaps with their peaks, and the box "
        "that the peaks vote for. With scripts the peaks can be dragged and their confidence changed.",
        {
            **crop(image, torch.cat((region, roi[None], truth[None]))),
            "roi": plain(roi),
            "truth": plain(truth),
            "ratio": mapping_ratio,
            "grid": grid,
            "map_size": map_size,
            "window": window,
            "starts": sub_regions(grid, map_size, window)[:, :2].tolist(),
            "peaks": plain(figure_grid.peaks(maps), 4),
            "heatmaps": [picture(_glow(values)) for values in maps],
            "targets": [values.nonzero().flip(1).tolist() for values in targets],
        },
        figure_grid.heatmaps(image, roi, truth, maps, mapping_ratio, map_size=map_size),
    )


def _glow(values: Tensor) -> Image.Image:
    """A heatmap [w,w] in 0..1 as a grey veil for a light or a dark page; the root makes weak cells visible."""
    opacity = (values.sqrt() * 255).round().to(torch.uint8).numpy()
    glow = Image.new("LA", opacity.shape[::-1], (136, 0))
    glow.putalpha(Image.fromarray(opacity))
    return glow
