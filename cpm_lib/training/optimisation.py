"""Optimiser, parameter groups and learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from cpm_lib.config import Config, SolverConfig
from cpm_lib.errors import UserError

WEIGHT_DECAY = {"code": 1e-4, "paper": 4e-5}
"""What the authors' code uses, and what the paper prints (Sec. 3.4.2)."""


def weight_decay(solver: SolverConfig) -> float:
    """The weight decay of `solver` as a number."""
    return WEIGHT_DECAY[solver.weight_decay] if isinstance(solver.weight_decay, str) else float(solver.weight_decay)


def parameter_groups(model: nn.Module, solver: SolverConfig) -> list[dict[str, object]]:
    """Trainable parameters in three groups: weights, biases, norm gains.

    Every parameter with "bias" in its name is a bias: no decay and, with SGD, `bias_lr_factor` times
    the learning rate. Every other one-dimensional parameter is the gain of a norm: no decay.

    Returns:
        Dictionaries with `name`, `params`, `lr_factor` and `weight_decay`, always in this order.
    """
    weights: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    gains: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = biases if "bias" in name else gains if parameter.ndim == 1 else weights
            group.append(parameter)
    bias_factor = solver.bias_lr_factor if solver.optimiser == "sgd" else 1.0
    return [
        {"name": "weights", "params": weights, "lr_factor": 1.0, "weight_decay": weight_decay(solver)},
        {"name": "biases", "params": biases, "lr_factor": bias_factor, "weight_decay": 0.0},
        {"name": "gains", "params": gains, "lr_factor": 1.0, "weight_decay": 0.0},
    ]


def build_optimiser(model: nn.Module, solver: SolverConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, over `parameter_groups`.

    Raises:
        UserError: the model has no trainable parameter, or a setting is out of range.
    """
    groups = parameter_groups(model, solver)
    if not any(group["params"] for group in groups):
        raise UserError("the model has no trainable parameter; lower backbone.frozen_layers")
    for group in groups:
        group["lr"] = solver.lr * float(group["lr_factor"])  # type: ignore[arg-type]
    try:
        if solver.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=solver.lr, momentum=solver.momentum)
        return torch.optim.AdamW(groups, lr=solver.lr)
    except ValueError as error:
        raise UserError(f"solver settings cannot be used: {error}") from error


def learning_rate(solver: SolverConfig, iteration: int) -> float:
    """Learning rate of the weights at `iteration`, counted from 1.

    Linear warm-up to `lr` at iteration `warmup_iterations`; it lies inside the schedule.
    `step`: a tenth from each iteration in `steps` on.
    `cosine`: half a cosine over the iterations after the warm-up; it reaches 0 just after the last one.
    """
    warmup = solver.warmup_iterations
    if iteration <= warmup:
        part = iteration / warmup
        return solver.lr * (solver.warmup_factor * (1 - part) + part)
    if solver.schedule == "step":
        return solver.lr * 0.1 ** sum(step <= iteration for step in solver.steps)
    part = (iteration - 1 - warmup) / max(solver.iterations - warmup, 1)
    return solver.lr * 0.5 * (1 + math.cos(math.pi * min(part, 1.0)))


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group its share of `lr`."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_factor"]


def scaled_to_batch(config: Config, usual: SolverConfig, chosen: bool) -> tuple[Config, str]:
    """`config` with the learning rate that belongs to its batch, and a sentence that says why.

    The linear scaling rule (Goyal et al., 2017): k times the images per step, k times the learning rate, because
    the mean gradient of k batches replaces k steps; the warm-up bridges the time in which this does not hold.

    Args:
        usual: the solver of the preset, or of the checkpoint started from; its learning rate belongs to its own
            `images_per_batch`.
        chosen: the user has named a learning rate, which stays.
    """
    solver = config.solver
    if chosen:
        return config, f"learning rate {solver.lr:g}, as given, for batches of {solver.images_per_batch} images"
    if solver.images_per_batch == usual.images_per_batch:
        return config, f"learning rate {solver.lr:g}, the usual one for batches of {solver.images_per_batch} images"
    images, before = solver.images_per_batch, usual.images_per_batch
    lr = usual.lr * images / before
    reason = (
        f"learning rate {usual.lr:g} x {images}/{before} = {lr:g} by the linear scaling rule: the usual one is for "
        f"batches of {before} images (--set solver.lr=... for another one); "
        f"--iterations {round(usual.iterations * before / images)} sees as many images as usual"
    )
    return config.override({"solver.lr": lr}), reason


def with_iterations(config: Config, iterations: int) -> Config:
    """`config` with a schedule of another length.

    Steps move in proportion, as between the paper's 1x and 2x schedules; the warm-up keeps its length
    but takes at most half of the schedule.

    Raises:
        UserError: fewer than one iteration.
    """
    if iterations < 1:
        raise UserError(f"iterations is {iterations}; at least 1 is needed")
    solver = config.solver
    return config.override(
        {
            "solver.iterations": iterations,
            "solver.steps": [round(step * iterations / solver.iterations) for step in solver.steps],
            "solver.warmup_iterations": min(solver.warmup_iterations, iterations // 2),
        }
    )
