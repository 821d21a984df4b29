"""The explorer of conventions: its cells are the library's, and a border walks through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from cpm_lib import explorers
from cpm_lib.ablation import findings
from cpm_lib.boxes import extend_regions, from_last_pixel, to_last_pixel
from cpm_lib.ledger import Table
from cpm_lib.model.grid_points import decode, heatmap_targets
from tests.explorers.conftest import Shown

EFFECTS = Table(
    ["Switch", "seeds", "AP", "AP75"], [["heatmap_rounding", "3", "+0.1 [-2, +2]", "+0.3"]], "Evidence E1: drawn."
)
LEFT_MIDDLE = 1
"""Number of the grid point in the middle of the left side."""
MIDDLE = 28
"""Row of that point in the cases below."""
RATIOS = (2.0, 1.5, 1.25, 1.0)
WAYS = list(product(("floor", "trunc"), (False, True)))


@pytest.fixture
def shown(show: Callable[..., Shown]) -> Shown:
    return show(explorers.conventions(EFFECTS))


def targets(roi: Tensor, truth: Tensor, ratio: float, rounding: str, last: bool, radius: int) -> Tensor:
    """The whole map [56, 56] of the left middle point, as a training under this convention makes it."""
    one, other = (to_last_pixel(box[None]) if last else box[None] for box in (roi, truth))
    return heatmap_targets(one, other, ratio, radius=radius, rounding=rounding, window=56)[0, LEFT_MIDDLE]  # type: ignore[arg-type]


def cases(ratio: float) -> Iterator[tuple[Tensor, Tensor]]:
    """RoIs, and objects whose left border is around that of the region; the middle is at the same height."""
    generator = torch.Generator().manual_seed(int(100 * ratio))
    for _ in range(12):
        left, width, beside = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        roi = torch.tensor([50 + 100 * left, 40.0, 58 + 100 * left + 200 * width, 100.0], dtype=torch.float64)
        region = extend_regions(roi[None], ratio)[0]
        border = region[0] + (6 * beside - 3) * (region[2] - region[0]) / 56
        yield roi, torch.stack((border, roi[1] + 1, roi[2] + 10, roi[3]))


def every_case() -> list[tuple[float, Tensor, Tensor, str, bool]]:
    return [(m, *boxes, *way) for m in RATIOS for boxes, way in product(cases(m), WAYS)]


def test_cells_are_those_of_the_library(shown: Shown) -> None:
    given = every_case()
    asked = [(truth[0].item(), roi[[0, 2]].tolist(), m, last, way) for m, roi, truth, way, last in given]
    cells = shown.formulas("cell", asked)
    crosses = shown.formulas("ones", [(cell,) for cell in cells])
    outside = 0
    for (ratio, roi, truth, rounding, last), own, drawn in zip(given, cells, crosses, strict=True):
        found = targets(roi, truth, ratio, rounding, last, radius=0).nonzero()[:, 1].tolist()
        assert found == ([own] if 0 <= own < 56 else [])
        outside += not found
        cross = targets(roi, truth, ratio, rounding, last, radius=1).nonzero()
        assert sorted((x, y) for x, y in drawn) == sorted((x, y - MIDDLE) for y, x in cross.tolist())
    assert outside, "no border was outside the map"


def test_centres_are_read_as_the_library_reads_them(shown: Shown) -> None:
    given = list(enumerate(every_case()))
    asked = [(number % 56, roi[[0, 2]].tolist(), ratio, last) for number, (ratio, roi, _, _, last) in given]
    centres = shown.formulas("centre", asked)
    for (number, (ratio, roi, _, _, last)), centre in zip(given, centres, strict=True):
        heatmaps = torch.full((1, 9, 56, 56), -30.0)
        heatmaps[..., number % 56] = 10
        stored = to_last_pixel(roi[None]) if last else roi[None]
        boxes = decode(heatmaps, stored, ratio)
        expected = (from_last_pixel(boxes) if last else boxes)[0, 0].item()
        assert centre == pytest.approx(expected, abs=1e-4)


def test_begins_with_the_example_by_hand(shown: Shown) -> None:
    assert "(99.50 − 100.00) / 1.000 = −0.50: floor −1, trunc 0." in shown.numbers
    assert "corrected: cell −1, outside the map; 1 of 5 ones are in the map." in shown.numbers
    assert "official: cell 0, its centre is read as" in shown.numbers and "4 of 5 ones" in shown.numbers
    assert shown.root.locator(".cpm-one:not(.cpm-beyond)").count() == 2 * (1 + 4) + 1, "and one in the legend"


def test_keys_and_mouse_move_the_border(shown: Shown) -> None:
    shown.press("left border of the object", "ArrowLeft", 3)
    assert "= −1.10: floor −2, trunc −1." in shown.numbers
    shown.press("left border of the object", "ArrowRight", 6)
    assert "= 0.10: floor 0, trunc 0." in shown.numbers
    before = shown.number(r"The border lies at \(([\d.]+)")
    shown.drag("left border of the object", 100, 0)
    assert shown.number(r"The border lies at \(([\d.]+)") > before + 1
    shown.root.get_by_role("button", name="start again").click()
    assert "= −0.50: floor −1, trunc 0." in shown.numbers


def test_the_rule_of_pixels_moves_the_region_where_it_is_extended(shown: Shown) -> None:
    ends = r"Last pixel: .* a region from ([\d.]+)"
    assert shown.number(ends) == 100
    shown.root.get_by_label("2", exact=True).check()
    shown.slide("width of the RoI", 16)
    assert shown.number(r"Continuous: .* a region from ([\d.]+)") == 92
    assert shown.number(ends) == 92.5
    shown.press("left border of the object", "ArrowRight", 4)
    assert "floor 0, trunc 0" in shown.numbers and "floor −1, trunc 0" in shown.numbers


def test_effects_are_shown_as_measured(show: Callable[..., Shown]) -> None:
    effects = findings.switch_effects(["switch-heatmap-rounding-quick", "switch-pixel-plus-one-quick"])
    shown = show(explorers.conventions(effects))
    cells = [row.locator("td").all_inner_texts() for row in shown.root.locator("tbody tr").all()]
    assert cells == [[row[0], row[2], row[1]] for row in effects.rows]
    assert shown.root.get_by_text(effects.caption, exact=True).is_visible()


def test_words_are_legible_on_a_phone(show: Callable[..., Shown]) -> None:
    effects = findings.switch_effects(["switch-heatmap-rounding-quick", "switch-pixel-plus-one-quick"])
    shown = show(explorers.conventions(effects), has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740})
    box = shown.root.get_by_role("group", name="Cells of the heatmap").bounding_box()
    assert box
    assert 12 * box["width"] / 420 > 9, "pixels that 12 units of the drawing take"
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 360
    shown.swipe(shown.root.locator("circle.cpm-handle"), 11, 60, 0)
    assert "= −0.50" not in shown.numbers


def test_without_scripts_a_picture_stays(show: Callable[..., Shown]) -> None:
    shown = show(explorers.conventions(EFFECTS), java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()
