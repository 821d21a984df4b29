"""Learning rates and parameter groups against the authors' recorded ones, and the other schedules."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cpm_lib.config import Config, SolverConfig
from cpm_lib.errors import UserError
from cpm_lib.training import optimisation


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_schedule_and_groups_are_the_authors(root: Path) -> None:
    golden = np.load(Path(os.environ.get("CPM_GOLDEN_DIR", root / "tests" / "golden")) / "k_lr.npz")
    solver = SolverConfig()
    optimiser = optimisation.build_optimiser(Small(), solver)
    for iteration, lr, group_lr in zip(golden["iteration"], golden["lr"], golden["group_lr"], strict=True):
        rate = optimisation.learning_rate(solver, int(iteration))
        assert rate == pytest.approx(lr, rel=1e-12)
        optimisation.set_learning_rate(optimiser, rate)
        assert [group["lr"] for group in optimiser.param_groups] == pytest.approx(group_lr.tolist(), rel=1e-12)
    decays = [group["weight_decay"] for group in optimiser.param_groups]
    assert decays == golden["group_weight_decay"].tolist()


def test_groups() -> None:
    model = Small()
    weights, biases, gains = optimisation.parameter_groups(model, SolverConfig())
    assert [id(p) for p in weights["params"]] == [id(model.conv.weight)]  # type: ignore[attr-defined]
    assert {id(p) for p in biases["params"]} == {id(model.conv.bias), id(model.norm.bias)}  # type: ignore[attr-defined]
    assert [id(p) for p in gains["params"]] == [id(model.norm.weight)]  # type: ignore[attr-defined]
    adam = optimisation.parameter_groups(model, SolverConfig(optimiser="adamw"))
    assert [group["lr_factor"] for group in adam] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("decay", "value"), [("code", 1e-4), ("paper", 4e-5), (0.05, 0.05)])
def test_weight_decay(decay: str | float, value: float) -> None:
    assert optimisation.weight_decay(SolverConfig(weight_decay=decay)) == value  # type: ignore[arg-type]


def test_cosine() -> None:
    solver = SolverConfig(schedule="cosine", lr=1.0, iterations=110, warmup_iterations=10)
    rates = [optimisation.learning_rate(solver, i) for i in range(1, 112)]
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[109] < 1e-3 and rates[110] == pytest.approx(0, abs=1e-12)


def test_warmup_may_be_absent() -> None:
    assert optimisation.learning_rate(SolverConfig(warmup_iterations=0), 1) == 0.02


def test_other_length_moves_the_steps() -> None:
    solver = optimisation.with_iterations(Config(), 90_000).solver
    assert (solver.iterations, solver.steps, solver.warmup_iterations) == (90_000, (60_000, 80_000), 500)
    assert optimisation.with_iterations(Config(), 10).solver.warmup_iterations == 5
    with pytest.raises(UserError, match="at least 1"):
        optimisation.with_iterations(Config(), 0)


def test_impossible_settings() -> None:
    with pytest.raises(UserError, match="Invalid learning rate"):
        optimisation.build_optimiser(Small(), SolverConfig(lr=-1.0))
    with pytest.raises(UserError, match="no trainable parameter"):
        optimisation.build_optimiser(Small().requires_grad_(False), SolverConfig())


def test_sgd_step_is_plain_momentum() -> None:
    model = Small()
    optimiser = optimisation.build_optimiser(model, SolverConfig(lr=0.1, weight_decay=0.0))
    before = model.conv.bias.detach().clone()
    for _ in range(2):
        optimiser.zero_grad()
        model.conv.bias.sum().backward()
        optimiser.step()
    # Gradient 1, momentum 0.9, twice the rate for biases: 0.2 * (1 + 1.9).
    assert torch.allclose(before - model.conv.bias, torch.full((4,), 0.58))
