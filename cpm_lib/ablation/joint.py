"""Joint runs: whole detectors trained from one trunk on equal terms, repeated over seeds and paired by seed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cpm_lib import evaluation, presets
from cpm_lib.ablation.paired import trunk
from cpm_lib.ablation.setting import Setting, digest, place, spending, unusual
from cpm_lib.config import OFFICIAL, Config
from cpm_lib.files import write_atomic
from cpm_lib.ledger import RESULTS_VERSION
from cpm_lib.model import Detector, build_model
from cpm_lib.training import checkpoint
from cpm_lib.training.initialisation import initialise
from cpm_lib.training.trainer import train

METRICS = ("AP", "AP50", "AP75", "AP80", "AP90", "APS", "APM", "APL")
Metrics = dict[str, float | None]

TABLE1 = tuple(name for name in presets.PRESETS if name.startswith("table1-"))
TABLE2 = ("faster", "grid", "grid-fused", "cpm-2stage", "cpm")
TABLE3 = ("cascade", "cascade-ism", "cascade-rsm", "cascade-ism-rsm")

FRESH: Mapping[str, tuple[str, tuple[str, ...]]] = {"faster-fresh": ("faster", ("regressor",))}
"""Row -> its preset, and the parts that the trunk does not give it: they begin anew, as a grid branch does."""

AT_TEST = ("clip_boxes", "ism_clamp", "rois_at_test", "pad_before_normalise")
"""Switches of `Conventions` without influence on training: the same weights are evaluated both ways."""


class Row(NamedTuple):
    """One side of a comparison: a preset, and one of its rows (`evaluation.rows`); "last" is its last one."""

    preset: str
    row: str = "last"


def run(
    setting: Setting, config: Config, seed: int, at_test: Mapping[str, Any] | None = None, fresh: Sequence[str] = ()
) -> dict[str, Metrics]:
    """Rows of one training from the trunk, trained and evaluated now if they are not yet: ``stage1-cls``, ..., and
    ``last``, which repeats the last one.

    Presets of equal settings share a run.

    Args:
        at_test: settings that differ at test only.
        fresh: parts of the detector that begin anew, although the trunk has them.

    Raises:
        UserError: the data cannot be used.
        Interrupted: Ctrl-C; the run can be continued.
    """
    folder = run_folder(setting, config, seed, fresh)
    file = rows_file(folder, at_test)
    if file.is_file():
        return dict(json.loads(file.read_text()))
    final = folder / "final.safetensors"
    if not final.is_file():
        with spending(folder):
            begun: dict[str, Any] = {"init": trunk(setting)}
            if fresh:
                begun = {"model": beginning(setting, config, seed, fresh)}
            train(config, setting.train, folder, seed=seed, resume=folder.exists(), **begun)
    with spending(folder):
        model = checkpoint.load(final, device=place(), overrides=at_test)
        rows = evaluate(model, setting)
    write_atomic(file, json.dumps(rows, indent=2) + "\n")
    return rows


def beginning(setting: Setting, config: Config, seed: int, fresh: Sequence[str]) -> Detector:
    """The detector as `train` begins it from the trunk with this seed, but for parts that keep their new weights."""
    torch.manual_seed(seed)
    model = build_model(config, len(setting.train.classes) + 1)
    new = {name: value.clone() for name, value in model.state_dict().items() if name.partition(".")[0] in fresh}
    initialise(model, trunk(setting), setting.train.classes)
    model.load_state_dict(new, strict=False)
    return model


def rows_file(folder: Path, at_test: Mapping[str, Any] | None = None) -> Path:
    """Where a joint run keeps its rows under these settings at test."""
    change = hashlib.sha256(json.dumps(at_test or {}, sort_keys=True).encode()).hexdigest()[:8]
    return folder / f"rows-{change}.json"


def run_folder(setting: Setting, config: Config, seed: int, fresh: Sequence[str] = ()) -> Path:
    """Where a joint run is kept; the name of its preset does not matter."""
    settings = {key: value for key, value in unusual(config).items() if key != "preset"}
    facts = {
        "config": settings,
        "data": [setting.train.fingerprint(), setting.val.fingerprint()],
        "version": RESULTS_VERSION,
        "trunk": digest(trunk(setting)),
    }
    if fresh:  # runs without such parts keep the names they have always had
        facts["fresh"] = sorted(fresh)
    return setting.folder("joint", seed, facts)


def evaluate(model: Any, setting: Setting) -> dict[str, Metrics]:
    """All rows of one detector."""
    found = evaluation.predict(model, setting.val)
    config = model.config
    rows = {}
    for stage, score, detections in evaluation.rows(found, config.scoring.gamma, clamp=config.conventions.ism_clamp):
        values = evaluation.evaluate(detections, setting.val)
        rows[f"stage{stage}-{score}"] = {name: values[name] for name in METRICS}
    rows["last"] = list(rows.values())[-1]
    return rows


def switches() -> dict[str, Mapping[str, Any]]:
    """Switch of the conventions -> the override that gives it the authors' value."""
    return {name: {f"conventions.{name}": value} for name, value in vars(OFFICIAL).items()}


def t_interval(differences: Sequence[float]) -> dict[str, float | int | None]:
    """Mean of paired differences, one per seed, with its 95 % interval by Student's t: difference, low, high, sd (of
    one difference) and samples, the number of seeds; NaN is left out. The interval is None for fewer than two."""
    values = np.asarray(differences, dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return {"difference": None, "low": None, "high": None, "sd": None, "samples": 0}
    mean = float(values.mean())
    if len(values) < 2:
        return {"difference": mean, "low": None, "high": None, "sd": None, "samples": 1}
    sd = float(values.std(ddof=1))
    half = t_quantile(len(values) - 1) * sd / math.sqrt(len(values))
    return {"difference": mean, "low": mean - half, "high": mean + half, "sd": sd, "samples": len(values)}


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by integrating its density."""
    t = np.linspace(0.0, 15.0, 300_001)
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    density = np.exp(log_scale - (freedom + 1) / 2 * np.log1p(t**2 / freedom))
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(t))])
    return float(t[np.searchsorted(area, 0.475)])
