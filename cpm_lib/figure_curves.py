"""The curves of a training run: losses, learning rate, AP."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cpm_lib import figure_style as draw
from cpm_lib.figure_style import INK, QUIET, SERIES, style

POINTS = 80
"""Most points of a curve: a longer run is drawn as means over equal stretches of iterations."""
SHORT = 30
"""A run of fewer iterations gets a dot for each, because a loss of 0 parts its curve into single points."""

Rows = Sequence[Mapping[str, Any]]


def training_curves(
    metrics: Rows, evaluations: Rows | None = None, *, title: str = "", paper: float | None = None
) -> Figure:
    """Losses, learning rate and AP of a run over its iterations.

    Where a part of the loss is 0 (no sample) its curve has a gap, because the axis is logarithmic.

    Args:
        metrics: lines of metrics.jsonl (iteration, lr, loss, loss_*).
        evaluations: dicts with iteration and AP in 0..100 (and AP50, AP75 if present).
        paper: an AP to compare with, drawn dashed; only for runs on the paper's data.
    """
    rows = [row for row in metrics if row.get("loss") is not None]
    with style():
        panels = 3 if evaluations else 2
        figure = draw.card(9.0, 3.0 * panels)
        axes = figure.subplots(panels, 1, sharex=True, height_ratios=[2, 1, 1.4][:panels])
        _losses(axes[0], rows)
        _rates(axes[1], rows)
        for axis in axes:
            for iteration, _, _ in _drops(rows):
                axis.axvline(iteration, color=QUIET, linestyle=":", linewidth=1.2)
        if evaluations:
            _precisions(axes[2], evaluations, paper)
        axes[0].set_title(title, loc="left")
        axes[-1].set_xlabel("iteration")
        axes[-1].xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, steps=[1, 2, 5, 10]))
        axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure


def _losses(axes: Axes, rows: Rows) -> None:
    # In the order of the file, which is that of the forward pass.
    names = list(dict.fromkeys(name for row in rows for name in row if name.startswith("loss_")))
    width = -(-len(rows) // POINTS) or 1
    place = _means([row["iteration"] for row in rows], width)
    for number, name in enumerate(["loss", *names]):
        values = np.array([row.get(name, np.nan) for row in rows], dtype=float)
        colour = SERIES[(number - 1) % len(SERIES)] if number else INK
        label = name.removeprefix("loss_") if number else "total"
        axes.plot(
            place,
            _means(values, width),
            color=colour,
            linewidth=1.4 if number else 2.2,
            linestyle="-" if number <= len(SERIES) else "--",
            marker="." if len(rows) < SHORT else "",
            label=label,
        )
        if not number and width > 1:
            parts = _parts(values, width)
            low, high = (np.array([np.quantile(part, share) for part in parts]) for share in (0.1, 0.9))
            axes.fill_between(place, low, high, color=INK, alpha=0.12, linewidth=0, label="total, 10 to 90 %")
    if rows:
        axes.set_yscale("log", nonpositive="mask")
    axes.set_ylabel("loss")
    heading = f"mean of {width:,} iterations" if width > 1 else None
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title=heading, title_fontsize=9.5, alignment="left")


def _rates(axes: Axes, rows: Rows) -> None:
    rates = [(row["iteration"], row["lr"]) for row in rows if "lr" in row]
    axes.plot([x for x, _ in rates], [y for _, y in rates], color=SERIES[0])
    axes.set_ylabel("learning rate")
    if rates:
        axes.set_ylim(0, 1.1 * max(rate for _, rate in rates))
    for iteration, before, after in _drops(rows):
        text = f"{before:.3g} to {after:.3g}\nat {iteration:,}"
        axes.annotate(text, (iteration, axes.get_ylim()[1] * 0.6), (-5, 0), textcoords="offset points",
                      ha="right", va="top", fontsize=9)  # fmt: skip


def _precisions(axes: Axes, evaluations: Rows, paper: float | None) -> None:
    for number, name in enumerate(("AP", "AP50", "AP75")):
        points = [(row["iteration"], row[name]) for row in evaluations if row.get(name) is not None]
        if points:
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", color=SERIES[number], label=name)
    if paper is not None:
        axes.axhline(paper, color=SERIES[0], linestyle="--", linewidth=1.2, label=f"AP in the paper: {paper:.1f}")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("AP (%)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _drops(rows: Rows) -> list[tuple[int, float, float]]:
    """(iteration, learning rate before, after) of each step of the schedule, which is to a tenth."""
    pairs = [(last, row) for last, row in pairwise(rows) if "lr" in last and "lr" in row]
    return [
        (int(row["iteration"]), last["lr"], row["lr"])
        for last, row in pairs
        if math.isclose(row["lr"], 0.1 * last["lr"], rel_tol=1e-6)
    ]


def _parts(values: Any, width: int) -> list[Any]:
    return [values[start : start + width] for start in range(0, len(values), width)]


def _means(values: Any, width: int) -> Any:
    return np.array([np.mean(part) for part in _parts(values, width)])
