"""Figures of the last chapters: IoU under both pixel conventions, how the claims stand, and why one stands so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cpm_lib import boxes as box_ops
from cpm_lib import figure_style as draw
from cpm_lib.ablation.verdict import Judged, Outcome
from cpm_lib.claims import Claim
from cpm_lib.config import Config
from cpm_lib.figure_style import GROUND_TRUTH, INK, QUIET, SERIES, style

VERDICTS: Mapping[str, tuple[str, str]] = {
    "reproduced": ("#008060", ""),
    "partly": ("#7fc4ad", "//"),
    "not resolved": ("#c9c9c9", ".."),
    "contradicted": ("#c44e00", "xx"),
    "not run": ("#ffffff", ""),
}
"""Verdict -> colour and hatch."""
OUTCOME_COLOURS: Mapping[Outcome, str] = {
    "holds": SERIES[2],
    "sign only": SERIES[0],
    "open": QUIET,
    "other side": SERIES[1],
}
"""Outcome of one part -> colour."""


def verdicts(claims: Iterable[Claim]) -> Figure:
    """How many claims of every place of the paper have each verdict; only claims that a run can decide. A claim of
    several places is counted at each of them.

    Args:
        claims: as `read_claims` returns them.
    """
    counts: dict[str, Counter[str]] = {}
    for claim in claims:
        if claim.status in VERDICTS and claim.kind != "quoted":
            for place in places(claim.source):
                counts.setdefault(place, Counter())[claim.status] += 1
    names = sorted(counts, key=_rank)
    with style():
        figure = draw.card(8.4, 0.5 + 0.27 * max(len(names), 4))
        axes = figure.subplots()
        left = [0] * len(names)
        for verdict, (colour, hatch) in VERDICTS.items():
            width = [counts[name][verdict] for name in names]
            bars: Any = {"color": colour, "hatch": hatch, "edgecolor": QUIET, "linewidth": 0.8, "label": verdict}
            axes.barh(names, width, left=left, **bars)
            left = [start + more for start, more in zip(left, width, strict=True)]
        axes.invert_yaxis()
        axes.margins(y=0.02)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("claims (one made at several places counts at each)")
        figure.legend(loc="outside upper center", ncols=len(VERDICTS))
    return figure


def intervals(judged: Judged) -> Figure:
    """The interval of each part of one claim, coloured and named by its outcome, the paper's numbers as diamonds, and
    shaded where the tolerance asks the whole interval to lie.

    Args:
        judged: with at least one part.
    """
    tolerance = judged.claim.tolerance
    paper: Mapping[str, Any] = judged.claim.values
    parts = sorted(judged.parts, key=lambda part: list(paper).index(part[1]))
    with style():
        figure = draw.card(8.4, 1.0 + 0.3 * len(parts))
        axes = figure.subplots()
        for line, (_, part, quantity, outcome) in enumerate(parts):
            look: Any = {"color": OUTCOME_COLOURS[outcome], "linewidth": 2, "markersize": 9}
            axes.plot([quantity["low"], quantity["high"]], [line, line], "|-", **look)
            axes.plot([quantity["difference"]], [line], "o", color=OUTCOME_COLOURS[outcome])
            axes.plot([paper[part]], [line], "D", color=INK, markerfacecolor="none")
            axes.text(1.01, line, outcome, transform=axes.get_yaxis_transform(), va="center")
        axes.axvline(0, color=INK, linewidth=1)
        # The range reaches as far as the axis where the tolerance names no end.
        far = max(map(abs, axes.get_xlim()))
        near, end = (tolerance.min, far if tolerance.max is None else tolerance.max)
        if tolerance.within is not None:
            near, end = -tolerance.within, tolerance.within
        low, high = (-end, -near) if tolerance.sign == "-" else (near, end)
        axes.set_xlim(axes.get_xlim())
        axes.axvspan(low, high, color=GROUND_TRUTH, alpha=0.15, linewidth=0)
        axes.set_yticks(range(len(parts)), [f"{part} of {record}" for record, part, *_ in parts])
        axes.set_ylim(len(parts) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.set_xlabel("difference with its 95 % interval, diamonds the paper's; shaded: where it has to lie")
    return figure


def places(source: str) -> list[str]:
    """The single places in the source of a claim: "Sec. 1, Tables 4 and 5" has three."""
    found: list[str] = []
    for kind, numbers in re.findall(r"(Abstract|Sec\.|Eq\.|Fig\.|Table)s?([\d., and]*)", source):
        found += [f"{kind} {number}" for number in re.findall(r"\d+(?:\.\d+)*", numbers)] or [kind]
    return found


def iou_by_size(sides: Iterable[float] = range(4, 129), shift: float = 0.5) -> Figure:
    """IoU of two square boxes, one moved by a share of its side, as each convention and each mixture gives it.

    Args:
        sides: lengths in pixels; shift: 0..1.
    """
    threshold = Config().classification.nms_iou
    lengths = torch.tensor(list(sides), dtype=torch.float32)
    zeros = torch.zeros_like(lengths)
    boxes = torch.stack((zeros, zeros, lengths, lengths), dim=1)
    moved = boxes + (shift * lengths)[:, None] * torch.tensor([1.0, 0.0, 1.0, 0.0])
    one, other = box_ops.to_last_pixel(boxes), box_ops.to_last_pixel(moved)
    curves = {
        "+1 on boxes that end at the border": box_ops.iou(boxes, moved, plus_one=True),
        "one convention throughout, either of them": box_ops.iou(boxes, moved),
        "no +1 on boxes that end at the last pixel": box_ops.iou(one, other),
    }
    with style():
        figure = draw.card(8.4, 3.4)
        axes = figure.subplots()
        for colour, line, (name, ious) in zip(SERIES, ("--", "-", "-."), curves.items(), strict=False):
            axes.plot(lengths, ious.diagonal(), line, color=colour, label=name, linewidth=2)
        axes.axhline(threshold, color=QUIET, linestyle=":", label=f"threshold of NMS ({threshold:g})")
        axes.set_xlabel("side of the boxes in pixels")
        axes.set_ylabel("IoU")
        axes.legend()
    return figure


def _rank(name: str) -> tuple[int, str]:
    """Abstract, tables, figures, then the text."""
    kinds = ("Abstract", "Table", "Fig.", "Sec.")
    return next((number for number, kind in enumerate(kinds) if name.startswith(kind)), len(kinds)), name
