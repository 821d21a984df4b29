"""Schedule: learning rate, length and command for the reader's own number of GPUs (Sec. 3.4.2).

The linear scaling rule (Goyal et al., 2017): a batch of k times the images takes k times the learning rate and a
k-th of the iterations, so that as many images are seen. It is `optimisation.scaled_to_batch`; the drops move with
the length and the warm-up stays, as in `optimisation.with_iterations`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from cpm_lib import figure_style as draw
from cpm_lib import presets
from cpm_lib.config import Config
from cpm_lib.explorers.component import Explorer
from cpm_lib.training import optimisation

_SOLVER = ("lr", "iterations", "steps", "warmup_iterations", "warmup_factor", "images_per_batch")


def schedule(images: int, preset: str = "cpm", *, gpus: int = 2, each: int = 2, most: int = 8) -> Explorer:
    """Choose the GPUs and what they hold, and see the schedule that belongs to them and the command that runs it.

    Args:
        images: of the training data, for the number of passes through it.
        preset: whose schedule of steps, at the size `paper`, is scaled.
        gpus, each: GPUs, and images that each holds at a time, at the start.
        most: of either, and of the parts a GPU can cut its share into.
    """
    config = presets.get(preset)
    return Explorer(
        "schedule",
        "Which schedule belongs to my GPUs?",
        "Learning rate over the iterations, for the paper's batch and for smaller ones: the smaller the batch, the "
        "lower and the longer the schedule. With scripts the GPUs and their images can be chosen.",
        {
            "usual": {name: getattr(config.solver, name) for name in _SOLVER},
            "command": shlex.split(presets.PRESETS[preset].command),
            "images": images,
            "gpus": gpus,
            "each": each,
            "most": most,
        },
        _still(config),
    )


def _still(config: Config, parts: Sequence[int] = (1, 2, 4, 8)) -> Figure:
    """The schedules of a batch and of parts of it."""
    usual = config.solver
    with draw.style():
        figure = draw.card(7.2, 3.4)
        axes = figure.subplots()
        for part, line in zip(parts, ("-", "--", ":", "-."), strict=True):
            images = usual.images_per_batch // part
            scaled, _ = optimisation.scaled_to_batch(
                config.override({"solver.images_per_batch": images}), usual, chosen=False
            )
            solver = optimisation.with_iterations(scaled, usual.iterations * part).solver
            places = np.linspace(1, solver.iterations, 2000).round()
            rates = [optimisation.learning_rate(solver, int(place)) for place in places]
            axes.plot(places / 1000, rates, line, label=f"{images} images", linewidth=2)
        axes.set(yscale="log", xlabel="iteration, thousands", ylabel="learning rate")
        axes.legend(title="batch")
    return figure
