"""Static figures in one style: white cards that read on light and on dark pages.

Every function returns a `Figure` and leaves matplotlib's global state alone. Images are float [3,H,W] in 0..1.
Colours after the paper's Fig. 1: ground truth green, proposal (RoI) red, prediction orange.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.ops import box_iou

from cpm_lib import figure_style as draw
from cpm_lib.boxes import extend_regions
from cpm_lib.evaluation.diagnosis import score_correlation
from cpm_lib.figure_curves import training_curves
from cpm_lib.figure_style import GROUND_TRUTH, INK, PREDICTION, PROPOSAL, QUIET, SERIES, style

__all__ = [
    "GROUND_TRUTH",
    "PREDICTION",
    "PROPOSAL",
    "border_histogram",
    "detection_grid",
    "detections",
    "gamma_curve",
    "score_against_iou",
    "stages",
    "style",
    "training_curves",
]

_KEY = [("ground truth", GROUND_TRUTH, True), ("detection", PREDICTION, False)]


def detections(
    image: Tensor,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor | None,
    classes: Sequence[str],
    gt: Tensor | None = None,
    *,
    title: str = "",
) -> Figure:
    """One image with its detections (boxes [N,4] xyxy in pixels) and, in green, the ground truth [M,4]."""
    height, width = image.shape[-2:]
    with style():
        figure = draw.card(6.0, min(9.0, 6.0 * height / width + 0.4))
        axes = figure.subplots()
        draw.picture(axes, image, title)
        draw.boxes(axes, gt, GROUND_TRUTH, dashed=True)
        draw.boxes(axes, boxes, PREDICTION, draw.captions(labels, scores, classes))
        if gt is not None:
            draw.key(figure, _KEY)
    return figure


def detection_grid(
    images: Sequence[Tensor],
    detections: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    columns: int = 3,
    *,
    min_score: float = 0.3,
    gt: Sequence[Tensor] | None = None,
) -> Figure:
    """Several images with the detections that score at least `min_score`; `gt` holds boxes [M,4] per image."""
    columns = max(1, min(columns, len(images)))
    lines = max(1, math.ceil(len(images) / columns))
    shape = np.mean([image.shape[-2] / image.shape[-1] for image in images]) if images else 1.0
    with style():
        figure = draw.card(9.0, lines * (9.0 / columns * float(shape) + 0.1))
        grid = figure.subplots(lines, columns, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number >= len(images):
                axes.set_visible(False)
                continue
            draw.picture(axes, images[number], "")
            found = detections[number]
            keep = torch.as_tensor(found["scores"]) >= min_score
            draw.boxes(axes, gt[number] if gt is not None else None, GROUND_TRUTH, dashed=True)
            captions = draw.captions(found["labels"][keep], found["scores"][keep], classes)
            draw.boxes(axes, found["boxes"][keep], PREDICTION, captions, size=7.5)
        if gt is not None:
            draw.key(figure, _KEY)
    return figure


def stages(
    image: Tensor,
    stage_boxes: Tensor,
    gt: Tensor,
    proposal: Tensor,
    *,
    mapping_ratios: Sequence[float] | None = None,
) -> Figure:
    """One object on its way through the cascade: the proposal, then the box of each stage, with its true IoU.

    Args:
        stage_boxes: [S,4]; gt, proposal: [4]; all xyxy in pixels.
        mapping_ratios: if given, the region each stage's heatmap covers is drawn dashed.
    """
    path = torch.cat([proposal.reshape(1, 4), stage_boxes.reshape(-1, 4)]).float().cpu()
    ious = box_iou(path, gt.reshape(1, 4).float().cpu())[:, 0].tolist()
    regions = [extend_regions(box[None], ratio) for box, ratio in zip(path, mapping_ratios or (), strict=False)]
    seen = torch.cat([path, gt.reshape(1, 4).float().cpu(), *regions])
    low, high = seen[:, :2].min(0).values, seen[:, 2:].max(0).values
    margin = float((high - low).max()) * 0.08
    aspect = float(((high - low)[1] + 2 * margin) / ((high - low)[0] + 2 * margin))
    count = len(path)
    with style():
        figure = draw.card(2.7 * count, 2.7 * min(max(aspect, 0.4), 2.0) + 0.8)
        for number, axes in enumerate(figure.subplots(1, count, squeeze=False)[0]):
            name = f"stage {number}" if number else "proposal"
            draw.picture(axes, image, f"{name}: IoU {ious[number]:.2f}")
            if number and number <= len(regions):
                draw.boxes(axes, regions[number - 1], "#d0d0d0", dashed=True)
            draw.boxes(axes, gt.reshape(1, 4), GROUND_TRUTH)
            draw.boxes(axes, path[number : number + 1], PREDICTION if number else PROPOSAL)
            axes.set_xlim(float(low[0]) - margin, float(high[0]) + margin)
            axes.set_ylim(float(high[1]) + margin, float(low[1]) - margin)
        entries = [("ground truth", GROUND_TRUTH, False), ("proposal", PROPOSAL, False), ("box", PREDICTION, False)]
        draw.key(figure, [*entries, ("region of the heatmap", "#a0a0a0", True)] if regions else entries)
    return figure


def border_histogram(positions: Tensor, ratios: Sequence[float] = (2.0, 1.5, 1.25)) -> Figure:
    """Fig. 1 top, measured: where the ground truth's sides fall, and how far each mapping ratio reaches.

    Args:
        positions: [N,4] from `border_positions`.
    """
    values = positions.detach().cpu().float()
    first, second = values[:, :2].flatten(), values[:, 2:].flatten()
    first, second = first[first.isfinite()], second[second.isfinite()]
    bins = np.linspace(-0.75, 1.75, 101).tolist()
    with style():
        figure = draw.card(8.0, 4.2)
        axes = figure.subplots()
        axes.axvspan(0, 1, color="#f3f3f3", zorder=0)
        # Values beyond the axis are piled on its ends, so that nothing disappears.
        pale: Any = {"facecolor": "#c4e8dd", "edgecolor": GROUND_TRUTH, "hatch": "////"}
        kinds: list[tuple[str, Tensor, Any]] = [
            ("left and top side", first, {"facecolor": GROUND_TRUTH}),
            ("right and bottom side", second, pale),
        ]
        for name, sides, look in kinds:
            places = sides.clamp(-0.749, 1.749).numpy()
            axes.hist(places, bins=bins, histtype="stepfilled", alpha=0.85, label=name, **look)
        top = axes.get_ylim()[1] * 1.28
        axes.set_ylim(0, top)
        axes.text(0.5, top * 0.93, "inside the RoI", ha="center", color=INK)
        for number, ratio in enumerate((1.0, *sorted(ratios))):
            reach = (ratio - 1) / 2
            inside = torch.cat([(first >= -reach) & (first <= 1 + reach), (second >= -reach) & (second <= 1 + reach)])
            share = f"{100 * float(inside.float().mean()):.1f} % of sides" if len(inside) else "no side"
            dashes = ("-", "--", "-.", ":")[number % 4]
            for place in (-reach, 1 + reach):
                axes.axvline(place, color=PROPOSAL if ratio == 1 else INK, linestyle=dashes, linewidth=1.4)
            name = "RoI itself" if ratio == 1 else f"mapping ratio {ratio:g}"
            axes.plot([], [], color=PROPOSAL if ratio == 1 else INK, linestyle=dashes, label=f"{name}: {share}")
        axes.set_xlim(-0.75, 1.75)
        axes.set_xlabel("position of the ground truth's side (0 and 1: edges of the RoI, unit: side of the RoI)")
        axes.set_ylabel("number of sides")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure


def score_against_iou(scores: Tensor, ious: Tensor, title: str = "", *, label: str = "score") -> Figure:
    """Fig. 1 bottom and Fig. 5, measured: a score (0..1) against the true IoU (0..1) of its box, [N] each."""
    x, y = ious.detach().cpu().float(), scores.detach().cpu().float()
    result = score_correlation(y, x)
    with style():
        figure = draw.card(5.2, 4.6)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=QUIET, linestyle="--", linewidth=1.2, label="score = IoU")
        # Fewer points are drawn stronger, so that clouds of any size stay readable.
        alpha = float(np.clip(60 / math.sqrt(len(x) + 1) / 10, 0.08, 0.8))
        axes.scatter(x.numpy(), y.numpy(), s=11, color=SERIES[0], alpha=alpha, linewidths=0)
        edges = torch.linspace(0, 1, 11)
        place = torch.bucketize(x, edges[1:-1], right=True)
        centres, means = [], []
        for number in range(10):
            if int((place == number).sum()) >= 3:
                centres.append(float(edges[number]) + 0.05)
                means.append(float(y[place == number].mean()))
        axes.plot(centres, means, color=SERIES[1], marker="o", linewidth=1.8, label="mean score per IoU bin")
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.01)
        axes.set_xlabel("true IoU with the ground truth of its class")
        axes.set_ylabel(label)
        numbers = [f"{name} {result[key]:.2f}" for name, key in _NAMES.items() if result[key] is not None]
        axes.set_title("\n".join(filter(None, [title, ", ".join([*numbers, f"n = {result['n']}"])])), loc="left")
        axes.legend(loc="upper left")
    return figure


_NAMES = {"Pearson": "pearson", "Spearman": "spearman"}


def gamma_curve(
    gammas: Sequence[float],
    aps: Sequence[float],
    cls_ap: float | None = None,
    *,
    band: Sequence[tuple[float, float]] | None = None,
) -> Figure:
    """Fig. 7: AP (0..100) over gamma; dashed the AP of the classification score alone, the paper's "None".

    `band` is an interval (low, high) in AP for each gamma.
    """
    with style():
        figure = draw.card(6.0, 3.8)
        axes = figure.subplots()
        if band is not None:
            low, high = zip(*band, strict=True)
            axes.fill_between(list(gammas), low, high, color=SERIES[0], alpha=0.18, linewidth=0, label="95 % interval")
        axes.plot(list(gammas), list(aps), color=SERIES[0], marker="o", label="fused score")
        best = int(np.argmax(aps))
        axes.plot([gammas[best]], [aps[best]], "o", markersize=12, markerfacecolor="none", color=SERIES[1])
        offset = (0, 12) if aps[best] < max(axes.get_ylim()) else (0, -18)
        text = f"{aps[best]:.1f} at {gammas[best]:g}"
        axes.annotate(text, (gammas[best], aps[best]), offset, textcoords="offset points", ha="center")
        if cls_ap is not None:
            axes.axhline(cls_ap, color=QUIET, linestyle="--", label=f"classification score only: {cls_ap:.1f}")
        axes.margins(y=0.22)
        axes.set_xlabel("gamma (0: RSM only, 1: classification × ISM only)")
        axes.set_ylabel("AP (%)")
        axes.legend(loc="best")
    return figure
