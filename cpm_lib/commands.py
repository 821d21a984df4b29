"""What the sub-commands of `cpm` do: one thin function each, importing only what it needs.

Importing torch and torchvision takes seconds; a command that needs neither must not wait for them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_lib.errors import UserError

if TYPE_CHECKING:
    from cpm_lib.config import Config

EVAL_METRICS = ("AP", "AP50", "AP75", "AP90", "APS", "APM", "APL")


def env(args: argparse.Namespace) -> None:
    from cpm_lib import environment

    described = environment.describe()
    if _json(args, described):
        return
    versions, git = described.pop("versions"), described.pop("git")
    rows = [[name, version] for name, version in versions.items()]
    rows += [[name, _text(value)] for name, value in described.items()]
    state = {True: "with changes", False: "clean", None: ""}[git["dirty"]]
    rows.append(["git", f"{git['sha'] or 'not run from a repository'} {state}".strip()])
    _table(rows, left=2)


def list_presets(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from cpm_lib import presets

    fields = ("name", "summary", "paper", "expected", "tolerance", "cost", "hardware", "command")
    entries = [
        {**{field: getattr(preset, field) for field in fields}, "results": [asdict(r) for r in preset.results]}
        for preset in presets.PRESETS.values()
    ]
    if _json(args, entries):
        return
    for entry in entries:
        expected = "no AP" if entry["expected"] is None else f"AP {entry['expected']} +- {entry['tolerance']}"
        print(f"{entry['name']}: {entry['summary']}")
        print(f"    expected: {expected}; printed: {entry['paper']}")
        print(f"    cost: {entry['cost']}; {entry['hardware']}")
        print(f"    {entry['command']}")
    print("\nprofiles (--profile):")
    _table([[profile.name, profile.summary] for profile in presets.PROFILES.values()], left=2)


def info(args: argparse.Namespace) -> None:
    config = _config(args)
    from cpm_lib.complexity import describe

    described = {**describe(config, args.num_classes), "conventions": config.to_dict()["conventions"]}
    if _json(args, described):
        return
    print(f"{args.preset}, profile {args.profile}, {args.num_classes} classes with background")
    rows = [["part", "GMAC"]] + [[part, f"{value:.3f}"] for part, value in described["gmac"].items()]
    rows.append(["total", f"{described['total_gmac']:.3f}"])
    _table(rows)
    print(f"parameters {described['parameters'] / 1e6:.2f} M")
    for key, value in described.items():
        if key not in ("gmac", "total_gmac", "parameters", "preset", "profile") and isinstance(
            value, (int, float, str)
        ):
            print(f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}")
    print("conventions:")
    _table([[name, str(value), _side(name, value)] for name, value in described["conventions"].items()], left=3)


def data_shapes(args: argparse.Namespace) -> None:
    from cpm_lib.data import write_shapes

    out = write_shapes(args.profile, args.out, args.seed, splits=args.splits, workers=args.workers)
    for split in args.splits:
        print(f"coco:{out / f'annotations_{split}.json'},{out / split}")


def data_check(args: argparse.Namespace) -> int:
    import dataclasses

    from cpm_lib.data import inspection

    data = _open(args.source, args.strict)
    report = inspection.check(data, samples=args.samples)
    drawn = inspection.draw_samples(data, args.out) if args.out else []
    if not _json(args, {**dataclasses.asdict(report), "sane": report.sane}):
        print(report.text())
        if drawn:
            print(f"{len(drawn)} drawn samples in {args.out}")
    return 0 if report.sane else 1


def train(args: argparse.Namespace) -> None:
    # First of all, and before the slow imports: most mistakes are made here.
    config = _config(args)
    from cpm_lib.training import distributed, optimisation
    from cpm_lib.training import train as run
    from cpm_lib.training.run_folder import RunFolder

    if args.iterations is not None:
        config = optimisation.with_iterations(config, args.iterations).override_text(args.set)
    distributed.start(args.device)
    try:
        # Before the data, which may take minutes to read or make.
        distributed.on_main(lambda: RunFolder(args.out).check(args.resume))
        data = _open(args.data, args.strict)
        val = _open(args.val, args.strict) if args.val else None
        if val is not None and val.classes != data.classes:
            raise UserError(_class_difference("--data", data.classes, "--val", val.classes))
        run(
            config,
            data,
            args.out,
            val=val,
            seed=args.seed,
            init=args.init,
            resume=args.resume,
            workers=args.workers,
            device=args.device,
            log_every=args.log_every,
        )
    finally:
        distributed.stop()


def evaluate(args: argparse.Namespace) -> None:
    from cpm_lib import evaluation
    from cpm_lib.training import checkpoint, distributed

    if args.tta and args.stages == "all":
        raise UserError("--tta merges the boxes of the last stage, so --stages all has no other rows; leave one out")
    card = checkpoint.read_card(args.checkpoint)
    data = _open(args.data, args.strict)
    if data.classes != card.classes:
        raise UserError(_class_difference(args.checkpoint, card.classes, args.data, data.classes))
    overrides: dict[str, Any] = {}
    if args.gamma is not None:
        overrides["scoring.gamma"] = args.gamma
    if args.rois is not None:
        overrides["conventions.rois_at_test"] = args.rois or None
    device = distributed.start(args.device)
    model = checkpoint.load(args.checkpoint, device=device, overrides=overrides)
    gamma = card.config.scoring.gamma if args.gamma is None else args.gamma
    passes: dict[str, Any] = {"batch_size": args.batch, "device": device, "workers": args.workers}
    if args.tta:
        detections = evaluation.predict_augmented(model, data, soft_nms=args.soft_nms or "linear", **passes)
    else:
        detections = evaluation.predict(model, data, **passes)
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
    table = []
    for stage, score, found in rows:
        metrics = evaluation.evaluate(found, data, data.area_limits)
        table.append({"stage": stage, "score": score, **{name: metrics[name] for name in EVAL_METRICS}})
    content = {"preset": card.preset, "data": data.name, "gamma": gamma, "n_images": len(data), "rows": table}
    options = {"soft_nms": args.soft_nms, "tta": args.tta or None, "rois": args.rois}
    content |= {name: value for name, value in options.items() if value is not None}
    if differences:
        content["differences"] = differences
    if not _json(args, content):
        print(f"{card.preset} on {data.name}, {len(data)} images, gamma {gamma}")
        _table([list(table[0])] + [[_text(value) for value in row.values()] for row in table], left=2)
        for name, value in differences.items():
            print(f"{name}: {value['difference']:+.2f} AP, 95 % interval [{value['low']:+.2f}, {value['high']:+.2f}]")


def detect(args: argparse.Namespace) -> None:
    from cpm_lib import detect as pictures
    from cpm_lib.training import checkpoint, distributed

    files = pictures.find(args.images)
    card = checkpoint.read_card(args.checkpoint)
    device = distributed.start(args.device)
    model = checkpoint.load(args.checkpoint, device=device)
    results = pictures.detect(model, card.classes, files, Path(args.out), score=args.score, device=device)
    count = sum(len(result["detections"]) for result in results)
    print(f"{count} objects with score >= {args.score} in {len(files)} pictures: {args.out}")


def convert(args: argparse.Namespace) -> None:
    out, suffix = Path(args.out), ".pth" if args.reverse else ".safetensors"
    if out.suffix != suffix:
        raise UserError(f"--out {out}: the file written is a {suffix} file; give it that ending")
    if args.reverse and (args.preset or args.allow_missing or args.set):
        raise UserError("--reverse takes all from the checkpoint's card; leave out --preset, --allow-missing and --set")
    from cpm_lib import official
    from cpm_lib.files import write_atomic
    from cpm_lib.training import checkpoint

    source = Path(args.checkpoint)
    if args.reverse:
        print(f"{official.reverse(source, out)}: in the authors' layout")
        if not checkpoint.read_card(source).config.conventions.pixel_plus_one:
            print("trained under other conventions than the authors', which their code will apply", file=sys.stderr)
        return
    conversion = official.read(source, preset=args.preset, allow_missing=args.allow_missing, settings=args.set)
    record = conversion.record(source)
    official.save(conversion, out)
    write_atomic(out.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
    print(f"{out}: preset {conversion.card.preset}, {conversion.mapped} keys mapped; card {out.with_suffix('.json')}")
    for name in ("differs_from_preset", "missing_keys", "left_over_keys"):
        if record[name]:
            print(f"{name.replace('_', ' ')}: {', '.join(record[name])}")


def plot(args: argparse.Namespace) -> None:
    import io

    from cpm_lib import figures
    from cpm_lib.files import write_atomic
    from cpm_lib.training.run_folder import RunFolder

    folder = RunFolder(args.run_folder)
    folder.read()
    metrics = folder.records("metrics")
    if not metrics:
        raise UserError(f"{args.run_folder}: no iteration is written down yet; train some more")
    image = io.BytesIO()
    figures.training_curves(metrics, folder.records("evaluations")).savefig(image, format="png")
    print(write_atomic(folder.path / "curves.png", image.getvalue()))


# ---- shared by the commands


def _config(args: argparse.Namespace) -> Config:
    from cpm_lib import presets

    return presets.get(args.preset, args.profile, conventions=args.conventions).override_text(args.set)


def _side(switch: str, value: Any) -> str:
    """Which of the two sets of conventions a value belongs to."""
    from cpm_lib.config import CONVENTIONS

    sides = [name for name, conventions in CONVENTIONS.items() if getattr(conventions, switch) == value]
    return {0: "of its own", 1: sides[0] if sides else "", 2: "the same in both"}[len(sides)]


def _open(text: str, strict: bool) -> Any:
    """Open a data source; with several processes first in the main one, which may have to make it."""
    from cpm_lib.data import open_source
    from cpm_lib.training import distributed

    opened: list[Any] = []
    distributed.on_main(lambda: opened.append(open_source(text, strict=strict)))
    data = opened[0] if opened else open_source(text, strict=strict)
    if data.dropped and distributed.is_main():
        image_id, reason = data.dropped[0]
        print(f"{text}: {len(data.dropped)} bad boxes dropped, e.g. image {image_id}: {reason}", file=sys.stderr)
    return data


def _class_difference(first: str, one: Sequence[str], second: str, other: Sequence[str]) -> str:
    return (
        f"classes differ: {first} has {len(one)} ({', '.join(one)}), {second} has {len(other)} ({', '.join(other)}); "
        "use data with the same classes in the same order"
    )


def _soft_nms(found: dict[str, Any], method: str) -> dict[str, Any]:
    from cpm_lib.model.fused_score import soft_nms

    keep, scores = soft_nms(found["boxes"], found["scores"], found["labels"], method=method)  # type: ignore[arg-type]
    return {**found, "boxes": found["boxes"][keep], "labels": found["labels"][keep], "scores": scores}


def _json(args: argparse.Namespace, content: Any) -> bool:
    """Write `content` where ``--json`` says; true if that was standard output, which takes nothing else then."""
    if args.json is None:
        return False
    text = json.dumps(content, indent=2) + "\n"
    if args.json == "-":
        sys.stdout.write(text)
        return True
    from cpm_lib.files import write_atomic

    write_atomic(args.json, text)
    return False


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _table(rows: list[list[str]], left: int = 1) -> None:
    """Print aligned columns; the first `left` ones to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
