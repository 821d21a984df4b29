"""Figures of time, on made-up results of `cpm bench`."""

from __future__ import annotations

from typing import Any

import pytest

from cpm_lib import figure_speed


def row(name: str, seconds: float, **values: Any) -> dict[str, Any]:
    return {"name": name, "median_s": seconds, "low_s": seconds * 0.9, "high_s": seconds * 1.2, **values}


@pytest.fixture
def content() -> dict[str, Any]:
    rows = [row("matrix product 64", 0.1), row("cpm", 5.0, stage_rois=[8]), row("torchvision", 2.0, stage_rois=[])]
    rows += [row("cpm: backbone", 1.0), row("cpm: FPN", 0.5), row("cpm: grid stage 1", 2.0), row("cpm: rest", 0.25)]
    rows += [row("torchvision: backbone", 1.5), row("cpm: classification RoIAlign", 0.75)]
    return {"rows": rows}


def test_parts_are_grouped_and_none_is_lost(content: dict[str, Any]) -> None:
    found = figure_speed.grouped(content, "cpm")
    assert found["backbone and FPN"] == 1.5
    assert found["classification"] == 0.75
    assert found["grid branches"] == 2.0
    assert found["other"] == 0.25
    assert sum(found.values()) == 4.5


def test_one_bar_for_each_detector(content: dict[str, Any]) -> None:
    axes = figure_speed.time_by_part(content).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cpm", "torchvision"]


def test_growth_draws_the_line_where_there_is_one() -> None:
    rows = [row("a", 1.0 + number, x=float(number)) for number in (1, 2)]
    sweeps = [
        {"rows": rows, "fit": {"x": "rois", "slope_s": 1.0, "intercept_s": 1.0, "r2": 1.0}},
        {"rows": rows[:1], "fit": {"x": "stages", "slope_s": None, "intercept_s": None, "r2": None}},
    ]
    first, second = figure_speed.growth(sweeps).axes
    assert "R² 1.000" in first.get_title(loc="left")
    assert len(first.lines) > len(second.lines)
