"""The records of a run as curves in TensorBoard, an extra (``[tensorboard]`` of the package)."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cpm_lib.errors import UserError

NAMES = {"lr": "learning_rate", "loss": "loss/total", "images_per_s": "speed/images_per_s", "memory_gb": "memory_gb"}
"""Where a key of metrics.jsonl or timing.jsonl is shown; each `loss_x` becomes `loss/x`, and the rest is left out."""


class Board:
    """Repeats the rows of the run folder below RUN/tensorboard; they are the same numbers, one scalar each.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "TensorBoard is not installed: pip install tensorboard, or leave out --tensorboard"
            ) from error
        self._folder, self._make = run / "tensorboard", SummaryWriter
        self._writer: Any = None

    def begin(self, iteration: int) -> None:
        """Go on after `iteration`: what an interrupted run has shown of later ones is forgotten.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            self._writer = self._make(str(self._folder), purge_step=iteration + 1)
        except OSError as error:
            raise self._unwritable(error) from error
        # The writer has a thread of its own, which must not outlive the run.
        weakref.finalize(self, self._writer.close)

    def add(self, record: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Show rows of `metrics`, `timing` or `evaluations`.

        Raises:
            UserError: the disk is full.
        """
        try:
            for row in rows:
                for key, value in row.items():
                    name = _name(record, key)
                    if name is not None and isinstance(value, (int, float)):
                        self._writer.add_scalar(name, value, row["iteration"])
            # A run that is killed must not miss here what it has written into its records.
            self._writer.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self._folder}: cannot be written ({error.strerror or error}); free space, then --resume")


def _name(record: str, key: str) -> str | None:
    if record == "evaluations":
        return None if key == "iteration" else f"validation/{key}"
    return f"loss/{key.removeprefix('loss_')}" if key.startswith("loss_") else NAMES.get(key)
