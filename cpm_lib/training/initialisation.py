"""Starting a training from the weights of another one: what is taken over, and whether it still means the same."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model import Detector, build_model
from cpm_lib.training import checkpoint
from cpm_lib.training.card import Card

MEANING = (
    "conventions.pixel_plus_one", "backbone.name", "backbone.caffe", "backbone.deformable", "backbone.norm",
    "proposals.anchor_scale", "proposals.ratios", "classification.canonical_size",
)  # fmt: skip
"""Settings under which weights of the same shape compute something else."""

GRID_MEANING = ("grid.head", "grid.points", "grid.norm_groups", "grid.map_size", "cascade.mapping_ratios")
"""Likewise, for detectors with a grid branch."""


def initialise(model: Detector, path_or_run: str | Path, classes: Sequence[str]) -> tuple[str, str]:
    """Copy every tensor whose name and shape match, except class-wise ones where the classes are others.

    Args:
        classes: foreground names of the new training, in label order.

    Returns:
        What was taken over, re-made, new and not used, one line each; and a warning in one line if settings
        differ on which the meaning of the weights depends, else ''.

    Raises:
        UserError: unreadable file, or nothing matches.
    """
    path = checkpoint.locate(path_or_run)
    weights, own, card = checkpoint.read_weights(path), model.state_dict(), _card(path)
    shared = weights.keys() & own.keys()
    heads = _class_wise(model) & shared
    sized = {name for name in shared if own[name].shape != weights[name].shape}
    others = heads if card is not None and card.classes != tuple(classes) else heads & sized
    taken = shared - sized - others
    if not taken:
        raise UserError(f"{path}: no tensor matches the model by name and shape; give a checkpoint of a related preset")
    model.load_state_dict({name: weights[name] for name in taken}, strict=False)
    lines = [f"initialised {len(taken)} of {len(own)} tensors from {path}"]
    if others:
        layers = sorted({name.rpartition(".")[0] for name in others})
        lines.append(f"  re-made for {_count(classes)}{_before(card, classes)}: {', '.join(layers)}")
    for title, names in (
        ("re-made, of another size in the checkpoint", sized - others),
        ("new, not in the checkpoint", own.keys() - shared),
        ("not used", weights.keys() - shared),
    ):
        if names:
            lines.append(f"  {title}: {len(names)} tensors in {', '.join(_parts(names))}")
    return "\n".join(lines), "" if card is None else _warning(path, card.config, model.config)


def _card(path: Path) -> Card | None:
    """The card of a checkpoint; None for bare weights, as crop pretraining leaves them."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            if "config" not in (file.metadata() or {}):
                return None
    return checkpoint.read_card(path)


def _class_wise(model: Detector) -> set[str]:
    """Names of the tensors whose size depends on the number of classes."""
    with torch.device("meta"):
        config = model.config.override({"backbone.pretrained": False})
        larger = build_model(config, model.num_classes + 1).state_dict()
    return {name for name, value in model.state_dict().items() if larger[name].shape != value.shape}


def _before(card: Card | None, classes: Sequence[str]) -> str:
    if card is None:
        return ""
    if len(card.classes) == len(classes):
        return f" (in the checkpoint others, or in another order: {', '.join(card.classes)})"
    return f" ({len(card.classes)} in the checkpoint)"


def _count(classes: Sequence[str]) -> str:
    return f"{len(classes)} class{'' if len(classes) == 1 else 'es'}"


def _parts(names: Iterable[str]) -> list[str]:
    return sorted({name.partition(".")[0] for name in names})


def _warning(path: Path, theirs: Config, ours: Config) -> str:
    grids = {theirs.detector, ours.detector} <= {"cpm", "grid"}
    different = [key for key in MEANING + (GRID_MEANING if grids else ()) if _differ(key, theirs, ours)]
    if not different:
        return ""
    settings = [f"{key}={_text(_value(theirs, key))}" for key in different]
    found = ", ".join(f"{s} (here {_text(_value(ours, k))})" for s, k in zip(settings, different, strict=True))
    way = "leave out --preset, --profile and --conventions, or " if theirs.preset == ours.preset else ""
    return (
        f"warning: the weights of {path} were trained with {found} and mean something else in this run; "
        f"to train as the checkpoint was {way}add --set {shlex.join(settings)}"
    )


def _differ(key: str, theirs: Config, ours: Config) -> bool:
    before, now = _value(theirs, key), _value(ours, key)
    if key == "cascade.mapping_ratios":
        # Stages that only one of them has are new, or not used.
        return any(one != other for one, other in zip(before, now, strict=False))
    return bool(before != now)


def _value(config: Config, key: str) -> Any:
    part, _, field = key.partition(".")
    return getattr(getattr(config, part), field)


def _text(value: Any) -> str:
    """As ``--set`` reads it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
