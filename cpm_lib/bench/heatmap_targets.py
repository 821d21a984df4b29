"""`cpm bench targets`: heatmap targets against a plain loop, and beside the branch that they train."""

from __future__ import annotations

import functools
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpm_lib.bench import measuring
from cpm_lib.bench.comparison import machine
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model.grid_branch import POOL_SIZE, GridBranch

REFERENCE = Path(__file__).resolve().parents[2] / "tests" / "reference_targets.py"
"""The definition as a triple loop. It belongs to the tests, so an installed package does not have it."""


def targets(config: Config, *, rois: int = 96, repeats: int = 5, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Time of the heatmap targets of the first stage for `rois` RoIs, and of what it is compared with.

    Rows: the targets, with `speedup` over the loop, `equal` (whether both agree in every cell) and
    `share_of_forward`; the loop, on the CPU; the branch's forward pass for as many RoIs, without gradients. Without
    the tests, or for a head of whole maps, which the loop does not know, it is left out, and `note` says so.

    Raises:
        UserError: a detector without a grid branch.
    """
    if config.detector not in ("cpm", "grid"):
        raise UserError(f"{config.preset} has no grid branch, so no heatmap targets; take cpm or grid")
    place, ratio = torch.device(device), config.cascade.mapping_ratios[0]
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    boxes, truth = random_pairs(rois, generator)
    on_device = boxes.to(place), truth.to(place)
    branch = GridBranch(config.grid, config.backbone.fpn_channels).to(place)
    pooled = torch.rand(rois, config.backbone.fpn_channels, POOL_SIZE, POOL_SIZE, generator=generator).to(place)

    def make() -> Tensor:
        return branch.targets(*on_device, ratio, "floor")

    @torch.no_grad()
    def forward() -> None:
        branch(pooled)

    timed = functools.partial(functools.partial, _seconds, place)
    for call in (make, forward):
        call()
    ours, forward_times = measuring.alternate(timed(make), timed(forward), repeats=repeats)
    row = measuring.row("heatmap targets", ours)
    row["share_of_forward"] = statistics.median(a / b for a, b in zip(ours, forward_times, strict=True))
    rows = [row, measuring.row("grid branch forward", forward_times)]
    content = machine(place) | {"work": "targets", "preset": config.preset, "rois": rois, "rows": rows}
    if 2 * branch.window != config.grid.map_size:
        return content | {"note": f"no plain loop to compare with: it knows no maps as those of {config.preset}"}
    loop = _reference()
    if loop is None:
        return content | {"note": f"no plain loop to compare with: tests/{REFERENCE.name} is not here"}
    by_loop = functools.partial(loop, boxes, truth, ratio, config.grid.points, config.grid.map_size, config.grid.radius)
    row["equal"] = torch.equal(make().cpu(), by_loop())
    ours, loop_times = measuring.alternate(timed(make), timed(by_loop), repeats=repeats)
    row["against"], row["ratio"] = "plain loop", statistics.median(a / b for a, b in zip(ours, loop_times, strict=True))
    row["speedup"] = statistics.median(b / a for a, b in zip(ours, loop_times, strict=True))
    rows.insert(1, measuring.row("plain loop", loop_times))
    return content


def random_pairs(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """RoIs [N, 4] with sides of 32 to 400 pixels, and objects [N, 4] that each meets with an IoU above about 0.5."""
    sides = 32 + 368 * torch.rand(number, 2, generator=generator)
    corners = 400 * torch.rand(number, 2, generator=generator)
    boxes = torch.cat((corners, corners + sides), dim=1)
    shift = 0.3 * (torch.rand(number, 4, generator=generator) - 0.5)
    return boxes, boxes + shift * sides.repeat(1, 2)


def _seconds(device: torch.device, call: Callable[[], Any]) -> float:
    measuring.synchronise(device)
    start = time.perf_counter()
    call()
    measuring.synchronise(device)
    return time.perf_counter() - start


def _reference() -> Callable[..., Tensor] | None:
    if not REFERENCE.exists():
        return None
    spec = importlib.util.spec_from_file_location("reference_targets", REFERENCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.heatmap_targets
