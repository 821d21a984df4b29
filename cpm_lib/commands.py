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


def data_coco(args: argparse.Namespace) -> None:
    from cpm_lib.data import coco_download

    if args.download:
        counts = coco_download.download(args.root, args.splits, keep_archives=args.keep_archives)
    else:
        counts = coco_download.check(args.root, args.splits)
    for split, count in counts.items():
        print(f"coco:{args.root},{split} ({count:,} images)")


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
        data = _open(args.data, args.strict)
        val = _open(args.val, args.strict) if args.val else None
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
    from cpm_lib.training import checkpoint, distributed, sharding

    if args.tta and args.stages == "all":
        raise UserError("--tta merges the boxes of the last stage, so --stages all has no other rows; leave one out")
    device = distributed.start(args.device)
    card = checkpoint.read_card(args.checkpoint)
    data = _open(args.data, args.strict)
    if data.classes != card.classes:
        raise UserError(_class_difference(args.checkpoint, card.classes, args.data, data.classes))
    overrides: dict[str, Any] = {}
    if args.gamma is not None:
        overrides["scoring.gamma"] = args.gamma
    if args.rois is not None:
        overrides["conventions.rois_at_test"] = args.rois or None
    model = checkpoint.load(args.checkpoint, device=device, overrides=overrides)
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


def ablate(args: argparse.Namespace) -> None:
    if args.names == ["report"] and not args.list:
        return _ablate_report(args)
    if args.update:
        raise UserError("--update belongs to the report: cpm ablate report --update")
    if not args.list and not args.names:
        raise UserError("say what to run, e.g. cpm ablate table4; cpm ablate --list tells what there is")
    from cpm_lib import ablation
    from cpm_lib.ablation import tables

    experiments = [ablation.get(name) for name in args.names]
    if args.list:
        rows = ablation.listing(args.profile, args.data, args.seeds)
        if not _json(args, rows):
            columns = ("name", "table", "level", "profile", "rows", "seeds", "created", "cost", "status")
            _table([list(columns)] + [[_text(row[column]) for column in columns] for row in rows], left=2)
        return None
    setting = ablation.Setting.open(args.profile, args.data, args.runs)
    found = []
    for experiment in experiments:
        found.append(tables.content(experiment, ablation.run(experiment, setting, args.seeds)))
        if args.json != "-":
            print("\n".join(tables.lines(found[-1])), flush=True)
    _json(args, found)
    return None


def _ablate_report(args: argparse.Namespace) -> None:
    from cpm_lib import ablation
    from cpm_lib.ablation import report

    if args.update:
        print(f"{ablation.write_statuses()} entries of data/claims.json changed", file=sys.stderr)
    if not _json(args, report.entries()):
        print("\n".join(report.lines()))


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


def bench_detectors(args: argparse.Namespace) -> None:
    # First of all, and before the slow imports: most mistakes are made here.
    config, against, names = _config(args), None, None
    if args.against != "torchvision":
        against = _config(args, args.against, args.against_set)
        if against.preset == config.preset:
            ours, theirs = (" ".join([config.preset, *settings]) for settings in (args.set, args.against_set))
            names = (ours, theirs if theirs != ours else f"{theirs} again")
    elif args.against_set:
        raise UserError("--against-set changes another preset of ours; name it with --against")
    from cpm_lib import bench
    from cpm_lib.training import distributed

    options: dict[str, Any] = {"size": args.size and tuple(args.size), "batch": args.batch, "precision": args.dtype}
    options |= {"device": distributed.start(args.device), "rois": args.rois, "repeats": args.repeats}
    with bench.threads(args.threads):
        if args.work == "inference" and args.sweep:
            content = bench.sweep(config, args.sweep, **options)
        else:
            own = args.work == "inference" and args.own_settings
            content = bench.versus(args.work, config, against, names=names, own=own, memory=args.memory, **options)
    _bench_result(args, content)


def bench_targets(args: argparse.Namespace) -> int:
    config = _config(args)
    from cpm_lib import bench
    from cpm_lib.training import distributed

    device = distributed.start(args.device)
    with bench.threads(args.threads):
        content = bench.targets(config, rois=args.rois, repeats=args.repeats, device=device)
    _bench_result(args, content)
    return 1 if any(row.get("equal") is False for row in content["rows"]) else 0


def bench_loading(args: argparse.Namespace) -> None:
    config = _config(args)
    from cpm_lib import bench

    with bench.threads(args.threads):
        data = _open(args.source, args.strict)
        options = {"workers": args.workers, "batches": args.batches, "repeats": args.repeats}
        content = bench.loading(config, data, **options)
    _bench_result(args, content)


# ---- shared by the commands


def _config(args: argparse.Namespace, preset: str | None = None, settings: Sequence[str] | None = None) -> Config:
    from cpm_lib import presets

    config = presets.get(preset or args.preset, args.profile, conventions=args.conventions)
    return config.override_text(args.set if settings is None else settings)


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


def _side(switch: str, value: Any) -> str:
    """Which of the two sets of conventions a value belongs to."""
    from cpm_lib.config import CONVENTIONS

    sides = [name for name, conventions in CONVENTIONS.items() if getattr(conventions, switch) == value]
    return {0: "of its own", 1: sides[0] if sides else "", 2: "the same in both"}[len(sides)]


def _workers(args: argparse.Namespace, device: Any) -> int:
    """Processes that read images: as asked; else a GPU gets up to four, within its share of the cores."""
    import os

    from cpm_lib.training import distributed

    if args.workers is not None:
        return args.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cores // distributed.processes_here()) if device.type == "cuda" else 0


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


def _bench_result(args: argparse.Namespace, content: dict[str, Any]) -> None:
    from cpm_lib.bench import report

    if _json(args, content):
        return
    print(report.head(content))
    _table(report.table(content))
    for line in report.conclusions(content):
        print(line)


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
