"""The authors' checkpoints: their layout and their folded norms.

`convert` reads one of their files into our names, `reverse` writes ours in their layout (facts 11.2, 12).
No file can run code here: only tensors, plain values and the authors' settings dictionary are unpickled.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model import build_model
from cpm_lib.model.backbone import STRIDES, fold_batch_norms
from cpm_lib.model.proposals import cell_anchors
from cpm_lib.official_names import official_name, recognise
from cpm_lib.training import checkpoint
from cpm_lib.training.card import Card
from cpm_lib.training.checkpoint import Weights

OWN_CARD = "cpm_lib"
"""Entry of a file written by `reverse` that keeps our card; the authors' loader only looks at `model`."""

_REFOLD = torch.tensor(1.0 + 1e-5).sqrt()
"""The authors' test model takes folded gains for BatchNorms of variance 1 and folds them again (facts 12.2)."""
_ANCHORS = "RPN.anchor_generator.cell_anchors."


@dataclass(frozen=True)
class Conversion:
    """A converted file; `left_over` and `missing` are the authors' key names."""

    weights: Weights
    card: Card
    mapped: int
    left_over: tuple[str, ...]
    missing: tuple[str, ...]
    differs: tuple[str, ...]
    """Settings read from the file in which it is not the preset the card names."""

    def record(self, source: Path) -> dict[str, Any]:
        """The JSON card."""
        with open(source, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "source": source.name,
            "sha256": digest,
            "preset": self.card.preset,
            "differs_from_preset": list(self.differs),
            "num_classes": self.card.num_classes,
            "mapped_keys": self.mapped,
            "left_over_keys": list(self.left_over),
            "missing_keys": list(self.missing),
            "config": self.card.config.to_dict(),
        }


def convert(path: str | Path) -> tuple[Weights, Card]:
    """Weights in our names, and their card, of a checkpoint of the authors.

    Args:
        path: their training checkpoint or a bare state dict, with or without ``module.`` before each key,
            with folded norms or with running statistics.

    Raises:
        UserError: unreadable file, a file that holds code, an unknown model, or keys that do not fit it.
    """
    conversion = read(path)
    return conversion.weights, conversion.card


def read(
    path: str | Path, *, preset: str | None = None, allow_missing: bool = False, settings: Sequence[str] = ()
) -> Conversion:
    """`convert` with the record of what was mapped.

    Args:
        preset: what the file is, where its keys fit several presets; default: the first that fits.
        allow_missing: accept keys nobody needs, and fill absent ones with fresh weights.
        settings: ``key=value`` changes of the configuration that goes into the card.
    """
    path = Path(path)
    content = _unpickle(path)
    state = _state_dict(content, path)
    card = _own_card(content, path)
    differs: tuple[str, ...] = ()
    if card is None:
        config, classes, differs = recognise(state, preset, path)
        card = Card(config, classes, data="the authors' checkpoint", iterations=_iterations(content))
    elif preset not in (None, card.preset):
        raise UserError(f"{path}: its card says preset '{card.preset}', not '{preset}'; leave out --preset")
    card = replace(card, config=card.config.override_text(settings))
    _check_anchors(state, card.config, path)
    weights, missing, used = from_official(state, card, path)
    left_over = tuple(sorted(key for key in state if key not in used and not _ignored(key)))
    if (missing or left_over) and not allow_missing:
        kind, keys = ("missing", missing) if missing else ("left over", left_over)
        raise UserError(
            f"{path}: {len(keys)} keys are {kind} for preset '{card.preset}', the first is '{keys[0]}'; "
            "give the right --preset, or --allow-missing to accept it"
        )
    if missing:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fresh = build_model(card.config, card.num_classes).state_dict()
        weights = {name: weights.get(name, value) for name, value in fresh.items()}
    return Conversion(weights, card, len(used), left_over, missing, differs)


def save(conversion: Conversion, out: str | Path) -> Path:
    """Write converted weights as safetensors that `cpm_lib.load` reads."""
    with torch.device("meta"):
        model = build_model(conversion.card.config, conversion.card.num_classes)
    model.load_state_dict(conversion.weights, assign=True)
    return checkpoint.save_weights(Path(out), model, conversion.card)


def reverse(path_or_run: str | Path, out: str | Path) -> Path:
    """Write a checkpoint of ours in the authors' layout: `torch.save` of a dict with `model`, bare keys.

    Cascade R-CNN: their box regressors have 8 rows and use the last 4; the first 4 are written as zeros.

    Raises:
        UserError: a part of the model has no counterpart in their code.
    """
    card = checkpoint.read_card(path_or_run)
    state = to_official(checkpoint.read_weights(path_or_run), card.config)
    return checkpoint.save_tensors(Path(out), {"model": state, OWN_CARD: card.metadata()})


def to_official(weights: Weights, config: Config) -> Weights:
    """Our weights under the authors' names and in their shapes, with their anchor buffers.

    Frozen gains are divided by what the authors' test model multiplies them with, so that both compute the
    same. Where float32 has no such number (one in some 100,000) the tensor is kept in float64.
    """
    state: Weights = {}
    for name, value in weights.items():
        if _is_folded_gain(name, value, config):
            value = _unfold(value)
        elif name.startswith("regressors."):
            value = torch.cat((torch.zeros_like(value), value))
        state[official_name(name, config)] = value
    for number, stride in enumerate(STRIDES):
        scale, ratios = config.proposals.anchor_scale, config.proposals.ratios
        state[f"{_ANCHORS}{number}"] = cell_anchors(stride, scale, ratios, plus_one=True)
    return state


def from_official(state: Weights, card: Card, path: Path) -> tuple[Weights, tuple[str, ...], set[str]]:
    """A state dict of the authors, without ``module.``, as ours.

    Returns:
        our weights, the authors' names of the absent ones, and the names that were used.

    Raises:
        UserError: a shape that does not fit; `path` is for messages.
    """
    config = card.config
    with torch.device("meta"):
        model = build_model(config, card.num_classes)
    folded = _fold(state, path) if config.backbone.norm == "frozen" else state
    weights, missing, used = {}, [], set()
    for name, needed in model.state_dict().items():
        theirs = official_name(name, config)
        if theirs not in folded:
            missing.append(theirs)
            continue
        used.add(theirs)
        value = folded[theirs]
        if name.startswith("regressors."):
            value = value[len(value) // 2 :]
        if _is_folded_gain(name, needed, config) and f"{theirs.removesuffix('weight')}running_var" not in state:
            value = value / _REFOLD.to(value.dtype)
        if value.shape != needed.shape:
            raise UserError(
                f"{path}: '{theirs}' has shape {list(value.shape)}, preset '{card.preset}' needs {list(needed.shape)}; "
                "give the preset the file was trained with"
            )
        weights[name] = value.to(needed.dtype)
    return weights, tuple(missing), used | {key for key in state if key not in folded}


def _fold(state: Weights, path: Path) -> Weights:
    for key in state:
        norm, _, part = key.rpartition(".")
        if part in ("running_mean", "running_var"):
            for other in ("weight", "bias", "running_mean", "running_var"):
                if f"{norm}.{other}" not in state:
                    raise UserError(f"{path}: '{key}' is there but '{norm}.{other}' is missing; the file is incomplete")
    return fold_batch_norms(state)


def _is_folded_gain(name: str, value: Tensor, config: Config) -> bool:
    in_body = name.startswith("backbone.body.") and name.endswith(".weight")
    return in_body and value.ndim == 1 and config.backbone.norm == "frozen"


def _unfold(gain: Tensor) -> Tensor:
    """Values that become exactly `gain` when divided by `_REFOLD`."""
    near = gain * _REFOLD
    for candidate in (torch.nextafter(near, near * 2), torch.nextafter(near, near / 2)):
        near = torch.where(near / _REFOLD == gain, near, torch.where(candidate / _REFOLD == gain, candidate, near))
    return near if torch.equal(near / _REFOLD, gain) else gain.double() * _REFOLD.double()


def _ignored(key: str) -> bool:
    """What a conversion need not carry over: the input's norm, anchors (checked apart), counters."""
    return key.startswith(("Norm.", _ANCHORS)) or key.endswith(".num_batches_tracked")


def _check_anchors(state: Weights, config: Config, path: Path) -> None:
    for number, stride in enumerate(STRIDES):
        stored = state.get(f"{_ANCHORS}{number}")
        ours = cell_anchors(stride, config.proposals.anchor_scale, config.proposals.ratios, plus_one=True)
        if stored is not None and not torch.equal(stored.float(), ours):
            raise UserError(f"{path}: '{_ANCHORS}{number}' holds other anchors than stride {stride} has; not supported")


# ---- reading a file without running anything in it


def _unpickle(path: Path) -> Any:
    scalar = np.float64(0).__reduce__()[0]
    # Their settings are a pickled dictionary of a class of their own; a plain one takes its place.
    allowed: list[Any] = [(OrderedDict, "pet.utils.collections.AttrDict"), np.dtype, type(np.dtype("f8")),
                          type(np.dtype("i8")), scalar, (scalar, "numpy.core.multiarray.scalar")]  # fmt: skip
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|function|global|class) ([\w.]+\.[\w.]+)", str(error))
        if named is None:
            raise UserError(
                f"{path}: not a readable checkpoint of tensors and plain values; download it again"
            ) from error
        raise UserError(
            f"{path}: refused, it asks for {named[1]}; nothing in it was run. Get the file from its authors"
        ) from error
    except Exception as error:  # a file made of anything can break the reader in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: not a readable checkpoint ({reason}); download it again") from error


def _state_dict(content: Any, path: Path) -> Weights:
    """The tensors of a checkpoint or of a bare state dict, without ``module.``."""
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no state dict, neither itself nor under 'model'; give the authors' .pth file")
    if all(str(key).startswith("module.") for key in state):
        return {str(key).removeprefix("module."): value for key, value in state.items()}
    return {str(key): value for key, value in state.items()}


def _own_card(content: Mapping[str, Any], path: Path) -> Card | None:
    metadata = content.get(OWN_CARD)
    return Card.from_metadata(metadata, path) if isinstance(metadata, Mapping) else None


def _iterations(content: Mapping[str, Any]) -> int:
    scheduler = content.get("scheduler")
    iteration = scheduler.get("iteration", 0) if isinstance(scheduler, Mapping) else 0
    return int(iteration) if isinstance(iteration, (int, np.integer)) else 0
