"""The voting explorer: its box is the library's, and it answers mouse, keyboard and slider."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cpm_lib import explorers
from cpm_lib.model.grid_points import decode, heatmap_targets
from tests.explorers.conftest import Shown

ROI = torch.tensor([30.0, 30.0, 80.0, 70.0])
TRUTH = torch.tensor([24.0, 26.0, 90.0, 76.0])
IMAGE = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0))


def logits(cells: Tensor, confidences: Tensor, window: int = 28) -> Tensor:
    """Heatmaps [P,w,w] with one strong cell [P,2] (x, y) each."""
    maps = torch.full((len(cells), window * window), -20.0, dtype=torch.float64)
    return maps.scatter(1, (cells[:, 1] * window + cells[:, 0])[:, None], confidences.logit()[:, None]).view(
        -1, window, window
    )


def perfect(ratio: float = 2.0, truth: Tensor = TRUTH) -> Tensor:
    return heatmap_targets(ROI[None], truth[None], ratio, radius=0)[0] * 8 - 6


@pytest.fixture
def shown(show: Callable[..., Shown]) -> Shown:
    return show(explorers.voting(IMAGE, ROI, TRUTH, perfect()))


@pytest.mark.parametrize("ratio", [1.0, 1.25, 2.0])
def test_box_is_that_of_the_library(show: Callable[..., Shown], ratio: float) -> None:
    shown = show(explorers.voting(IMAGE, ROI, TRUTH, perfect(ratio), ratio))
    generator = torch.Generator().manual_seed(int(4 * ratio))
    for _ in range(5):
        cells = torch.randint(0, 28, (9, 2), generator=generator)
        confidences = torch.rand(9, generator=generator, dtype=torch.float64).clamp(0.01, 0.99)
        peaks = [[*cell, value] for cell, value in zip(cells.tolist(), confidences.tolist(), strict=True)]
        found = shown.formula("decode", peaks, ROI.tolist(), ratio)
        expected = decode(logits(cells, confidences)[None], ROI[None].double(), ratio)[0]
        torch.testing.assert_close(torch.tensor(found).double(), expected, rtol=0, atol=1e-4)


def test_starts_with_the_box_of_the_heatmaps(shown: Shown) -> None:
    expected = decode(perfect()[None], ROI[None], 2.0)[0].tolist()
    found = re.search(r"Box: ([\d.]+), ([\d.]+), ([\d.]+), ([\d.]+)\.", shown.numbers)
    assert found and [float(value) for value in found.groups()] == pytest.approx(expected, abs=0.051)


def test_dragging_a_peak_moves_the_side_it_votes_for(shown: Shown) -> None:
    left = shown.number(r"^left = .* = ([\d.]+); with")
    shown.drag("point 1 (column 0, row 1 of the grid)", 30, 0)
    assert "Point 1 votes for left" in shown.numbers
    assert shown.number(r"^left = .* = ([\d.]+); with") > left
    shown.root.get_by_role("button", name="start again").click()
    assert shown.number(r"^left = .* = ([\d.]+); with") == left


def test_keys_move_by_one_cell(shown: Shown) -> None:
    before = shown.number(r"^left = .* = ([\d.]+); with")
    shown.press("point 0 (column 0, row 0 of the grid)", "ArrowRight", 3)
    # Three cells of 100 / 56 pixels for one of three points of equal confidence.
    assert shown.number(r"^left = .* = ([\d.]+); with") == pytest.approx(before + 100 / 56, abs=0.11)


def test_dragging_in_the_picture_is_the_same(shown: Shown) -> None:
    dot = shown.root.locator(".cpm-dot").nth(8)
    box = dot.bounding_box()
    assert box
    before = shown.number(r"Box: .*, ([\d.]+)\. IoU")
    shown.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown.page.mouse.down()
    shown.page.mouse.move(box["x"], box["y"] - 40)
    shown.page.mouse.up()
    assert shown.number(r"Box: .*, ([\d.]+)\. IoU") < before
    assert "Point 8 votes for right and bottom" in shown.numbers


def test_a_point_without_confidence_has_no_say(shown: Shown) -> None:
    point = "point 1 (column 0, row 1 of the grid)"
    before = shown.number(r"^left = .* = ([\d.]+); with")
    shown.press(point, "Shift+ArrowRight")
    astray = shown.number(r"^left = .* = ([\d.]+); with")
    shown.slide("confidence of the selected point", 0.01)
    assert astray > before + 3
    assert shown.number(r"^left = .* = ([\d.]+); with") == pytest.approx(before, abs=0.25)


def test_selecting_a_point_shows_a_side_it_votes_for(shown: Shown) -> None:
    shown.root.get_by_label("right", exact=True).check()
    assert shown.numbers.startswith("right = ")
    shown.root.get_by_label("point 3 (column 1, row 0 of the grid)", exact=True).focus()
    assert shown.numbers.startswith("top = ")
    shown.root.get_by_label("point 4 (column 1, row 1 of the grid)", exact=True).focus()
    assert shown.numbers.startswith("top = ") and "votes for no side" in shown.numbers


def test_points_out_of_reach_have_no_target(show: Callable[..., Shown]) -> None:
    shown = show(explorers.voting(IMAGE, ROI, TRUTH, perfect(1.0), 1.0))
    assert shown.root.locator(".cpm-empty").count() == 8
    assert "outside its window" in shown.numbers


def test_without_scripts_a_picture_stays(show: Callable[..., Shown]) -> None:
    shown = show(explorers.voting(IMAGE, ROI, TRUTH, perfect()), java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()
