"""Figures of the grid branch: heatmaps in their places, empty ones marked, and curves with their top ringed."""

from __future__ import annotations

import io

import matplotlib
import pytest
import torch
from PIL import Image

from cpm_lib import figure_grid
from cpm_lib.model.grid_points import heatmap_targets

ROI = torch.tensor([10.0, 10.0, 40.0, 30.0])
TRUTH = torch.tensor([8.0, 12.0, 44.0, 33.0])


@pytest.mark.parametrize("vote", [True, False])
def test_heatmaps_lie_where_their_points_are(vote: bool) -> None:
    before = dict(matplotlib.rcParams)
    targets = heatmap_targets(ROI[None], TRUTH[None], 1.0)[0]
    figure = figure_grid.heatmaps(torch.rand(3, 48, 64), ROI, TRUTH, targets, 1.0, vote=vote)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    assert len(Image.open(buffer).convert("RGB").reduce(4).getcolors(1 << 20) or []) > 5
    assert dict(matplotlib.rcParams) == before
    windows = figure.axes[1:]
    assert len(windows) == 9
    windows.sort(key=lambda axes: axes.get_title())
    titles = [axes.get_title() for axes in windows]
    # Point 0 is left of the RoI, so without mapping it has no cell; point 3 lies within.
    assert titles[0] == "0: no cell" and titles[3].startswith("3") and "no cell" not in titles[3]
    figure.draw_without_rendering()
    left = [axes.get_position().x0 for axes in windows]
    assert left[0] == pytest.approx(left[2]), "points are numbered down the columns"
    assert left[2] < left[3] < left[6]


def test_peaks() -> None:
    maps = torch.zeros(2, 4, 4)
    maps[0, 1, 3], maps[1, 2, 0] = 0.5, 1.0
    assert figure_grid.peaks(maps).tolist() == [[3, 1, 0.5], [0, 2, 1]]


def test_curves_have_names_and_axes() -> None:
    figure = figure_grid.best_iou([1.0, 2.0, 3.0], {"a": [0.5, 0.9, 0.8], "b": [0.6, 0.95, 0.9]}, marked=[2.0, 1.5])
    axes = figure.axes[0]
    assert "mapping ratio" in axes.get_xlabel() and axes.get_ylabel()
    legend = axes.get_legend()
    assert legend and [text.get_text() for text in legend.get_texts()][:2] == ["a", "b"]
