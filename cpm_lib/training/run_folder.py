"""The run folder: `run.json`, `metrics.jsonl`, `timing.jsonl`, `evaluations.jsonl`, checkpoints."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cpm_lib import environment
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.files import nearest_existing, write_atomic
from cpm_lib.training import distributed
from cpm_lib.training.tensorboard import Board

RECORDS = ("metrics", "timing", "evaluations")
FREE_TO_CHANGE = {f"config.solver.{name}" for name in ("checkpoint_every", "checkpoints_kept", "evaluate_every")}
"""Settings without influence on the weights: a run may be resumed with other ones."""


class RunFolder:
    """Reads and writes one run folder: run.json, metrics.jsonl, timing.jsonl, evaluations.jsonl, checkpoints.

    Raises:
        UserError: `tensorboard` asks for its curves as well, and it is not installed.
    """

    def __init__(self, path: str | Path, *, tensorboard: bool = False) -> None:
        self.path = Path(path)
        self.final = self.path / "final.safetensors"
        self.board = Board(self.path) if tensorboard else None

    def file(self, record: str) -> Path:
        return self.path / f"{record}.jsonl"

    def holds_run(self) -> bool:
        return any((self.path / name).exists() for name in ("run.json", "metrics.jsonl", "final.safetensors"))

    def check(self, resume: bool) -> None:
        """Refuse a folder that cannot be used, before any work is done.

        Raises:
            UserError: another run is in it and `resume` is false; or it cannot be written.
        """
        if self.holds_run() and not resume:
            raise UserError(f"{self.path}: already holds a run; continue it with --resume or choose another --out")
        existing = nearest_existing(self.path)
        if not existing.is_dir():
            raise UserError(f"{self.path}: {existing} is a file, not a folder; choose another --out")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(f"{self.path}: {existing} cannot be written; choose another --out")

    def compare(self, description: Mapping[str, Any]) -> None:
        """Refuse to resume the run in this folder with other settings.

        Raises:
            UserError: names the first difference in configuration, classes, data, seed or start.
        """
        difference = _difference(self.read(), description)
        if difference:
            raise UserError(
                f"{self.path}: cannot resume, {difference}; repeat the run's settings or choose a new --out"
            )

    def begin(self, description: Mapping[str, Any], iteration: int) -> None:
        """Write `run.json`; for a run that is resumed only note the iteration it continues after."""
        content = dict(description)
        if self.holds_run():
            before = self.read()
            content = {**before, "resumed_at": [*before.get("resumed_at", []), iteration]}
        write_atomic(self.path / "run.json", json.dumps(content, indent=2) + "\n")
        if self.board is not None:
            self.board.begin(iteration)

    def read(self) -> dict[str, Any]:
        """`run.json`.

        Raises:
            UserError: missing or broken.
        """
        path = self.path / "run.json"
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise UserError(f"{self.path}: not a run folder (no run.json)") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not readable ({error})") from error
        if not isinstance(content, dict):
            raise UserError(f"{path}: not the description of a run")
        return content

    def records(self, record: str) -> list[dict[str, Any]]:
        """All lines of `metrics`, `timing` or `evaluations`; empty if there is no such file.

        A last line that is not ended yet is left out: it is being written, or its writer was killed.

        Raises:
            UserError: a line is not JSON.
        """
        path = self.file(record)
        if not path.exists():
            return []
        try:
            whole = path.read_text().rpartition("\n")[0]
            return [json.loads(line) for line in whole.splitlines() if line]
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not readable ({error}); --resume mends it") from error

    def append(self, record: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add lines and hand them to the operating system. Floats are written with `repr`.

        Raises:
            UserError: the disk is full or the folder cannot be written.
        """
        text = "".join(json.dumps(row) + "\n" for row in rows)
        try:
            with self.file(record).open("a") as file:
                file.write(text)
        except OSError as error:
            raise UserError(
                f"{self.file(record)}: cannot be written ({error.strerror}); free space, then --resume"
            ) from error
        if self.board is not None:
            self.board.add(record, rows)

    def metrics_size(self) -> int:
        path = self.file("metrics")
        return path.stat().st_size if path.exists() else 0

    def rewind(self, iteration: int, metrics_size: int) -> None:
        """Forget everything written after `iteration`, where `metrics.jsonl` had `metrics_size` bytes.

        Raises:
            UserError: `metrics.jsonl` is shorter than the checkpoint says.
        """
        if self.metrics_size() < metrics_size:
            raise UserError(f"{self.file('metrics')}: shorter than at the checkpoint; start again with a new --out")
        if self.file("metrics").exists():
            os.truncate(self.file("metrics"), metrics_size)
        for record in RECORDS[1:]:
            path = self.file(record)
            if path.exists():
                kept = [line for line in path.read_text().splitlines() if _is_until(line, iteration)]
                write_atomic(path, "".join(line + "\n" for line in kept))


def describe(
    config: Config, dataset: Any, val: Any, *, seed: int, init: str | Path | None, device: torch.device
) -> dict[str, Any]:
    """The content of `run.json`: everything a run depends on."""
    described = environment.describe()
    return {
        "format": "cpm_lib run 1",
        "preset": config.preset,
        "profile": config.profile,
        "iterations": config.solver.iterations,
        "seed": seed,
        "init": None if init is None else str(init),
        "classes": list(dataset.classes),
        "data": _source(dataset),
        "val": None if val is None else _source(val),
        "processes": distributed.world(),
        "device": str(device),
        "bfloat16": config.solver.precision == "bf16" and environment.has_bfloat16(device),
        "git": described.pop("git"),
        "environment": described,
        "command": shlex.join(sys.argv),
        "config": config.to_dict(),
    }


def _source(dataset: Any) -> dict[str, Any]:
    return {"name": dataset.name, "fingerprint": dataset.fingerprint(), "images": len(dataset)}


def _is_until(line: str, iteration: int) -> bool:
    """A killed process may leave half a line at the end: it counts as later."""
    try:
        return json.loads(line)["iteration"] <= iteration
    except (ValueError, KeyError, TypeError):
        return False


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first setting that makes two descriptions different runs, or ''."""
    # A setting that did not exist when the run began has had its default.
    before = {**before, "config": Config.from_dict(before.get("config", {})).to_dict()}
    then, this = (_flat(json.loads(json.dumps(description))) for description in (before, now))
    watched = [k for k in {**then, **this} if k.split(".")[0] in ("config", "classes", "seed", "data", "init")]
    for key in watched:
        if key not in FREE_TO_CHANGE and then.get(key) != this.get(key):
            return f"{key.removeprefix('config.')} was {then.get(key)!r} and is now {this.get(key)!r}"
    return ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
