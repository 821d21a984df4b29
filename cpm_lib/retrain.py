"""`make retrain`: everything trained that the repository ships, again from nothing.

crops -> backbone -> trunk (Faster R-CNN) -> quickstart model (CPM R-CNN) -> records and card
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from cpm_lib import evaluation, ledger, presets
from cpm_lib.config import Config
from cpm_lib.data import open_source
from cpm_lib.errors import UserError
from cpm_lib.files import write_atomic
from cpm_lib.training import checkpoint
from cpm_lib.training.card import Card
from cpm_lib.training.pretraining import pretrain_backbone
from cpm_lib.training.trainer import train

TRAIN, VAL = "shapes:quick:train", "shapes:quick:val"
TRUNK_ITERATIONS, MODEL_ITERATIONS = 2400, 1000
SHIPPED = Path("data/checkpoints")
WORK = Path("_build/retrain")


def main() -> None:
    """Train all steps, replace the shipped files, and measure them.

    Raises:
        UserError: a folder cannot be written, or a run went wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m cpm_lib.retrain", description=__doc__.splitlines()[0])
    parser.add_argument("--records", action="store_true", help="only measure the shipped files again")
    began = time.perf_counter()
    only_records = parser.parse_args().records
    if not only_records:
        train_all(WORK / time.strftime("%Y%m%d-%H%M%S"))
    measure()
    minutes = (time.perf_counter() - began) / 60
    what = "the records" if only_records else "the checkpoints and the records"
    print(f"made {what} of {SHIPPED} in {minutes:.0f} min")


def train_all(folder: Path) -> None:
    """Backbone, trunk and model, in `folder`; then the last two as shipped, with 16 bits per weight."""
    training = open_source(TRAIN)
    trunk_config = presets.get("faster", "quick").override({"solver.iterations": TRUNK_ITERATIONS})
    backbone, accuracy = pretrain_backbone(trunk_config, training)
    print(f"crop pretraining: {100 * accuracy:.1f} % of held-out crops named right", flush=True)
    start = folder / "backbone.safetensors"
    write_atomic(start, lambda path: save_file({k: v.contiguous() for k, v in backbone.items()}, path))
    trunk = train(trunk_config, training, folder / "trunk", init=start, device="cpu")
    model_config = presets.get("cpm", "quick").override({"solver.iterations": MODEL_ITERATIONS})
    model = train(model_config, training, folder / "cpm", init=trunk, device="cpu")
    for source, target in ((trunk, "trunk"), (model, "cpm")):
        _ship(source, SHIPPED / f"{target}.safetensors")


def _ship(source: Path, target: Path) -> None:
    metadata = checkpoint.read_card(source).metadata()
    weights = checkpoint.read_weights(source)
    halved = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    write_atomic(target, lambda path: save_file(halved, path, metadata=metadata))


def measure() -> None:
    """Records and card of the shipped files."""
    validation = open_source(VAL)
    claims = {"trunk": "Faster R-CNN, the shipped trunk", "cpm": "CPM R-CNN, the shipped quickstart model"}
    table = []
    for name, claim in claims.items():
        model = checkpoint.load(SHIPPED / f"{name}.safetensors")
        began, cpu = time.perf_counter(), time.process_time()
        found = evaluation.predict(model, validation)
        measured = _scores(found, validation, model.config.scoring.gamma)
        times = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
        _record(f"shipped-{name}", claim, model.config, validation, **measured, **times)
        table += [(name, row, metrics) for row, metrics in measured["metrics"].items()]
        if name == "cpm":
            claim = "Fig. 1: borders outside the RoI, and scores that do not follow the IoU"
            metrics = evaluation.misalignment(found, validation)
            _record("fig1-misalignment", claim, model.config, validation, metrics=metrics, **times)
    write_atomic(SHIPPED / "README.md", _card(table, checkpoint.read_card(SHIPPED / "cpm.safetensors")))


def _scores(found: list[dict[str, Any]], validation: Any, gamma: float) -> dict[str, Any]:
    """Every row of one inference, and the paired differences the first pages speak of."""
    rows = evaluation.rows(found, gamma)
    metrics = {}
    for stage, score, detections in rows:
        values = evaluation.evaluate(detections, validation)
        metrics[f"stage{stage}-{score}"] = {name: values[name] for name in evaluation.HEADLINE}
    return {
        "metrics": metrics,
        "differences": evaluation.paired_differences(rows, validation),
        "interval": evaluation.bootstrap_ap(rows[-1][2], validation),
    }


def _record(id: str, claim: str, config: Config, validation: Any, **measured: Any) -> None:
    notes = "of the shipped weights, rounded to 16 bits; wall_s and cpu_s are those of the evaluation"
    ledger.write(ledger.make(id, claim, "E1", config=config, dataset=validation, seed=0, notes=notes, **measured))


def _card(rows: list[tuple[str, str, dict[str, float]]], card: Card) -> str:
    lines = [
        "# Shipped checkpoints",
        "",
        "Small detectors for procedural shapes, trained on the CPU by `make retrain`; MIT licence, like the code.",
        "With them every page and test starts with a real detector; they know nothing of photographs.",
        "",
        f"Data: `{card.data}` (2000 images of 128 px, fingerprint `{card.fingerprint[:12]}`), evaluated on `{VAL}`.",
        f"Steps: crop classification, {TRUNK_ITERATIONS} iterations of Faster R-CNN (`trunk.safetensors`), "
        f"{MODEL_ITERATIONS} iterations of CPM R-CNN from it (`cpm.safetensors`); profile `quick`, seed {card.seed}.",
        "Weights are stored with 16 bits.",
        "",
        "| file | row | AP | AP50 | AP75 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row, metrics in rows:
        numbers = " | ".join(f"{metrics[key]:.1f}" for key in ("AP", "AP50", "AP75"))
        lines.append(f"| `{name}.safetensors` | {row} | {numbers} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"retrain: {error}")
