"""The explorer of the schedule: its rates are the trainer's, and its command trains with them."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cpm_lib import cli, explorers, presets
from cpm_lib.commands import running
from cpm_lib.config import Config
from cpm_lib.data import inspection
from cpm_lib.training import optimisation
from tests.explorers.conftest import Shown

IMAGES = 100_000
HARDWARE = [(8, 2, 1), (1, 1, 1), (2, 2, 1), (3, 4, 1), (1, 2, 8), (7, 3, 5), (4, 8, 2), (8, 8, 8)]


@pytest.fixture
def shown(show: Callable[..., Shown]) -> Shown:
    return show(explorers.schedule(IMAGES))


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], Config]:
    """``trained(words)``: the configuration with which the command would train; nothing is read or trained."""
    seen: list[Config] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "open_data", lambda *_: SimpleNamespace(classes=["one"]))
    monkeypatch.setattr(inspection, "untrained", lambda *_: [])
    monkeypatch.setattr("cpm_lib.training.train", lambda config, *_, **__: seen.append(config))

    def config_of(words: list[str]) -> Config:
        assert words[:2] == ["torchrun", "--nproc-per-node"] and words[3:5] == ["-m", "cpm_lib"]
        assert cli.main(words[5:]) == 0
        return seen.pop()

    return config_of


def words_of(shown: Shown) -> list[str]:
    """The command on the page, as a shell reads it."""
    return shlex.split(shown.root.locator(".cpm-command").inner_text().replace("\\\n", " "))


def expected(images: int) -> Config:
    """The preset with the rule and the length that the library recommends for batches of `images`."""
    config = presets.get("cpm")
    usual = config.solver
    scaled, _ = optimisation.scaled_to_batch(config.override({"solver.images_per_batch": images}), usual, chosen=False)
    return optimisation.with_iterations(scaled, round(usual.iterations * usual.images_per_batch / images))


def places(solver: Any) -> list[int]:
    """Iterations around everything that happens in a schedule, and some between."""
    corners = [1, solver.warmup_iterations, *solver.steps, solver.iterations]
    near = {max(1, corner + by) for corner, by in itertools.product(corners, (-1, 0, 1))}
    return sorted(near | set(range(1, solver.iterations, solver.iterations // 50)))


def test_rates_are_those_of_the_trainer(shown: Shown) -> None:
    for images in (1, 2, 4, 7, 12, 16, 105, 512):
        solver, plan = expected(images).solver, shown.formula("scaled", images)
        assert plan["lr"] == pytest.approx(solver.lr, rel=1e-12)
        assert (plan["iterations"], tuple(plan["steps"])) == (solver.iterations, solver.steps)
        assert plan["warmup"] == solver.warmup_iterations
        wanted = [optimisation.learning_rate(solver, iteration) for iteration in places(solver)]
        assert shown.formulas("rate", [(plan, at) for at in places(solver)]) == pytest.approx(wanted, rel=1e-12), images


def test_the_command_trains_so(shown: Shown, trained: Callable[[list[str]], Config]) -> None:
    for gpus, each, parts in HARDWARE:
        for label, value in (("GPUs", gpus), ("images a GPU holds", each), ("parts, one after the other", parts)):
            shown.slide(label, value)
        words = words_of(shown)
        solver, rule = trained(words).solver, expected(gpus * each * parts).solver
        assert solver.images_per_batch == gpus * each * parts and solver.accumulate == parts
        assert words[2] == str(gpus)
        wanted = [optimisation.learning_rate(rule, at) for at in places(rule)]
        assert [optimisation.learning_rate(solver, at) for at in places(rule)] == wanted
        plan = shown.formula("scaled", gpus * each * parts)
        assert shown.formulas("rate", [(plan, at) for at in places(rule)]) == pytest.approx(wanted, rel=1e-12), words


def test_the_papers_hardware_needs_no_change(shown: Shown) -> None:
    shown.slide("GPUs", 8)
    assert words_of(shown) == shlex.split(presets.PRESETS["cpm"].command)
    assert "learning rate 0.02 × 16/16 = 0.02" in shown.numbers


def test_sliders_change_the_numbers(shown: Shown) -> None:
    assert "2 GPUs × 2 images = 4 images per iteration: learning rate 0.02 × 4/16 = 0.005." in shown.numbers
    assert "720,000 iterations" in shown.numbers and "480,000 and 640,000" in shown.numbers
    assert shown.number(r"paper's: ([\d.]+) times") == pytest.approx(180_000 * 16 / IMAGES, abs=0.05)
    shown.press("GPUs", "ArrowRight")
    shown.slide("images a GPU holds", 4)
    assert "3 GPUs × 4 images = 12 images per iteration: learning rate 0.02 × 12/16 = 0.015." in shown.numbers
    assert "160,000 and 213,333" in shown.numbers
    shown.root.get_by_role("button", name="start again").click()
    assert shown.number(r"= ([\d.]+)\.\n") == 0.005


def test_the_handle_walks_along_the_curve(shown: Shown) -> None:
    rates = [shown.number(r"COCO: learning rate ([\d.]+)")]
    before = shown.number(r"At iteration (\d+)")
    shown.press("iteration", "ArrowRight", 3)
    assert shown.number(r"At iteration (\d+)") > before
    for _ in range(2):
        shown.drag("iteration", 120, 0)
        rates.append(shown.number(r"COCO: learning rate ([\d.]+)"))
    assert rates == pytest.approx([0.005, 0.0005, 0.00005])
    shown.press("iteration", "Shift+ArrowLeft", 10)
    assert shown.number(r"At iteration (\d+)") == 1
    assert shown.number(r"COCO: learning rate ([\d.]+)") == pytest.approx(
        optimisation.learning_rate(expected(4).solver, 1), rel=1e-4
    )


def test_over_passes_through_the_data_the_drops_lie_in_one_place(shown: Shown) -> None:
    def widths() -> list[float]:
        curves = shown.root.locator("svg").first.locator("path.cpm-line")
        return curves.evaluate_all("(paths) => paths.map((path) => path.getBBox().width)")

    own, paper = widths()
    assert own == pytest.approx(4 * paper, rel=1e-3)
    shown.root.get_by_label("times through COCO", exact=True).check()
    own, paper = widths()
    assert own == pytest.approx(paper, rel=1e-3)


def test_words_are_legible_on_a_phone(show: Callable[..., Shown]) -> None:
    shown = show(explorers.schedule(IMAGES), is_mobile=True, viewport={"width": 360, "height": 740})
    box = shown.root.locator("svg.cpm-chart").first.bounding_box()
    assert box
    assert 12 * box["width"] / 420 > 9, "pixels that 12 units of the drawing take"
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_scripts_a_picture_stays(show: Callable[..., Shown]) -> None:
    shown = show(explorers.schedule(IMAGES), java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()
