"""The look of every static figure: colours, type, and pictures with boxes on them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import torch
from cycler import cycler
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

# Okabe and Ito's colours, which colour-blind readers tell apart; the ground truth is dashed besides.
GROUND_TRUTH = "#009e73"
PROPOSAL = "#d55e00"
STAGES = ("#56b4e9", "#cc79a7", "#e69f00")
"""The boxes of stages 1, 2 and 3."""
PREDICTION = STAGES[-1]
"""Of any detector: its last box."""
INK = "#222222"
QUIET = "#767676"
SERIES = ("#0068a8", "#c44e00", "#008060", "#a03c8c", "#6b5b00", "#4a4a9c", "#b01030", "#3c7a9c", "#7a4a20")
"""Line colours with a contrast above 4 on white, told apart by colour-blind readers in the first four."""

_RC: Any = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.labelsize": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "axes.prop_cycle": cycler(color=SERIES),
}


@contextmanager
def style() -> Iterator[None]:
    """The library's style for figures made inside the ``with`` block."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # A reader's own matplotlibrc must not change the figures; keeps the backend.
        matplotlib.rcParams.update(_RC)
        yield


class _Card(Figure):
    """A figure that shows itself in a notebook even where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        return png(self, self.dpi)


def png(figure: Figure, dpi: float) -> bytes:
    """A figure in 256 colours of its own: a third of the bytes where photographs are drawn, and a page has several."""
    with io.BytesIO() as drawn, io.BytesIO() as small:
        figure.savefig(drawn, format="png", dpi=dpi)
        with Image.open(drawn) as image:
            image.convert("RGB").quantize(256).save(small, format="png", optimize=True)
        return small.getvalue()


def card(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    return _Card(figsize=(width, height), layout="constrained")


def picture(axes: Axes, image: Tensor, title: str) -> None:
    """Show an image, float [3,H,W] in 0..1, in continuous pixel coordinates without axes."""
    pixels = image.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy()
    height, width = pixels.shape[:2]
    # Box coordinates are continuous: pixel (0, 0) covers 0..1, not -0.5..0.5.
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)


def captions(labels: Tensor, scores: Tensor | None, classes: Sequence[str]) -> list[str]:
    """Texts like "cat 0.93"; label k is ``classes[k - 1]``."""
    names = [classes[int(label) - 1] for label in labels]
    if scores is None:
        return names
    return [f"{name} {float(score):.2f}" for name, score in zip(names, scores, strict=True)]


def boxes(
    axes: Axes,
    coordinates: Tensor | None,
    colour: str,
    texts: Sequence[str] = (),
    *,
    dashed: bool = False,
    size: float = 9.0,
) -> None:
    """Boxes with a dark rim, so that they are seen on any picture, and captions kept inside it."""
    rows = [] if coordinates is None else torch.as_tensor(coordinates).detach().cpu().float().reshape(-1, 4).tolist()
    for number, (x1, y1, x2, y2) in enumerate(rows):
        frame = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=2)
        frame.set_linestyle("--" if dashed else "-")
        frame.set_path_effects([patheffects.Stroke(linewidth=3.4, foreground="#00000090"), patheffects.Normal()])
        axes.add_patch(frame)
        if number < len(texts):
            label = {"facecolor": colour, "edgecolor": "none", "pad": 1.2, "alpha": 0.92}
            # Captions of boxes in the right half grow to the left, so that the picture's edge does not cut them.
            left, right = axes.get_xlim()
            turned = x1 + x2 > left + right
            x, side = (min(x2, right), "right") if turned else (max(x1, left), "left")
            text = axes.text(x, max(y1, 0), texts[number], fontsize=size, color="black", va="top", ha=side, bbox=label)
            text.set_clip_on(True)


def key(figure: Figure, entries: Sequence[tuple[str, str, bool]]) -> None:
    """A legend of box colours below the figure: (name, colour, dashed) each."""
    handles = [
        Line2D([], [], color=colour, linestyle="--" if dashed else "-", linewidth=2.2, label=name)
        for name, colour, dashed in entries
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
