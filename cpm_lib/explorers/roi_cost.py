"""RoIs and seconds: at how many RoIs which detector is the faster one (Table 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpm_lib import figure_speed
from cpm_lib.explorers.component import Explorer

_ON_ROIS = ("grid ", "decoding", "ISM", "RSM")
"""Beginnings of the names of parts whose time grows with the RoIs that are refined."""


def roi_cost(content: Mapping[str, Any], *, most: int = 500) -> Explorer:
    """Choose how many RoIs two detectors refine, and see the seconds per image that their measured parts add up to.

    Args:
        content: of ``cpm bench inference --against PRESET``, as `bench.versus` returns it.
        most: RoIs at the right end of the sliders.
    """
    names = [row["name"] for row in content["rows"] if row.get("stage_rois") is not None]
    printed = content["speed_table"]["printed_ratio"]
    detectors = [_split(content, name, rois) for name, rois in zip(names, content["rois"], strict=True)]
    return Explorer(
        "roi_cost",
        "How many RoIs make which detector slow?",
        "Seconds per image of two detectors at the measured number of RoIs, by group of parts. With scripts the "
        "number of RoIs of each can be chosen.",
        {"detectors": detectors, "most": most, "printed_ratio": printed},
        figure_speed.time_by_part(content),
    )


def _split(content: Mapping[str, Any], name: str, rois: int) -> dict[str, Any]:
    """Seconds that do not depend on the RoIs, and seconds of each RoI."""
    parts = figure_speed.part_seconds(content, name)
    on_rois = sum(seconds for part, seconds in parts.items() if part.startswith(_ON_ROIS))
    return {"name": name, "rois": rois, "fixed": sum(parts.values()) - on_rois, "each": on_rois / rois}
