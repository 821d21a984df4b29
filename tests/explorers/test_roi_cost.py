"""The explorer of RoIs and seconds: sums of measured parts, and the number that Table 8 would need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cpm_lib import explorers, presets
from cpm_lib.bench import detectors
from cpm_lib.bench.case import forced
from tests.explorers.conftest import Shown


@pytest.fixture
def content() -> dict[str, Any]:
    seconds = {"cpm-r101": 8.0, "cpm-r101: backbone": 3.0, "cpm-r101: grid stage 1": 4.0, "cpm-r101: ISM": 1.0}
    seconds |= {"grid-fused-r101": 6.0, "grid-fused-r101: backbone": 3.5, "grid-fused-r101: grid stage 1": 2.5}
    rows: list[dict[str, Any]] = [{"name": name, "median_s": value} for name, value in seconds.items()]
    for row in rows:
        if ":" not in row["name"]:
            row["stage_rois"] = [10]
    content: dict[str, Any] = {"rows": rows, "rois": [10, 10]}
    cases = [forced(presets.get(name, "smoke"), "inference", 10) for name in ("cpm-r101", "grid-fused-r101")]
    content["speed_table"] = detectors.speed_table(content, *cases)
    return content


def test_formulas_are_those_of_the_benchmark(show: Callable[..., Shown], content: dict[str, Any]) -> None:
    shown = show(explorers.roi_cost(content))
    assert shown.formula("seconds", 0, 10) == pytest.approx(8.0)
    assert shown.formula("ratio", [10, 10]) == pytest.approx(6.0 / 8.0)
    table = content["speed_table"]
    assert shown.formula("needed", table["printed_ratio"], 10) == pytest.approx(table["rois_needed"])


def test_the_axis_follows_in_steps(show: Callable[..., Shown], content: dict[str, Any]) -> None:
    shown = show(explorers.roi_cost(content, most=1200))
    ends = set()
    for rois in (0, 10, 11, 300, 1200):
        shown.slide("RoIs of grid-fused-r101", rois)
        ticks = [float(text) for text in shown.root.locator(".cpm-tick").all_text_contents()]
        longest = max(8.0, 3.5 + 0.25 * rois)
        assert longest <= ticks[-1] <= 1.5 * longest
        ends.add(ticks[-1])
    assert len(ends) == 3


def test_words_are_legible_on_a_phone(show: Callable[..., Shown], content: dict[str, Any]) -> None:
    shown = show(explorers.roi_cost(content), is_mobile=True, viewport={"width": 360, "height": 740})
    box = shown.root.locator(".cpm-scene").bounding_box()
    assert box
    assert 12 * box["width"] / 360 > 9, "pixels that 12 units of the drawing take"


def test_without_scripts_a_picture_stays(show: Callable[..., Shown], content: dict[str, Any]) -> None:
    shown = show(explorers.roi_cost(content), java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()


def test_sliders_change_the_sum(show: Callable[..., Shown], content: dict[str, Any]) -> None:
    shown = show(explorers.roi_cost(content))
    assert shown.number(r"takes ([\d.]+) times") == 0.75
    shown.slide("RoIs of grid-fused-r101", 50)
    assert shown.number(r"takes ([\d.]+) times") == pytest.approx((3.5 + 12.5) / 8.0)
    shown.press("RoIs of cpm-r101", "ArrowRight", 5)
    assert shown.number(r"takes ([\d.]+) times") == pytest.approx(16 / (3 + 15 * 0.5), abs=0.006)
    shown.root.get_by_role("button", name="start again").click()
    assert shown.number(r"takes ([\d.]+) times") == 0.75
