"""`cpm train`, `eval`, `detect` and `plot`: a detector and its data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_lib.commands.options import open_data
from cpm_lib.commands.output import as_text, print_table, write_json
from cpm_lib.errors import UserError

if TYPE_CHECKING:
    from cpm_lib.config import Config


def train(args: argparse.Namespace) -> None:
    # First of all, and before the slow imports: most mistakes are made here.
    usual = _usual_training(args)
    config = usual.override_text(args.set)
    from cpm_lib import environment
    from cpm_lib.data import inspection
    from cpm_lib.training import distributed, optimisation
    from cpm_lib.training import train as run
    from cpm_lib.training.run_folder import RunFolder

    if args.iterations is not None:
        config = optimisation.with_iterations(config, args.iterations).override_text(args.set)
    given = any(assignment.partition("=")[0].strip() == "solver.lr" for assignment in args.set)
    config, reason = optimisation.scaled_to_batch(config, usual.solver, given)
    if args.deterministic:
        environment.make_deterministic()
    device = distributed.start(args.device)
    resume = args.resume or distributed.restarted()
    try:
        # Before the data, which may take minutes to read or make.
        distributed.on_main(lambda: RunFolder(args.out, tensorboard=args.tensorboard).check(resume))
        if distributed.is_main():
            print(reason)
        data = open_data(args.data, args.strict)
        val = open_data(args.val, args.strict) if args.val else None
        if val is not None and val.classes != data.classes:
            raise UserError(_class_difference("--data", data.classes, "--val", val.classes))
        if val is not None and distributed.is_main() and (untrained := inspection.untrained(data, val)):
            print(
                f"warning: no object of {', '.join(untrained)} in --data to learn from, though --val has some",
                file=sys.stderr,
            )
        run(
            config,
            data,
            args.out,
            val=val,
            seed=args.seed,
            init=args.init,
            resume=resume,
            workers=_workers(args, device),
            device=device,
            log_every=args.log_every,
            tensorboard=args.tensorboard,
        )
    finally:
        distributed.stop()


def evaluate(args: argparse.Namespace) -> None:
    from cpm_lib import evaluation
    from cpm_lib.model import compile_backbone
    from cpm_lib.training import checkpoint, distributed, sharding

    if args.tta and args.stages == "all":
        raise UserError("--tta merges the boxes of the last stage, so --stages all has no other rows; leave one out")
    device = distributed.start(args.device)
    card = checkpoint.read_card(args.checkpoint)
    data = open_data(args.data, args.strict)
    if data.classes != card.classes:
        difference = _class_difference(args.checkpoint, card.classes, args.data, data.classes)
        raise UserError(f"{difference}, or train on it first: cpm train --init {args.checkpoint}")
    overrides: dict[str, Any] = {}
    if args.gamma is not None:
        overrides["scoring.gamma"] = args.gamma
    if args.rois is not None:
        overrides["conventions.rois_at_test"] = args.rois or None
    model = checkpoint.load(args.checkpoint, device=device, overrides=overrides)
    if args.gamma is not None and getattr(model, "resampling", None) is None:
        print(f"note: {card.preset} has no RSM to be weighed, so --gamma changes nothing", file=sys.stderr)
    if args.compile:
        compile_backbone(model)
    gamma = card.config.scoring.gamma if args.gamma is None else args.gamma
    passes: dict[str, Any] = {"batch_size": args.batch, "device": device, "workers": _workers(args, device)}
    if args.tta:
        passes |= {"predictor": evaluation.predict_augmented, "soft_nms": args.soft_nms or "linear"}
    try:
        detections = sharding.predict(model, data, **passes)
    finally:
        main = distributed.is_main()
        distributed.stop()
    if not main:
        return
    rows = evaluation.rows(detections, gamma, clamp=card.config.conventions.ism_clamp)
    differences = evaluation.paired_differences(rows, data) if args.stages == "all" else {}
    if args.tta:
        # The scores have decayed already; the parts would give those of one pass.
        rows = [(*rows[-1][:2], detections)]
    elif args.soft_nms:
        stage, score, final = rows[-1]
        rows[-1] = (stage, score, [_soft_nms(found, args.soft_nms) for found in final])
    if args.stages != "all":
        rows = rows[-1:]
    if args.results:
        evaluation.GroundTruth.of(data).write_results(args.results, rows[-1][2])
    table = []
    for stage, score, found in rows:
        metrics = evaluation.evaluate(found, data, data.area_limits)
        table.append({"stage": stage, "score": score, **{name: metrics[name] for name in evaluation.HEADLINE}})
    content = {"preset": card.preset, "data": data.name, "gamma": gamma, "n_images": len(data), "rows": table}
    options = {"soft_nms": args.soft_nms, "tta": args.tta or None, "rois": args.rois}
    content |= {name: value for name, value in options.items() if value is not None}
    if differences:
        content["differences"] = differences
    if not write_json(args, content):
        print(f"{card.preset} on {data.name}, {len(data)} images, gamma {gamma}")
        print_table([list(table[0])] + [[as_text(value) for value in row.values()] for row in table], left=2)
        for name, value in differences.items():
            print(f"{name}: {value['difference']:+.2f} AP, 95 % interval [{value['low']:+.2f}, {value['high']:+.2f}]")


def detect(args: argparse.Namespace) -> None:
    from cpm_lib import detect as pictures
    from cpm_lib.model import compile_backbone
    from cpm_lib.training import checkpoint, distributed

    files = pictures.find(args.images)
    card = checkpoint.read_card(args.checkpoint)
    device = distributed.start(args.device)
    overrides = {} if args.gamma is None else {"scoring.gamma": args.gamma}
    model = checkpoint.load(args.checkpoint, device=device, overrides=overrides)
    if args.compile:
        compile_backbone(model)
    results = pictures.detect(model, card.classes, files, Path(args.out), score=args.score, device=device)
    count = sum(len(result["detections"]) for result in results)
    print(f"{count} objects with score >= {args.score} in {len(files)} pictures: {args.out}")


def plot(args: argparse.Namespace) -> None:
    import io

    from cpm_lib import figures
    from cpm_lib.files import write_atomic
    from cpm_lib.training.run_folder import RunFolder

    folder = RunFolder(args.run_folder)
    described = folder.read()
    metrics = folder.records("metrics")
    if not metrics:
        raise UserError(f"{args.run_folder}: no iteration is written down yet; train some more")
    source = described.get("data", {}).get("name", "unknown data")
    title = f"{described.get('preset', 'run')} on {source}, {len(metrics):,} iterations"
    image = io.BytesIO()
    figures.training_curves(metrics, folder.records("evaluations"), title=title).savefig(image, format="png")
    print(write_atomic(folder.path / "curves.png", image.getvalue()))


def _usual_training(args: argparse.Namespace) -> Config:
    """The settings of the preset; without ``--preset`` those of the checkpoint that ``--init`` starts from."""
    if args.preset is not None:
        from cpm_lib import presets

        return presets.get(args.preset, args.profile or "paper", conventions=args.conventions or "corrected")
    if args.init is None:
        raise UserError("give --preset NAME, or --init CKPT to train with the settings of that checkpoint")
    if args.profile is not None or args.conventions is not None:
        raise UserError("without --preset all settings are the checkpoint's; leave out --profile and --conventions")
    from cpm_lib.training import checkpoint

    return checkpoint.read_card(args.init).config.override({"backbone.pretrained": False})


def _workers(args: argparse.Namespace, device: Any) -> int:
    """Processes that read images: as asked; else a GPU gets up to four, within its share of the cores."""
    import os

    from cpm_lib.training import distributed

    if args.workers is not None:
        return args.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cores // distributed.processes_here()) if device.type == "cuda" else 0


def _class_difference(first: str, one: Sequence[str], second: str, other: Sequence[str]) -> str:
    difference = f"{first} has {_classes(one, other)}, {second} has {_classes(other, one)}"
    if sorted(one) == sorted(other):
        difference = f"{first} and {second} have the same names in another order"
    return f"classes differ: {difference}; use data with the same classes in the same order"


def _classes(names: Sequence[str], others: Sequence[str]) -> str:
    """How many there are, and which of them are not among the others."""
    own = [name for name in names if name not in others]
    return (
        f"{len(names)} ({', '.join(own[:5])}{', ...' if len(own) > 5 else ''} only there)" if own else f"{len(names)}"
    )


def _soft_nms(found: dict[str, Any], method: str) -> dict[str, Any]:
    from cpm_lib.model.fused_score import soft_nms

    keep, scores = soft_nms(found["boxes"], found["scores"], found["labels"], method=method)  # type: ignore[arg-type]
    return {**found, "boxes": found["boxes"][keep], "labels": found["labels"][keep], "scores": scores}
