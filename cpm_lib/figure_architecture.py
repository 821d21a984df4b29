"""Figure 2 again, with the shapes that a running detector really has: none of them is typed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from cpm_lib import figure_style as draw
from cpm_lib.errors import UserError
from cpm_lib.figure_style import INK, QUIET, SERIES, STAGES, style
from cpm_lib.model import CPMRCNN, Detector

Shapes = dict[str, tuple[int, ...]]
"""Name of a tensor -> its shape in one forward pass."""

CASCADE, FINAL = SERIES[2], SERIES[0]
"""Green and blue as in the paper's figure: what every stage does, and what only the last one does."""

_TOP, _MIDDLE, _BOTTOM = (75.5, 99), (31, 64.5), (3, 20.5)
"""Lower and upper edge of the three rows, in per cent of the height."""
_ISM, _RSM = 50.0, 85.5
"""Where the two scoring modules stand, in per cent of the width."""

_Read = Callable[[tuple[Any, ...], Any], Mapping[str, Any]]


def traced_shapes(model: Detector, image: Tensor) -> Shapes:
    """Run the detector on one picture and keep the shapes of what passes between its parts.

    Args:
        model: CPM R-CNN or Grid R-CNN; it is in eval mode for the pass and back in its mode afterwards.
        image: float [3,H,W] in 0..1, of any size.

    Returns:
        In the order of the forward pass: ``image``, ``pixels`` (resized, padded), ``C2``..``C5``, ``P2``..``P6``,
        ``proposals``, then ``pooled``, ``hidden`` and ``logits`` of the classification branch, per stage ``stage 1
        pooled``, ``stage 1 features``, ``stage 1 heatmaps``, then ``ISM input``, ``ISM output``, ``RSM pooled``, ``RSM
        output`` as far as there are such modules, and ``detections``.

    Raises:
        UserError: another kind of detector.
    """
    shapes: Shapes = {"image": tuple(image.shape)}
    training = model.training
    with _watched(_known(model), shapes), torch.no_grad():
        (found,) = model.eval()([image])
    model.train(training)
    return shapes | {"detections": tuple(found["boxes"].shape)}


def architecture(model: Detector, image: Tensor) -> Figure:
    """Figure 2: the parts of a detector, what flows between them in one forward pass, and its shapes.

    Args:
        model, image: as for `traced_shapes`.

    Raises:
        UserError: neither CPM R-CNN nor Grid R-CNN.
    """
    shapes = traced_shapes(model, image)
    with style():
        figure = draw.card(7.4, 6.1)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.005, 0.0, 0.99, 1.0))
        axes.set(xlim=(-0.4, 100.4), ylim=(-4, 100))
        axes.set_axis_off()
        _trunk(axes, shapes)
        edges = _stages(axes, _known(model), shapes)
        _scores(axes, _known(model), shapes, edges)
        for place, colour, words in (
            (1, INK, "features"),
            (22, CASCADE, "boxes through the cascade"),
            (65, FINAL, "after the last stage only"),
        ):
            _arrow(axes, [(place, -2), (place + 5, -2)], colour)
            axes.text(place + 6, -2, words, va="center", fontsize=9.5, color=colour)
    return figure


def _known(model: Detector) -> CPMRCNN:
    if not isinstance(model, CPMRCNN):
        raise UserError(f"{model.config.preset}: the drawing knows CPM R-CNN and Grid R-CNN; choose one of these")
    return model


def _trunk(axes: Axes, shapes: Shapes) -> None:
    """From the picture to classified RoIs."""

    def maps(letter: str) -> list[str]:
        return [f"{name} {_by(shape)}" for name, shape in shapes.items() if name[0] == letter and name[1:].isdigit()]

    parts = (
        (0, 15.5, "image", [_by(shapes["image"]), "enters as", _by(shapes["pixels"][1:])]),
        (18, 19, "backbone", maps("C")),
        (39.5, 20.5, "feature pyramid", maps("P")),
        (62.5, 12.5, "RPN", ["proposals", _by(shapes["proposals"])]),
        (77.5, 22.5, "classification", ["RoIAlign", f"  {_by(shapes['pooled'])}", f"hidden {_by(shapes['hidden'])}",
                                        f"logits {_by(shapes['logits'])}"]),
    )  # fmt: skip
    for (left, width, *_), following in pairwise(parts):
        _arrow(axes, [(left + width, 88), (following[0], 88)], INK)
    for left, width, name, lines in parts:
        _box(axes, (left, left + width), _TOP, name, lines, QUIET)
    _arrow(axes, [(90, _TOP[0]), (90, 72.5), (3, 72.5), (3, _MIDDLE[1])], CASCADE)
    rois = f"{shapes['stage 1 pooled'][0]} RoIs after NMS"
    axes.text(88, 71.8, rois, ha="right", va="top", fontsize=9.5, color=CASCADE)


def _stages(axes: Axes, model: CPMRCNN, shapes: Shapes) -> tuple[float, float]:
    """The cascade from left to right, and the features that every stage pools; left and right edge of the last."""
    count = model.config.cascade.stages
    pitch = min(103 / count, 36.0)
    width = pitch - 3
    for number, ratio in enumerate(model.config.cascade.mapping_ratios):
        name, left = f"stage {number + 1}", pitch * number
        rois = shapes[f"{name} pooled"][0]
        lines = [
            f"mapping ratio {ratio:g}", "RoIAlign", f"  {_by(shapes[f'{name} pooled'])}",
            f"{model.config.grid.convs} convolutions", f"  g′ {_by(shapes[f'{name} features'])}",
            "upsampling", f"  heatmaps {_by(shapes[f'{name} heatmaps'])}",
            "mapping and voting", f"  boxes {_by((rois, 4))}",
        ]  # fmt: skip
        colour = STAGES[min(number, len(STAGES) - 1)]
        _box(axes, (left, left + width), _MIDDLE, name, lines, colour)
        _arrow(axes, [(left + width / 2, 68.5), (left + width / 2, _MIDDLE[1])], INK)
        if number:
            _arrow(axes, [(left - 3, 47), (left, 47)], CASCADE)
    centres = [width / 2, 50, width / 2 + pitch * (count - 1)]
    axes.plot([min(centres), max(centres)], [68.5, 68.5], color=INK, linewidth=1.6, zorder=1)
    axes.plot([50, 50], [68.5, _TOP[0]], color=INK, linewidth=1.6, zorder=1)
    axes.text(49, 71.8, "P2 to P5", ha="right", va="top", fontsize=9.5)
    return pitch * (count - 1), pitch * (count - 1) + width


def _scores(axes: Axes, model: CPMRCNN, shapes: Shapes, edges: tuple[float, float]) -> None:
    """What scores the boxes of the last stage, whose left and right edge are `edges`."""
    gamma = model.config.scoring.gamma
    ism, rsm = "ISM input" in shapes, "RSM pooled" in shapes
    product = "cls × ISM" if ism else "cls"
    resampled = f" × RSM^{1 - gamma:.1f}"
    formula = (f"({product})^{gamma:g}" if ism else f"{product}^{gamma:g}") + resampled if rsm else product
    lines = [formula, "cls: from the classification", f"detections  {_by(shapes['detections'])}"]
    _box(axes, (0, 30.5), _BOTTOM, "fused score" if ism or rsm else "classification score", lines, QUIET)
    if ism:
        lines = [f"g′  {_by(shapes['ISM input'])}", f"IoU  {_by(shapes['ISM output'])}"]
        _box(axes, (37, 63), _BOTTOM, "ISM", lines, FINAL)
        _arrow(axes, _down(edges, -7, _ISM, 24), FINAL)
        _arrow(axes, [(37, 14), (30.5, 14)], FINAL)
    if rsm:
        lines = ["RoIAlign of the last boxes", f"  {_by(shapes['RSM pooled'])}", f"logits  {_by(shapes['RSM output'])}"]
        _box(axes, (70, 100), _BOTTOM, "RSM", lines, FINAL)
        _arrow(axes, _down(edges, 7, _RSM, 27.5), FINAL)
        _arrow(axes, [(70, 7), (66.5, 7), (66.5, 1), (15, 1), (15, _BOTTOM[0])], FINAL)
    if not ism and not rsm:
        _arrow(axes, _down(edges, 0, 15, 25), FINAL)


def _down(edges: tuple[float, float], shift: float, goal: float, height: float) -> list[tuple[float, float]]:
    """The way from a stage to `goal` in the last row: straight, or along a line at this height."""
    left, right = edges
    if left < goal < right:
        return [(goal, _MIDDLE[0]), (goal, _BOTTOM[1])]
    start = (left + right) / 2 + shift
    return [(start, _MIDDLE[0]), (start, height), (goal, height), (goal, _BOTTOM[1])]


def _box(
    axes: Axes, sides: tuple[float, float], edges: tuple[float, float], name: str, lines: Sequence[str], colour: str
) -> None:
    (left, right), (low, high) = sides, edges
    axes.add_patch(
        FancyBboxPatch(
            (left + 0.6, low + 0.6), right - left - 1.2, high - low - 1.2, boxstyle="round,pad=0.6", facecolor="white",
            edgecolor=colour, linewidth=2.2, zorder=2,
        )
    )  # fmt: skip
    axes.text(left + 1.3, high - 1.3, name, fontsize=10, fontweight="bold", va="top", zorder=3)
    axes.text(left + 1.3, high - 5.2, "\n".join(lines), fontsize=9.6, va="top", linespacing=1.25, zorder=3)


def _arrow(axes: Axes, way: Sequence[tuple[float, float]], colour: str) -> None:
    """A line through these points with a head at its end."""
    x, y = zip(*way, strict=True)
    axes.plot(x[:-1], y[:-1], color=colour, linewidth=1.6, zorder=1)
    head = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", way[-1], way[-2], arrowprops=head, zorder=1)


def _by(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


@contextmanager
def _watched(model: CPMRCNN, shapes: Shapes) -> Iterator[None]:
    """While the block runs, every forward pass of a part writes its shapes."""

    def watch(module: nn.Module, read: _Read) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            shapes.update({name: tuple(tensor.shape) for name, tensor in read(given, output).items()})

        return module.register_forward_hook(hook)

    handles = [watch(module, read) for module, read in _parts(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _parts(model: CPMRCNN) -> Iterator[tuple[nn.Module, _Read]]:
    """Modules, and which of their inputs and outputs are of interest, by name."""

    def result(name: str) -> _Read:
        return lambda _, output: {name: output}

    def of_image(name: str) -> _Read:
        return lambda _, output: {name: output[0]}

    def stage(name: str) -> _Read:
        return lambda given, output: {
            f"{name} pooled": given[0],
            f"{name} features": output.features,
            f"{name} heatmaps": output.heatmaps,
        }

    body, classifier = model.backbone.body, model.classification.classifier
    yield body.conv1, lambda given, _: {"pixels": given[0]}
    for level in range(1, 5):
        yield body.get_submodule(f"layer{level}"), of_image(f"C{level + 1}")
    yield model.backbone, lambda _, output: {f"P{level}": maps[0] for level, maps in enumerate(output, start=2)}
    yield model.proposals, lambda _, output: {"proposals": output[0].boxes}
    yield classifier.pool, result("pooled")
    yield classifier.head, result("hidden")
    yield classifier.predictor, result("logits")
    for number, branch in enumerate(model.cascade.stages, start=1):
        yield branch, stage(f"stage {number}")
    if model.iou_scoring is not None:
        yield model.iou_scoring, lambda given, output: {"ISM input": given[0], "ISM output": output}
    if model.resampling is not None:
        yield model.resampling.classifier.pool, result("RSM pooled")
        yield model.resampling.classifier.predictor, result("RSM output")
