"""Checkpoints: `final.safetensors` to use, `ckpt-*.pt` to resume; neither can run code when loaded."""

from __future__ import annotations

import errno
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cpm_lib.errors import UserError
from cpm_lib.files import write_atomic
from cpm_lib.model import Detector, build_model
from cpm_lib.training.card import Card

Weights = dict[str, Tensor]


def locate(path_or_run: str | Path) -> Path:
    """The checkpoint file meant by a file, or by a run folder: its final one, else its newest state.

    Raises:
        UserError: there is none.
    """
    path = Path(path_or_run)
    if path.is_dir():
        if (path / "final.safetensors").is_file():
            return path / "final.safetensors"
        states = state_files(path)
        if not states:
            raise UserError(f"{path}: no checkpoint in this folder; give a run folder or a .safetensors file")
        print(f"{path}: the run is not finished, using {states[-1].name}", file=sys.stderr)
        return states[-1]
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give a run folder or a .safetensors file")
    if path.suffix == ".pth":
        raise UserError(
            f"{path}: a checkpoint of the authors is converted first, cpm convert {path} --out FILE.safetensors"
        )
    return path


def read_card(path_or_run: str | Path) -> Card:
    """The card of a checkpoint, without its weights.

    Raises:
        UserError: missing, damaged, or not of this library.
    """
    path = locate(path_or_run)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return Card.from_metadata(file.metadata(), path)
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
    return Card.from_metadata(read_state(path)["card"], path)


def read_weights(path_or_run: str | Path) -> Weights:
    """All tensors of a checkpoint by name, on the CPU.

    Raises:
        UserError: missing, damaged, or holding code instead of plain tensors.
    """
    path = locate(path_or_run)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
    return read_state(path)["model"]


def load(
    path_or_run: str | Path,
    *,
    device: str | torch.device = "cpu",
    overrides: Mapping[str, Any] | None = None,
    preset: str | None = None,
    num_classes: int | None = None,
) -> Detector:
    """A trained detector in evaluation mode, from a run folder or a checkpoint file.

    Args:
        overrides: dotted configuration fields to change, e.g. ``{"conventions.rois_at_test": None}``.
        preset: what the caller expects; another preset in the file is an error.
        num_classes: likewise, including background.

    Raises:
        UserError: missing, damaged or foreign file; other preset or classes than expected; or weights
            that do not fit the configuration (the first key is named).
    """

    path = locate(path_or_run)
    card = read_card(path)
    if preset is not None and preset != card.preset:
        raise UserError(f"{path}: holds preset '{card.preset}', not '{preset}'; give a checkpoint of that preset")
    if num_classes is not None and num_classes != card.num_classes:
        raise UserError(
            f"{path}: was trained for {card.num_classes} classes with background ({', '.join(card.classes)}), "
            f"{num_classes} are asked for; train on this data, with --init to start from these weights"
        )
    # The weights come from the file: fetching pretrained ones first would only cost time and need a network.
    config = card.config.override({"backbone.pretrained": False, **(overrides or {})})
    model = build_model(config, card.num_classes)
    fit(model, read_weights(path), path)
    return model.to(device).eval()


def fit(model: nn.Module, weights: Weights, path: Path) -> None:
    """Copy all of `weights` into `model`; names and shapes must be exactly the model's.

    Raises:
        UserError: names the first key that is missing, unknown or of another shape.
    """
    own = model.state_dict()
    hint = "the checkpoint belongs to another preset, number of classes or version"
    for name, value in own.items():
        if name not in weights:
            raise UserError(f"{path}: '{name}' is missing; {hint}")
        if weights[name].shape != value.shape:
            raise UserError(
                f"{path}: '{name}' has shape {list(weights[name].shape)}, the model needs {list(value.shape)}; {hint}"
            )
    for name in weights:
        if name not in own:
            raise UserError(f"{path}: '{name}' is unknown to the model; {hint}")
    model.load_state_dict(weights)


def save_weights(path: Path, model: nn.Module, card: Card) -> Path:
    """Write the weights of `model` with its card as safetensors, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}

    def write(temporary: Path) -> None:
        try:
            save_file(weights, temporary, metadata=card.metadata())
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from error

    return write_atomic(path, write)


def state_files(run: Path) -> list[Path]:
    """Checkpoints to resume from, oldest first."""
    return sorted(p for p in (run / "checkpoints").glob("ckpt-*.pt") if re.fullmatch(r"ckpt-\d{8}\.pt", p.name))


def save_state(run: Path, iteration: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write ``checkpoints/ckpt-<iteration>.pt`` atomically and keep the newest `keep`, one at least.

    Raises:
        UserError: the file cannot be written; the older ones are kept.
    """
    path = save_tensors(run / "checkpoints" / f"ckpt-{iteration:08d}.pt", state)
    for old in state_files(run)[: -max(keep, 1)]:
        old.unlink(missing_ok=True)
    return path


def save_tensors(path: Path, content: Mapping[str, Any]) -> Path:
    """`torch.save` of plain types and tensors, atomically.

    Raises:
        UserError: the file cannot be written.
    """

    def write(temporary: Path) -> None:
        try:
            torch.save(dict(content), temporary)
        except RuntimeError as error:
            # How the archive writer says that the file cannot grow.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error

    return write_atomic(path, write)


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint to resume from.

    Raises:
        UserError: damaged (every part's checksum is verified), foreign, or holding code.
    """
    _verify(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused, it holds more than plain tensors (pickled code); give a .safetensors file"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(state, dict) or not {"model", "card"} <= state.keys():
        raise UserError(f"{path}: not a checkpoint of this library; give a run folder or a .safetensors file")
    return state


def newest_state(run: Path) -> tuple[Path, list[str]] | None:
    """The newest undamaged checkpoint of a run, and a message for each damaged one passed over.

    Damaged files are renamed to ``*.damaged``. None if the run has no checkpoint yet.

    Raises:
        UserError: all checkpoints are damaged.
    """
    messages: list[str] = []
    for path in reversed(state_files(run)):
        try:
            _verify(path)
            return path, messages
        except UserError as error:
            messages.append(f"{error}; using the one before")
            path.rename(path.with_suffix(".pt.damaged"))
    if messages:
        raise UserError(f"{run}: all checkpoints are damaged; start again with a new --out")
    return None


def _verify(path: Path) -> None:
    """Check the checksum of every part: the loader itself only notices a file cut short."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise _unreadable(path, error) from error
    if broken is not None:
        raise UserError(f"{path}: damaged checkpoint ('{broken}' fails its checksum)")


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"{path}: not a readable checkpoint ({reason}); give a run folder or a .safetensors file")
