"""Curves of a training: what is drawn, and `cpm plot` on runs in any state."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cpm_lib import figures, presets
from cpm_lib.cli import main
from cpm_lib.figure_curves import POINTS
from cpm_lib.training import optimisation
from cpm_lib.training.run_folder import RunFolder


def rows(iterations: int, **changes: float) -> list[dict[str, Any]]:
    solver = optimisation.with_iterations(presets.get("cpm"), iterations).solver
    made = []
    for iteration in range(1, iterations + 1):
        parts = {"loss_objectness": 1 / iteration, "loss_grid_1": 2.0, "loss_iou_3": 0.5, **changes}
        lr = optimisation.learning_rate(solver, iteration)
        made.append({"iteration": iteration, "lr": lr, "loss": sum(parts.values()), **parts})
    return made


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_short_run_shows_every_iteration_and_leaves_gaps_at_zero() -> None:
    drawn = rows(6)
    drawn[2]["loss_iou_3"] = 0.0
    axes = figures.training_curves(drawn).axes
    found = lines(axes[0])
    # In the order of the file, not of the alphabet.
    assert list(found) == ["total", "objectness", "grid_1", "iou_3"]
    assert found["objectness"].get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert found["objectness"].get_ydata() == pytest.approx([1 / i for i in range(1, 7)])
    assert all(line.get_marker() == "." for line in found.values())
    # A 0 is no point on the axis, instead of one far below it.
    assert axes[0].get_yscale() == "log" and not np.isfinite(axes[0].yaxis.get_transform().transform([0.0]))
    assert len(axes) == 2 and axes[1].get_ylim()[0] == 0


def test_long_run_is_drawn_as_means() -> None:
    drawn = rows(1000)
    axes = figures.training_curves(drawn, title="a long one").axes
    found = lines(axes[0])
    width = math.ceil(1000 / POINTS)
    means = [np.mean([row["loss_objectness"] for row in drawn[i : i + width]]) for i in range(0, 1000, width)]
    assert len(means) <= POINTS and found["objectness"].get_ydata() == pytest.approx(means)
    assert axes[0].get_legend().get_title().get_text() == f"mean of {width} iterations"
    assert axes[0].get_title(loc="left") == "a long one"
    # The rates are no means: a step is a step.
    assert len(axes[1].lines[0].get_xdata()) == 1000


def test_steps_of_the_schedule_are_marked() -> None:
    axes = figures.training_curves(rows(900), [{"iteration": 900, "AP": 20.0}]).axes
    marks = [[line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == ":"] for panel in axes]
    assert marks == [[600, 800]] * 3
    texts = [text.get_text() for text in axes[1].texts]
    assert texts == ["0.02 to 0.002\nat 600", "0.002 to 0.0002\nat 800"]
    cosine = [{"iteration": i, "lr": 0.5 * (1 + math.cos(math.pi * i / 11)), "loss": 1.0} for i in range(1, 11)]
    assert not figures.training_curves(cosine).axes[1].texts


def test_ap_of_the_paper_is_drawn_only_on_request() -> None:
    evaluations = [{"iteration": 3, "AP": 10.0, "AP50": None}, {"iteration": 6, "AP": 20.0, "AP50": 30.0}]
    found = lines(figures.training_curves(rows(6), evaluations).axes[2])
    assert list(found) == ["AP", "AP50"] and found["AP"].get_ydata().tolist() == [10.0, 20.0]
    assert found["AP50"].get_xdata().tolist() == [6]
    assert "AP in the paper: 41.5" in lines(figures.training_curves(rows(6), evaluations, paper=41.5).axes[2])


def test_plot_of_a_run_that_is_being_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "run")
    assert main(["plot", str(run.path)]) == 2
    run.begin({"preset": "cpm", "data": {"name": "shapes:smoke:train"}, "processes": 1}, 0)
    assert main(["plot", str(run.path)]) == 2
    assert "no iteration is written down yet" in capsys.readouterr().err
    run.append("metrics", rows(4))
    assert main(["plot", str(run.path)]) == 0
    with Image.open(run.path / "curves.png") as picture:
        without = picture.size
    run.append("evaluations", [{"iteration": 4, "AP": 1.0}])
    for record in ("metrics", "evaluations"):
        with run.file(record).open("a") as file:
            file.write('{"iteration": 5, "lr": 0.0')
    assert [row["iteration"] for row in run.records("metrics")] == [1, 2, 3, 4]
    assert main(["plot", str(run.path)]) == 0
    with Image.open(run.path / "curves.png") as picture:
        assert picture.height > without[1], "a panel more"
    with run.file("metrics").open("a") as file:
        file.write("\n")
    capsys.readouterr()
    assert main(["plot", str(run.path)]) == 2
    assert "metrics.jsonl: not readable" in capsys.readouterr().err


def test_plot_of_a_resumed_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    description = {"preset": "cpm", "data": {"name": "shapes:smoke:train"}, "processes": 1}
    run.begin(description, 0)
    run.append("metrics", rows(3))
    size = run.metrics_size()
    run.append("metrics", rows(5)[3:])
    run.rewind(3, size)
    run.begin(description, 3)
    run.append("metrics", rows(6)[3:])
    assert json.loads((run.path / "run.json").read_text())["resumed_at"] == [3]
    assert [row["iteration"] for row in run.records("metrics")] == [1, 2, 3, 4, 5, 6]
    assert main(["plot", str(run.path)]) == 0
