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


def test_sliders_change_the_sum(show: Callable[..., Shown], content: dict[str, Any]) -> None:
    shown = show(explorers.roi_cost(content))
    assert shown.number(r"takes ([\d.]+) times") == 0.75
    shown.slide("RoIs of grid-fused-r101", 50)
    assert shown.number(r"takes ([\d.]+) times") == pytest.approx((3.5 + 12.5) / 8.0)
    shown.press("RoIs of cpm-r101", "ArrowRight", 5)
    assert shown.number(r"takes ([\d.]+) times") == pytest.approx(16 / (3 + 15 * 0.5), abs=0.006)
    shown.root.get_by_role("button", name="start again").click()
    assert shown.number(r"takes ([\d.]+) times") == 0.75
