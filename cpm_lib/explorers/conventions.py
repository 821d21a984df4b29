"""Conventions: which heatmap cell a border gets under either rounding and either rule of pixels (Eq. 2).

`conventions.pixel_plus_one` adds nothing inside the grid branch (facts 1.5); it enters through the boxes, which then
end at their last pixel, so that the same RoI has a region of one pixel less.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
from matplotlib.figure import Figure

from cpm_lib import figure_style as draw
from cpm_lib.boxes import to_last_pixel
from cpm_lib.config import CONVENTIONS
from cpm_lib.explorers.component import Explorer
from cpm_lib.ledger import Table
from cpm_lib.model.grid_points import heatmap_targets

_ROUNDINGS: tuple[Literal["floor", "trunc"], ...] = ("floor", "trunc")


def conventions(
    effects: Table,
    *,
    roi: tuple[float, float] = (100.0, 156.0),
    border: float = 99.5,
    ratio: float = 1.0,
    ratios: Sequence[float] = (1.0, 1.25, 1.5, 2.0),
    map_size: int = 56,
    radius: int = 1,
) -> Explorer:
    """Move the left border of an object across that of a region, and see the targets of all four combinations.

    Args:
        effects: on AP, as `findings.switch_effects` tells them of both switches.
        roi: its left and right border, border: the object's left one, both continuous, in pixels; ratio: the
            mapping ratio. All at the start.
        ratios: to choose from.
        map_size, radius: as for `heatmap_targets`.
    """
    columns = [effects.header.index(name) for name in ("Switch", "AP", "seeds")]
    return Explorer(
        "conventions",
        "Into which cell does the border fall?",
        f"The first cells of a target heatmap for an object that begins at {border:g}, beside a region that begins at "
        f"{roi[0]:g}: rounded down or truncated, with continuous boxes or with boxes that end at their last pixel. "
        "With scripts the border can be moved.",
        {
            "roi": list(roi),
            "border": border,
            "ratio": ratio,
            "ratios": list(ratios),
            "map_size": map_size,
            "radius": radius,
            "sides": {name: [side.heatmap_rounding, side.pixel_plus_one] for name, side in CONVENTIONS.items()},
            "effects": [[line[column] for column in columns] for line in (effects.header, *effects.rows)],
            "evidence": effects.caption,
        },
        _still(roi, border, ratio, map_size, radius),
    )


def _still(roi: tuple[float, float], border: float, ratio: float, map_size: int, radius: int) -> Figure:
    """Corner of the target of the left middle point, for the four combinations."""
    boxes = torch.tensor([[roi[0], 0.0, roi[1], float(map_size)], [border, 1.0, roi[1], float(map_size)]])
    with draw.style():
        figure = draw.card(7.2, 2.9)
        axes = figure.subplots(2, 2).flat
        for axis, (plus_one, rounding) in zip(axes, product((False, True), _ROUNDINGS), strict=True):
            inside, truth = (to_last_pixel(boxes) if plus_one else boxes).split(1)
            target = heatmap_targets(
                inside, truth, ratio, map_size=map_size, radius=radius, rounding=rounding, window=map_size
            )[0, 1]
            middle = map_size // 2
            axis.imshow(target[middle - 2 : middle + 3, :8].numpy(), cmap="Greens", vmin=0, vmax=1.3)
            axis.set_title(f"{rounding}, {'last pixel' if plus_one else 'continuous'}")
            axis.set(xticks=range(8), yticks=[])
            axis.grid(False)
    return figure
