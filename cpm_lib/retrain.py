"""`make retrain`: everything trained that the repository ships, again from nothing.

crops -> backbone -> trunk (Faster R-CNN) -> quickstart model (CPM R-CNN) -> records and card
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cpm_lib import evaluation, ledger, presets
from cpm_lib.config import Config
from cpm_lib.data import open_source
from cpm_lib.errors import UserError
from cpm_lib.files import write_atomic
from cpm_lib.training import checkpoint
from cpm_lib.training.pretraining import pretrain_backbone
from cpm_lib.training.trainer import train

TRAIN, VAL = "shapes:quick:train", "shapes:quick:val"
TRUNK_ITERATIONS, MODEL_ITERATIONS = 2400, 1000
SHIPPED = Path("data/checkpoints")
WORK = Path("_build/retrain")
METRICS = ("AP", "AP50", "AP75", "AP90", "APS", "APM", "APL")


def main(shipped: Path = SHIPPED, work: Path = WORK) -> None:
    """Train all steps into `work` and replace the shipped files and records.

    Raises:
        UserError: `work` cannot be written, or a run went wrong.
    """
    began = time.perf_counter()
    folder = work / time.strftime("%Y%m%d-%H%M%S")
    training, validation = open_source(TRAIN), open_source(VAL)
    trunk_config = presets.get("faster", "quick").override({"solver.iterations": TRUNK_ITERATIONS})
    backbone, accuracy = pretrain_backbone(trunk_config, training)
    print(f"crop pretraining: {100 * accuracy:.1f} % of held-out crops named right", flush=True)
    start = folder / "backbone.safetensors"
    write_atomic(start, lambda path: save_file({k: v.contiguous() for k, v in backbone.items()}, path))
    trunk = train(trunk_config, training, folder / "trunk", val=validation, init=start)
    model_config = presets.get("cpm", "quick").override({"solver.iterations": MODEL_ITERATIONS})
    model = train(model_config, training, folder / "cpm", init=trunk)
    measured = {
        "trunk": _ship(trunk, shipped / "trunk.safetensors", validation),
        "cpm": _ship(model, shipped / "cpm.safetensors", validation),
    }
    wall = time.perf_counter() - began
    _record("shipped-trunk", "The shipped trunk finds shapes", trunk_config, validation, measured["trunk"])
    _record("shipped-cpm", "The shipped CPM R-CNN finds shapes", model_config, validation, measured["cpm"])
    write_atomic(shipped / "README.md", _card(measured, accuracy, training.fingerprint(), wall))
    print(f"made {shipped}/trunk.safetensors, {shipped}/cpm.safetensors and their records in {wall / 60:.0f} min")


def _ship(source: Path, target: Path, validation: Any) -> dict[str, Any]:
    """Copy a checkpoint with half the bytes per weight, and measure what is in the copy."""
    card = checkpoint.read_card(source)
    weights: Mapping[str, Tensor] = checkpoint.read_weights(source)
    halved = {k: v.to(torch.float16) if v.is_floating_point() else v for k, v in weights.items()}
    write_atomic(target, lambda path: save_file(halved, path, metadata=card.metadata()))
    model = checkpoint.load(target)
    began, cpu = time.perf_counter(), time.process_time()
    rows = evaluation.rows(evaluation.predict(model, validation), card.config.scoring.gamma)
    scores = {f"stage{stage}-{score}": evaluation.evaluate(found, validation) for stage, score, found in rows}
    first, last = rows[0][2], next(found for stage, score, found in reversed(rows) if score == "cls")
    fused = rows[-1][2]
    differences = {}
    if len(rows) > 1:
        differences = {
            "last stage - stage 1, cls": evaluation.bootstrap_difference(last, first, validation),
            "fused - cls, last stage": evaluation.bootstrap_difference(fused, last, validation),
        }
    return {
        "metrics": {row: {name: values[name] for name in METRICS} for row, values in scores.items()},
        "differences": differences,
        "interval": evaluation.bootstrap_ap(fused, validation),
        "wall_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
    }


def _record(id: str, claim: str, config: Config, validation: Any, measured: dict[str, Any]) -> None:
    note = "wall_s and cpu_s are those of the evaluation; weights rounded to 16 bits as shipped"
    ledger.write(ledger.make(id, claim, "E1", config=config, dataset=validation, seed=0, notes=note, **measured))


def _card(measured: Mapping[str, dict[str, Any]], accuracy: float, fingerprint: str, wall: float) -> str:
    lines = [
        "# Shipped checkpoints",
        "",
        "Small detectors for procedural shapes, trained by `make retrain` on the CPU; MIT licence, like the code.",
        "They make every page and test start with a real detector; they know nothing of photographs.",
        "",
        f"Data: `{TRAIN}` (2000 images of 128 px, fingerprint `{fingerprint[:12]}`), evaluated on `{VAL}`.",
        f"Steps: crop classification ({100 * accuracy:.1f} % of held-out crops right), "
        f"{TRUNK_ITERATIONS} iterations of Faster R-CNN, {MODEL_ITERATIONS} iterations of CPM R-CNN from it; "
        f"profile `quick`, seed 0, {wall / 60:.0f} minutes in all.",
        "Weights are stored with 16 bits.",
        "",
        "| file | model | row | AP | AP50 | AP75 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, values in measured.items():
        for row, metrics in values["metrics"].items():
            numbers = " | ".join(f"{metrics[key]:.1f}" for key in ("AP", "AP50", "AP75"))
            lines.append(f"| `{name}.safetensors` | {name} | {row} | {numbers} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"retrain: {error}")
