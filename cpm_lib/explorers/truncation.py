"""Truncation: an object leaves the image step by step, and the scores answer (Sec. 3.3.2, Fig. 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.ops import box_iou

from cpm_lib import evaluation, shipped
from cpm_lib import figure_style as draw
from cpm_lib.data import drawing, shapes
from cpm_lib.errors import UserError
from cpm_lib.explorers.component import Explorer, photo, plain
from cpm_lib.model import Detector
from cpm_lib.typed import nearest

SHARES = tuple(number / 20 for number in range(13))
"""0, 5, ... 60 per cent."""
SCORES = {"cls": "cls_scores", "ISM": "iou_scores", "RSM": "rsm_scores", "fused": "scores"}
MIN_IOU = 0.5
"""Least IoU of a box with the object, as for AP50, to count as a detection of it."""
KNOBS = shapes.profile_config("quick")


class Scene(NamedTuple):
    """A picture wider than the image that the detector gets, with one object.

    Attributes:
        canvas: float [3,H,W] in 0..1; box: [4] xyxy of the whole object, pixels of the canvas; label: 1-based.
    """

    canvas: Tensor
    box: Tensor
    label: int


def truncation(
    model: Detector | None = None,
    *,
    classes: Sequence[str] = ("square", "triangle", "star", "ring", "disk"),
    longest: int = 60,
    side: int = 128,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
) -> Explorer:
    """Let the border of the image cut an object, and watch the scores of the box that fits it best.

    The model runs once per object and share, about 4 CPU seconds in all with the defaults.

    Args:
        model: a detector of `shapes`; default: the shipped one.
        classes: of the objects to choose from, one scene each, see `scene`.
        longest: longest side of the whole object in pixels; side: of the image.
        shares: of the object's width outside the image, 0 up to less than 1, rising.
        seed: of the scenes.

    Raises:
        UserError: an unknown class, or shares that are not a rising list in 0..1.
    """
    if not shares or list(shares) != sorted(set(shares)) or not 0 <= shares[0] <= shares[-1] < 1:
        raise UserError(f"truncation: shares are {list(shares)}; give a rising list from 0 up to less than 1")
    model = model or shipped.model()
    scenes = [scene(name, longest, side, seed) for name in classes]
    if not scenes:
        raise UserError("truncation: no class; name at least one")
    tracks = [follow(model, view, shares, side) for view in scenes]
    return Explorer(
        "truncation",
        "Cut an object at the border, and watch its scores",
        "An object at the border of the image, whole and cut, with the box found, and below the curves of its scores "
        "over the share outside. With scripts the image can be shifted and another object chosen.",
        {
            "side": side,
            "gamma": model.config.scoring.gamma,
            "min_iou": MIN_IOU,
            "objects": [
                {
                    "name": name,
                    "image": photo(view.canvas),
                    "width": view.canvas.shape[-1],
                    "box": plain(view.box),
                    "frames": frames,
                }
                for name, view, frames in zip(classes, scenes, tracks, strict=True)
            ],
        },
        _still(scenes[0], tracks[0], side),
    )


def scene(name: str, longest: int, side: int = 128, seed: int = 0) -> Scene:
    """One object of `shapes` alone on a background, half its size from the left, at mid-height.

    The canvas is `longest` pixels wider than the image: an image is a window of `side` columns of it, so that
    shifting needs no padding, and nothing but the border changes from one image to the next.

    Raises:
        UserError: an unknown class, or an object that does not fit.
    """
    if name not in drawing.CLASSES:
        raise UserError(f"truncation: unknown class '{name}'{nearest(name, drawing.CLASSES)}")
    if not 8 <= longest <= side - 8:
        raise UserError(f"truncation: longest is {longest}; an image of {side} pixels needs 8 to {side - 8}")
    kind = drawing.CLASSES.index(name)
    rng = np.random.default_rng([seed, kind])
    # The background's generator makes squares; a band of one is as wide as needed.
    canvas = drawing.background(rng, side + longest, KNOBS.background)[:, :side].copy()
    distance = drawing.distances(kind, longest, 1.0, 2 * np.pi * rng.random(), (0.5, 0.5), 2.0)
    extent = drawing.tight_box(distance)
    assert extent is not None  # 8 pixels cover several centres
    left, top = longest // 2 - round(extent[0]), round((side - extent[1] - extent[3]) / 2)
    height, width = distance.shape
    window = canvas[:, max(top, 0) : top + height, max(left, 0) : left + width]
    seen = distance[max(-top, 0) :, max(-left, 0) :][: window.shape[1], : window.shape[2]]
    drawing.paint(rng, window, seen, float(np.mean(KNOBS.blur)), KNOBS.contrast, False, side / 128)
    canvas += np.float32(np.mean(KNOBS.noise)) * rng.standard_normal(canvas.shape, np.float32)
    box = torch.tensor([extent[0] + left, extent[1] + top, extent[2] + left, extent[3] + top])
    return Scene(torch.from_numpy(canvas).clamp(0, 1), box, kind + 1)


def follow(model: Detector, view: Scene, shares: Sequence[float], side: int = 128) -> list[dict[str, Any]]:
    """What the model says of the object at every share.

    Returns:
        Per share: share; left, the first column of the image, a whole number. Of the detection of the object's class
        with the largest IoU: box, scores (those of `SCORES` that the model has), iou with the visible part, whole, the
        IoU with the whole object; box is None and the others are absent if that IoU is below `MIN_IOU`. called: class
        and fused score of the highest scored detection of any class on the object, None without one. Boxes are [4] in
        pixels of the canvas.
    """
    x1, width = float(view.box[0]), float(view.box[2] - view.box[0])
    lefts = [round(x1 + share * width) for share in shares]
    images = [view.canvas[:, :, left : left + side] for left in lefts]
    frames = []
    # A list of images with ids is all of a data set that inference asks for.
    data = [(image, {"image_id": number}) for number, image in enumerate(images)]
    for share, left, found in zip(shares, lefts, evaluation.predict(model, data), strict=True):
        shift = torch.tensor([left, 0.0, left, 0.0])
        visible = torch.maximum(view.box, torch.tensor([left, 0.0, 0.0, 0.0]))
        boxes = found["boxes"] + shift
        ious = box_iou(boxes, visible[None])[:, 0]
        frame: dict[str, Any] = {"share": share, "left": left, "called": None, "box": None}
        on_it = torch.nonzero(ious >= MIN_IOU).flatten()
        if len(on_it):
            best = on_it[found["scores"][on_it].nan_to_num(-1.0).argmax()]
            name = drawing.CLASSES[int(found["labels"][best]) - 1]
            frame["called"] = [name, _number(found["scores"][best])]
        own = on_it[found["labels"][on_it] == view.label]
        if len(own):
            row = own[ious[own].argmax()]
            frame["box"], frame["iou"] = plain(boxes[row], 1), _number(ious[row])
            frame["whole"] = _number(box_iou(boxes[row][None], view.box[None])[0, 0])
            frame["scores"] = {name: _number(found[key][row]) for name, key in SCORES.items() if key in found}
        frames.append(frame)
    return frames


def _number(value: Tensor | float, digits: int = 4) -> float | None:
    return round(float(value), digits) if math.isfinite(float(value)) else None


def _still(view: Scene, frames: list[dict[str, Any]], side: int) -> Figure:
    with draw.style():
        figure = draw.card(9.0, 6.0)
        panels = figure.subplot_mosaic([["whole", "half", "last"], ["curves"] * 3], height_ratios=[1, 1.1])
        shown = {"whole": frames[0], "half": frames[len(frames) // 2], "last": frames[-1]}
        for name, frame in shown.items():
            axes = panels[name]
            left = frame["left"]
            draw.picture(axes, view.canvas[:, :, left : left + side], f"{100 * frame['share']:.0f} % outside")
            shift = torch.tensor([left, 0.0, left, 0.0])
            draw.boxes(axes, (view.box - shift)[None].clamp(min=0), draw.GROUND_TRUTH, dashed=True)
            if frame["box"]:
                draw.boxes(axes, (torch.tensor(frame["box"]) - shift)[None], draw.PREDICTION)
        axes = panels["curves"]
        found = [frame for frame in frames if frame["box"]]
        shares = [100 * frame["share"] for frame in found]
        for name in found[0]["scores"] if found else ():
            axes.plot(shares, [frame["scores"][name] for frame in found], marker="o", label=name)
        axes.plot(shares, [frame["iou"] for frame in found], "--", color=draw.INK, label="true IoU")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("share of the object's width outside the image, %")
        axes.legend(loc="lower left", ncols=2)
    return figure
