"""What a training run says and writes about its iterations."""

from __future__ import annotations

import math
import sys
import time
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from cpm_lib import environment
from cpm_lib.config import SolverConfig
from cpm_lib.errors import UserError
from cpm_lib.training import checkpoint, distributed
from cpm_lib.training.run_folder import RunFolder


class _Step(NamedTuple):
    """Losses of one iteration that may still be on the device, and what a dump would need."""

    iteration: int
    lr: float
    names: list[str]
    own: Tensor
    mean: Tensor
    targets: list[dict[str, Any]]


class Journal:
    """Losses, speed and remaining time, on the console and in the run folder.

    Losses are kept on the device until `flush`, because fetching them each iteration would make the
    CPU wait for the GPU.
    """

    def __init__(
        self, folder: RunFolder, solver: SolverConfig, device: torch.device, *, source: str, log_every: int, quiet: bool
    ) -> None:
        self.folder, self.solver, self.device, self.source = folder, solver, device, source
        self.log_every = max(log_every, 1)
        self.quiet = quiet or not distributed.is_main()
        self.flush_every = 1 if device.type == "cpu" and distributed.world() == 1 else self.log_every
        self.wall_s = self.data_s = 0.0
        self._pending: list[_Step] = []
        self._window: list[dict[str, Any]] = []
        self._first, self._started, self._earlier = 0, 0.0, 0.0

    def say(self, text: str, warning: str = "") -> None:
        """A line on the console that does not tear a progress bar; a `warning`, if any, on standard error."""
        if not self.quiet:
            tqdm.write(text)
            sys.stdout.flush()
            if warning:
                tqdm.write(warning, file=sys.stderr)

    def start(self, done: int) -> None:
        """Start the clock; `done` iterations lie behind."""
        self._first, self._started, self._earlier = done, time.perf_counter(), self.wall_s

    def leave_out(self, seconds: float) -> None:
        """Take time that was no training off the clock."""
        self._started += seconds

    def add(self, iteration: int, lr: float, losses: dict[str, Tensor], targets: list[dict[str, Any]]) -> None:
        """Take the losses of an iteration (means over the processes are written).

        Raises:
            UserError: a loss is not finite, if losses are checked at once (CPU, one process).
        """
        own = torch.stack([value.detach().float() for value in losses.values()])
        self._pending.append(_Step(iteration, lr, list(losses), own, distributed.reduce_mean(own), targets))
        if self.flush_every == 1:
            self.flush()

    def flush(self) -> None:
        """Fetch the pending losses from the device, check them and write them down.

        Raises:
            UserError: a loss is not finite; a dump of its batch is left in the run folder.
        """
        if not self._pending:
            return
        table = torch.stack([step.mean for step in self._pending]).cpu().tolist()
        rows = []
        bad = None
        for step, values in zip(self._pending, table, strict=True):
            if not all(map(math.isfinite, values)):
                bad = step
                break
            rows.append({"iteration": step.iteration, "lr": step.lr, **dict(zip(step.names, values, strict=True))})
        self._pending = []
        self._window += rows
        distributed.on_main(lambda: self.folder.append("metrics", rows))
        if bad is not None:
            self._refuse(bad)

    def _refuse(self, step: _Step) -> None:
        values = step.own.cpu()
        bad = [name for name, finite in zip(step.names, values.isfinite().tolist(), strict=True) if not finite]
        ids = [int(target["image_id"]) for target in step.targets]
        suffix = f"-{distributed.rank()}" if distributed.world() > 1 else ""
        dump = self.folder.path / f"dump-{step.iteration}{suffix}.pt"
        if bad:
            content = {
                "iteration": step.iteration,
                "lr": step.lr,
                "data": self.source,
                "image_ids": ids,
                "boxes": [target["boxes"].detach().cpu() for target in step.targets],
                "labels": [target["labels"].detach().cpu() for target in step.targets],
                "losses": dict(zip(step.names, values.tolist(), strict=True)),
            }
            checkpoint.save_tensors(dump, content)
        everywhere = distributed.gather((bad, ids, str(dump)))
        bad, ids, path = next((found for found in everywhere if found[0]), everywhere[0])
        parts = [name for name in bad if name != "loss"] or ["loss"]
        raise UserError(
            f"iteration {step.iteration}: {', '.join(parts)} not finite on image ids {ids} of {self.source} "
            f"(dump: {path}); lower solver.lr (now {step.lr:.3g}), set solver.clip_norm, or check the data"
        )

    def tick(self, iteration: int, *, last: bool) -> None:
        """Advance the clock; each `log_every` iterations and at the `last` one log a line."""
        self.wall_s = self._earlier + time.perf_counter() - self._started
        if iteration % self.log_every and not last:
            return
        count, spent = max(iteration - self._first, 1), self.wall_s - self._earlier
        rate = self.solver.images_per_batch * count / max(spent, 1e-9)
        timing = {
            "iteration": iteration,
            "wall_s": round(self.wall_s, 3),
            "data_s": round(self.data_s, 3),
            "images_per_s": round(rate, 2),
            "memory_gb": round(environment.memory_gb(self.device), 3),
        }
        distributed.on_main(lambda: self.folder.append("timing", [timing]))
        window, self._window = self._window, []
        if self.quiet or not window:
            return
        eta = timedelta(seconds=round(spent / count * (self.solver.iterations - iteration)))
        names = [name for name in window[-1] if name not in ("iteration", "lr")]
        means = {name.removeprefix("loss_"): sum(row[name] for row in window) / len(window) for name in names}
        self.say(
            f"iteration {iteration}/{self.solver.iterations}  eta {eta}  lr {window[-1]['lr']:.2e}  "
            + "  ".join(f"{name} {value:.3f}" for name, value in means.items())
            + f"  {rate:.1f} images/s  {environment.memory_gb(self.device):.2f} GB"
        )
