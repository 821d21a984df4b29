"""Figures draw, name their axes, stay within limits of size, and leave matplotlib as it was."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from cpm_lib import figures

CLASSES = ("circle", "triangle")


def example(name: str) -> Figure:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 48, 64, generator=generator)
    boxes = torch.tensor([[5.0, 5, 30, 30], [20, 10, 60, 44]])
    found = {"boxes": boxes, "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.1])}
    numbers = torch.rand(50, generator=generator)
    metrics = [{"iteration": i, "lr": 0.1, "loss": 2.0 / i, "loss_grid_1": 1.0 / i} for i in range(1, 90)]
    makers: dict[str, Any] = {
        "detections": lambda: figures.detections(image, boxes, found["labels"], found["scores"], CLASSES, boxes + 1),
        "no detection": lambda: figures.detections(image, boxes[:0], torch.zeros(0).long(), None, CLASSES),
        "grid": lambda: figures.detection_grid([image] * 4, [found] * 4, CLASSES, gt=[boxes] * 4),
        "stages": lambda: figures.stages(image, boxes, boxes[0], boxes[1], mapping_ratios=(2, 1.5)),
        "borders": lambda: figures.border_histogram(torch.randn(30, 4, generator=generator)),
        "no border": lambda: figures.border_histogram(torch.zeros(0, 4)),
        "scores": lambda: figures.score_against_iou(numbers, numbers**2, "title"),
        "no score": lambda: figures.score_against_iou(numbers[:0], numbers[:0], "title"),
        "gamma": lambda: figures.gamma_curve([0, 0.5, 1], [1.0, 3.0, 2.0], 1.5, band=[(0, 2), (2, 4), (1, 3)]),
        "training": lambda: figures.training_curves(metrics, [{"iteration": 50, "AP": 12.0, "AP50": None}]),
        "no training": lambda: figures.training_curves([]),
    }
    return makers[name]()


NAMES = (
    "detections", "no detection", "grid", "stages", "borders", "no border", "scores", "no score", "gamma", "training",
    "no training",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_draws(name: str) -> None:
    before = dict(matplotlib.rcParams)
    figure = example(name)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    picture = Image.open(buffer).convert("RGB")
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert len(picture.reduce(4).getcolors(1 << 20)) > 5
    assert max(figure.get_size_inches()) <= 12
    assert dict(matplotlib.rcParams) == before
    for axes in figure.axes:
        if axes.axison and axes.get_visible() and axes.get_xlabel() == "":
            assert name.endswith("training") and axes.get_ylabel()


def test_plots_name_axes_with_units() -> None:
    assert figures.gamma_curve([0, 1], [1, 2]).axes[0].get_ylabel() == "AP (%)"
    assert "side of the RoI" in example("borders").axes[0].get_xlabel()
    assert [axes.get_ylabel() for axes in example("training").axes] == ["loss", "learning rate", "AP (%)"]


def test_stage_titles_hold_the_true_iou() -> None:
    gt = torch.tensor([0.0, 0, 10, 10])
    path = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 10]])
    figure = figures.stages(torch.rand(3, 20, 20), path, gt, torch.tensor([0.0, 0, 10, 5]))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["proposal: IoU 0.50", "stage 1: IoU 0.80", "stage 2: IoU 1.00"]


def test_border_shares() -> None:
    positions = torch.tensor([[-0.1, 0.0, 1.0, 1.2], [-0.3, 0.1, 0.9, 1.6]])
    texts = [text.get_text() for text in figures.border_histogram(positions).axes[0].get_legend().get_texts()]
    assert "RoI itself: 50.0 % of sides" in texts
    assert "mapping ratio 1.25: 62.5 % of sides" in texts
    assert "mapping ratio 1.5: 75.0 % of sides" in texts
    assert "mapping ratio 2: 87.5 % of sides" in texts


def test_low_scores_are_left_out_of_the_grid() -> None:
    texts = [text.get_text() for text in example("grid").axes[0].texts]
    assert texts == ["circle 0.90"]


def test_shows_itself_without_pyplot() -> None:
    assert example("gamma")._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
