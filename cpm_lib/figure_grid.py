"""Figures of the grid branch: nine heatmaps over the region of a RoI, and what regions and cells allow at best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cpm_lib import figure_style as draw
from cpm_lib.boxes import extend_regions
from cpm_lib.figure_style import GROUND_TRUTH, INK, PREDICTION, PROPOSAL, QUIET, SERIES, style
from cpm_lib.model.grid_points import decode, sub_regions

_QUIET_BOX = "#d0d0d0"


def peaks(maps: Tensor) -> Tensor:
    """Column, row and value of the strongest cell of each heatmap [P,w,w], as float [P,3]; the first of equals."""
    value, place = maps.float().flatten(1).max(dim=1)
    return torch.stack((place % maps.shape[-1], place // maps.shape[-1], value), dim=1)


def heatmaps(
    image: Tensor,
    roi: Tensor,
    truth: Tensor,
    maps: Tensor,
    mapping_ratio: float,
    *,
    map_size: int = 56,
    vote: bool = True,
) -> Figure:
    """One RoI and its region in the image, and beside it the heatmaps in the places of their points.

    Args:
        image: float [3,H,W] in 0..1; roi, truth: [4] xyxy in pixels.
        maps: [points^2, w, w] in 0..1, probabilities or targets, in the order of the points.
        vote: draw the peaks and the box that they vote for; False where the maps are targets.
    """
    grid = math.isqrt(len(maps))
    region = extend_regions(roi[None], mapping_ratio)[0]
    voted = decode(maps[None].logit(eps=1e-6), roi[None], mapping_ratio, grid=grid, map_size=map_size)[0]
    with style():
        figure = draw.card(9.0, 4.6)
        left, right = figure.subfigures(1, 2, squeeze=False)[0]
        axes = left.subplots()
        draw.picture(axes, image, f"region of mapping ratio {mapping_ratio:g}")
        draw.boxes(axes, region[None], _QUIET_BOX, dashed=True)
        draw.boxes(axes, roi[None], PROPOSAL)
        draw.boxes(axes, truth[None], GROUND_TRUTH, dashed=True)
        entries = [
            ("object", GROUND_TRUTH, True),
            ("RoI", PROPOSAL, False),
            ("region of the heatmaps", "#a0a0a0", True),
        ]
        if vote:
            draw.boxes(axes, voted[None], PREDICTION)
            places = _places(maps, region, map_size)
            axes.plot(*places.T.tolist(), "o", color=PREDICTION, markeredgecolor="black", markersize=6, linestyle="")
            entries.append(("voted box and peaks", PREDICTION, False))
        seen = torch.stack((region, truth, roi))
        low, high = seen[:, :2].min(0).values - 2, seen[:, 2:].max(0).values + 2
        axes.set_xlim(float(low[0]), float(high[0]))
        axes.set_ylim(float(high[1]), float(low[1]))
        for index, panel in enumerate(right.subplots(grid, grid, squeeze=False).T.flat):
            _window(panel, maps[index], index, vote)
        draw.key(figure, entries)
    return figure


def best_iou(
    ratios: Sequence[float], curves: Mapping[str, Sequence[float]], marked: Sequence[float] = (2.0, 1.5, 1.25)
) -> Figure:
    """The best mean IoU that heatmaps can express over the mapping ratio, a curve per kind of RoI, its top ringed.

    Args:
        curves: name -> mean IoU in 0..1 at each of `ratios`; marked: ratios of the stages, dotted.
    """
    with style():
        figure = draw.card(7.4, 4.2)
        axes = figure.subplots()
        for number, (name, values) in enumerate(curves.items()):
            colour = SERIES[number % len(SERIES)]
            axes.plot(ratios, values, "-" if number % 2 == 0 else "--", color=colour, label=name)
            best = max(range(len(values)), key=lambda place: values[place])
            axes.plot(ratios[best], values[best], "o", markersize=11, markerfacecolor="none", color=colour)
        for number, ratio in enumerate(marked):
            axes.axvline(ratio, color=QUIET, linestyle=":", linewidth=1.4)
            above = ("data", "axes fraction")
            axes.annotate(f"stage {number + 1}", (ratio, 1.02), xycoords=above, ha="center", color=INK)
        axes.plot([], [], "o", markersize=11, markerfacecolor="none", color=INK, label="best ratio")
        axes.set_xlabel("mapping ratio: side of the region / side of the RoI")
        axes.set_ylabel("best mean IoU")
        axes.legend(loc="lower right")
    return figure


def _places(maps: Tensor, region: Tensor, map_size: int) -> Tensor:
    """Centres of the peaks' cells in the image, [P,2] in pixels."""
    windows = sub_regions(math.isqrt(len(maps)), map_size, maps.shape[-1])
    return (peaks(maps)[:, :2] + windows[:, :2] + 0.5) / map_size * (region[2:] - region[:2]) + region[:2]


def _window(axes: Axes, values: Tensor, index: int, vote: bool) -> None:
    size = values.shape[-1]
    axes.imshow(values.detach().cpu().numpy(), extent=(0, size, size, 0), cmap="Greys", vmin=0, vmax=1)
    column, row, value = peaks(values[None])[0].tolist()
    empty = value == 0
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for side in axes.spines.values():
        side.set(visible=True, color=PROPOSAL if empty else QUIET, linestyle="--" if empty else "-")
    title = f"{index}: no cell" if empty else f"{index}: {value:.2f}" if vote else f"{index}"
    axes.set_title(title, fontsize=9, pad=3)
    if vote and not empty:
        axes.plot(column + 0.5, row + 0.5, "o", markersize=9, markerfacecolor="none", color=PREDICTION)
