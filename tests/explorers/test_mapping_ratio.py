"""The mapping explorer: its formulas are the library's, and it answers mouse and keyboard."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cpm_lib import explorers
from cpm_lib.boxes import extend_regions
from cpm_lib.model.grid_points import heatmap_targets
from tests.explorers.conftest import Shown

TRUTH = torch.tensor([30.0, 24.0, 92.0, 80.0])
PROPOSAL = torch.tensor([20.0, 30.0, 80.0, 70.0])


@pytest.fixture
def shown(show: Callable[..., Shown]) -> Shown:
    image = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0))
    return show(explorers.mapping_ratio(image, PROPOSAL, TRUTH))


@pytest.mark.parametrize("ratio", [1.0, 1.25, 1.5, 2.0])
def test_formulas_are_those_of_the_library(shown: Shown, ratio: float) -> None:
    generator = torch.Generator().manual_seed(int(ratio * 4))
    for _ in range(5):
        roi, truth = (
            torch.cat((corner, corner + 2 + 60 * torch.rand(2, generator=generator)))
            for corner in (64 * torch.rand(2, 2, generator=generator))
        )
        roi, truth = roi.round(decimals=2), truth.round(decimals=2)
        region = shown.formula("extend", roi.tolist(), ratio)
        torch.testing.assert_close(torch.tensor(region), extend_regions(roi[None], ratio)[0], rtol=0, atol=1e-4)
        expected = heatmap_targets(roi[None].double(), truth[None].double(), ratio)[0]
        found = torch.zeros_like(expected)
        for point, cells in enumerate(shown.formula("targets", roi.tolist(), truth.tolist(), ratio)):
            for column, row in cells:
                found[point, row, column] = 1
        assert torch.equal(found, expected)
        # A window as large as the map has a target wherever the region reaches the point.
        whole = heatmap_targets(roi[None].double(), truth[None].double(), ratio, radius=0, window=56)[0]
        reached = [shown.formula("reached", roi.tolist(), truth.tolist(), ratio, point) for point in range(9)]
        assert reached == whole.flatten(1).any(1).tolist()


def test_dragging_and_keys_move_the_roi(shown: Shown) -> None:
    before = shown.number(r"IoU of RoI and object: ([\d.]+)")
    shown.drag("RoI: move it", 40, 0)
    dragged = shown.number(r"IoU of RoI and object: ([\d.]+)")
    assert dragged != before
    shown.press("RoI: bottom right corner", "ArrowRight", 5)
    assert shown.number(r"The RoI is ([\d.]+) pixels wide") == pytest.approx(65, abs=0.1)
    shown.root.get_by_role("button", name="start again").click()
    assert shown.number(r"IoU of RoI and object: ([\d.]+)") == before


def test_a_larger_ratio_reaches_more_points(shown: Shown) -> None:
    reached = {}
    for ratio in ("1", "1.25", "1.5", "2"):
        shown.root.get_by_label(ratio, exact=True).check()
        reached[ratio] = shown.number(r"(\d) of 9 grid points are inside the region")
        inside = int(shown.number(r"region, (\d) inside their window"))
        drawn = [shown.root.locator(f".cpm-point .cpm-{state}").count() for state in ("found", "beside", "lost")]
        assert drawn == [inside, reached[ratio] - inside, 9 - reached[ratio]]
    assert list(reached.values()) == sorted(reached.values())
    assert reached["1"] < reached["2"] == 9


def test_marks_and_legend_tell_apart_where_a_point_is(show: Callable[..., Shown]) -> None:
    shown = show(
        explorers.mapping_ratio(torch.zeros(3, 96, 128), torch.tensor([25.0, 20.0, 125.0, 60.0]), TRUTH, ratio=1.0)
    )
    for state in ("found", "beside", "lost"):
        assert shown.root.locator(f".cpm-legend .cpm-{state}").count() == 1
        assert shown.root.locator(f".cpm-point .cpm-{state}").count() > 0


def test_a_finger_beside_a_corner_moves_it(show: Callable[..., Shown]) -> None:
    explorer = explorers.mapping_ratio(torch.zeros(3, 96, 128), PROPOSAL, TRUTH)
    shown = show(explorer, has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740})
    corner = shown.root.locator("circle.cpm-grip").nth(1)
    assert (corner.bounding_box() or {})["width"] < 20
    shown.swipe(corner, 11, 20, 0)
    scale = shown.root.get_by_role("group", name="Image with the object").bounding_box()
    assert scale
    units = (128 + 2 * 0.35 * 128) / scale["width"]
    assert shown.number(r"The RoI is ([\d.]+) pixels wide") == pytest.approx(60 + 20 * units, abs=0.3)


def test_without_scripts_a_picture_stays(show: Callable[..., Shown]) -> None:
    image = torch.zeros(3, 96, 128)
    shown = show(explorers.mapping_ratio(image, PROPOSAL, TRUTH), java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()
