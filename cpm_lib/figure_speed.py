"""Figures of time: where it goes, and how it grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from cpm_lib import figure_style as draw
from cpm_lib.figure_style import INK, QUIET, SERIES, style

GROUPS: Mapping[str, tuple[str, ...]] = {
    "backbone and FPN": ("backbone", "FPN"),
    "proposals": ("RPN head", "proposal selection"),
    "classification": ("classification RoIAlign", "classification", "candidate selection"),
    "grid branches": ("grid RoIAlign", "grid stage", "decoding", "heatmap targets"),
    "ISM and RSM": ("ISM", "RSM RoIAlign", "RSM"),
    "backward": ("backward",),
}
"""What is drawn as one piece -> beginnings of the names of parts that `cpm bench` times; the rest is "other"."""

_HATCHES = ("", "//", "", "..", "", "\\\\", "")
_AXES = {"rois": "RoIs per image", "stages": "stages", "batch": "images", "area": "area of the image, 10⁶ pixels"}


def time_by_part(content: Mapping[str, Any]) -> Figure:
    """Seconds of both detectors of one benchmark, one bar each, by group of parts.

    Args:
        content: as `bench.versus` returns it.
    """
    names = [row["name"] for row in content["rows"] if row.get("stage_rois") is not None]
    by_name = {name: grouped(content, name) for name in names}
    shown = {group for groups in by_name.values() for group, seconds in groups.items() if seconds}
    with style():
        figure = draw.card(8.4, 2.9)
        axes = figure.subplots()
        for line, groups in enumerate(by_name.values()):
            left = 0.0
            for number, (group, seconds) in enumerate(groups.items()):
                if group not in shown:
                    continue
                colour = SERIES[number] if group != "other" else QUIET
                label = group if line == 0 else None
                axes.barh(
                    line, seconds, left=left, color=colour, hatch=_HATCHES[number], edgecolor="white", label=label
                )
                left += seconds
            axes.text(left, line, f"  {left:.1f} s", va="center", color=INK)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.grid(False, axis="y")
        axes.set_xlabel("seconds, sum of the medians of the parts")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=4)
    return figure


def part_seconds(content: Mapping[str, Any], name: str) -> dict[str, float]:
    """Median seconds of each timed part of the detector of this name."""
    return {
        row["name"].removeprefix(f"{name}: "): row["median_s"]
        for row in content["rows"]
        if row["name"].startswith(f"{name}: ")
    }


def grouped(content: Mapping[str, Any], name: str) -> dict[str, float]:
    """Seconds of each group of `GROUPS` for the detector of this name, and of the rest."""
    parts = part_seconds(content, name)
    found = {}
    for group, beginnings in GROUPS.items():
        own = [part for part in parts if part.startswith(beginnings)]
        found[group] = sum(parts.pop(part) for part in own)
    return {**found, "other": sum(parts.values())}


def growth(contents: Sequence[Mapping[str, Any]]) -> Figure:
    """Time of one image against one quantity per panel: measured medians, their range, and the straight line.

    Args:
        contents: as `bench.sweep` returns them.
    """
    with style():
        figure = draw.card(3.1 * len(contents), 3.0)
        for axes, content in zip(figure.subplots(1, len(contents), squeeze=False)[0], contents, strict=True):
            rows, fit = content["rows"], content["fit"]
            x = [row["x"] for row in rows]
            y = [row["median_s"] for row in rows]
            reach = [
                [row["median_s"] - row["low_s"] for row in rows],
                [row["high_s"] - row["median_s"] for row in rows],
            ]
            axes.errorbar(x, y, yerr=reach, fmt="o", color=SERIES[0], capsize=3, label="median and range")
            if fit["slope_s"] is not None:
                ends = [0.0, max(x) * 1.05]
                line = [fit["intercept_s"] + fit["slope_s"] * end for end in ends]
                axes.plot(ends, line, color=SERIES[1], linestyle="--", label="straight line")
                axes.set_title(f"R² {fit['r2']:.3f}" if fit["r2"] is not None else "", loc="left")
            axes.set_xlim(0)
            axes.set_ylim(0)
            axes.set_xlabel(_AXES[fit["x"]])
        figure.axes[0].set_ylabel("seconds")
        figure.axes[0].legend(loc="lower right")
    return figure
