"""Controls for a notebook with a kernel: the reader's own detections, computed anew by the library.

The explorers beside this file need no kernel and are for pages; these need one, and ipywidgets. Each function gives
a box of widgets: the controls, a figure, and the numbers in words.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from cpm_lib import evaluation, figures
from cpm_lib.boxes import extend_regions
from cpm_lib.data import DetectionDataset
from cpm_lib.errors import UserError
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.ledger import Table
from cpm_lib.model.fused_score import soft_nms
from cpm_lib.model.grid_points import heatmap_targets

Control = tuple[str, dict[str, Any]]
"""Class of ipywidgets, and its arguments."""
_METRICS = ("AP", "AP50", "AP75", "AP90")


def gamma(detections: Sequence[Detection], dataset: DetectionDataset, *, start: float = 0.8) -> Any:
    """A slider for gamma: AP of the fused score (Eq. 4) beside that of the classification score (Fig. 7).

    Args:
        detections: of a detector with an RSM, as `evaluation.predict` returns them, of all images of `dataset`.
        start: gamma at the start.

    Returns:
        ipywidgets.VBox of the slider, the figure and the table. Each new gamma costs one evaluation.

    Raises:
        UserError: ipywidgets is missing, or the detections have no RSM score.
    """
    if not detections or any("rsm_scores" not in found for found in detections):
        raise UserError("detections without RSM score, so gamma has nothing to weigh; use preset cpm")
    score = "fused" if all("iou_scores" in found for found in detections) else "cls_rsm"
    known: dict[float, dict[str, Any]] = {}
    by_class = evaluation.evaluate(evaluation.rescore(detections, "cls", 1.0), dataset)

    def answer(value: float) -> tuple[Figure, Table]:
        value = round(value, 4)
        if value not in known:
            known[value] = evaluation.evaluate(evaluation.rescore(detections, score, value), dataset)
        tried = sorted(known)
        curve = figures.gamma_curve(tried, [known[each]["AP"] or 0.0 for each in tried], by_class["AP"])
        rows = {"classification score": by_class, f"fused, gamma {value:g}": known[value]}
        return curve, Table(["", *_METRICS], [[name, *_texts(metrics)] for name, metrics in rows.items()])

    return _panel({"value": _slider("gamma", 0, 1, 0.05, start)}, answer)


def mapping(image: Tensor, proposal: Tensor, truth: Tensor, *, ratio: float = 2.0) -> Any:
    """Sliders for the mapping ratio and the place of the proposal: what the region reaches (Fig. 3, Sec. 3.2).

    Args:
        image: float [3,H,W] in 0..1; proposal, truth: [4] xyxy in pixels.
        ratio: at the start, 1 to 3.

    Returns:
        ipywidgets.VBox of the sliders, the figure and the numbers.

    Raises:
        UserError: ipywidgets is missing.
    """

    def answer(ratio: float, x: float, y: float) -> tuple[Figure, str]:
        roi = (proposal + torch.tensor([x, y, x, y]))[None].float()
        inside = evaluation.coverage(roi, truth[None], ratio).points
        targets = heatmap_targets(roi, truth[None].float(), ratio)[0]
        left, top, right, bottom = extend_regions(roi, ratio)[0].tolist()
        words = (
            f"The region reaches from {left:.1f}, {top:.1f} to {right:.1f}, {bottom:.1f}; "
            f"{round(9 * float(inside))} of 9 grid points of the object lie inside, "
            f"{int(targets.flatten(1).any(dim=1).sum())} heatmaps have a target. "
            f"A heatmap cell is {(right - left) / 56:.2f} pixels wide. "
            f"IoU of proposal and object: {float(box_iou(roi, truth[None].float())):.2f}."
        )
        return figures.stages(image, truth[None], truth, roi[0], mapping_ratios=[ratio]), words

    width, height = (proposal[2:] - proposal[:2]).tolist()
    controls = {
        "ratio": _slider("mapping ratio", 1, 3, 0.05, ratio),
        "x": _slider("move right", -width, width, 1, 0),
        "y": _slider("move down", -height, height, 1, 0),
    }
    return _panel(controls, answer)


def nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    image: Tensor | None = None,
    classes: Sequence[str] | None = None,
) -> Any:
    """Kind and threshold of NMS: which boxes stay, with which scores (torchvision's NMS, or `soft_nms`).

    Args:
        boxes: [N,4] xyxy in pixels; scores: [N]; labels: [N], counted from 1.
        image: float [3,H,W] in 0..1 to draw on; default: white.
        classes: names, label k is ``classes[k - 1]``; default: the numbers.

    Returns:
        ipywidgets.VBox of the controls, the figure and the table of the boxes kept.

    Raises:
        UserError: ipywidgets is missing.
    """
    names = classes or [str(label) for label in range(1, int(labels.max() if len(labels) else 0) + 1)]
    edge = boxes.max().item() + 4 if len(boxes) else 64.0
    canvas = torch.ones(3, int(edge), int(edge)) if image is None else image

    def answer(kind: str, threshold: float, sigma: float) -> tuple[Figure, Table]:
        if kind == "hard":
            keep = batched_nms(boxes.float(), scores.float(), labels, threshold)
            left = scores[keep]
        else:
            keep, left = soft_nms(boxes, scores, labels, "linear" if kind == "linear" else "gaussian", threshold, sigma)
        rows = [
            [str(index), names[int(labels[index]) - 1], f"{float(scores[index]):.3f}", f"{float(score):.3f}"]
            for index, score in zip(keep.tolist(), left, strict=True)
        ]
        table = Table(["box", "class", "score", "after NMS"], rows, f"{len(keep)} of {len(boxes)} boxes are kept.")
        return figures.detections(canvas, boxes[keep], labels[keep], left, names), table

    controls: dict[str, Control] = {
        "kind": ("Dropdown", {"options": ["hard", "linear", "gaussian"], "description": "NMS"}),
        "threshold": _slider("IoU threshold", 0.05, 0.95, 0.05, 0.3),
        "sigma": _slider("sigma", 0.1, 1, 0.1, 0.5),
    }
    return _panel(controls, answer)


def _slider(name: str, low: float, high: float, step: float, start: float) -> Control:
    # Computed when the slider rests, not for every value it passes.
    options = {"min": low, "max": high, "step": step, "value": start, "continuous_update": False}
    return "FloatSlider", {**options, "description": name}


def _panel(controls: Mapping[str, Control], answer: Callable[..., tuple[Figure, Table | str]]) -> Any:
    """Widgets by name, which call `answer` with their values at once and whenever one changes."""
    try:
        # Not at the top: the library itself needs nothing of Jupyter.
        widgets = importlib.import_module("ipywidgets")
    except ImportError as error:
        raise UserError("live controls need ipywidgets; run: pip install ipywidgets") from error
    style = {"description_width": "initial"}
    made = {name: getattr(widgets, kind)(style=style, **options) for name, (kind, options) in controls.items()}
    picture, words = widgets.Image(format="png", layout={"width": "36rem", "max_width": "100%"}), widgets.HTML()

    def update(_: object = None) -> None:
        figure, text = answer(**{name: control.value for name, control in made.items()})
        with io.BytesIO() as buffer:
            figure.savefig(buffer, format="png")
            picture.value = buffer.getvalue()
        words.value = text if isinstance(text, str) else text._repr_html_()

    update()
    for control in made.values():
        control.observe(update, names="value")
    return widgets.VBox([*made.values(), picture, words])


def _texts(metrics: Mapping[str, Any]) -> list[str]:
    return ["–" if metrics[name] is None else f"{metrics[name]:.2f}" for name in _METRICS]
