"""`cpm env`, `presets`, `info`, `data` and `convert`: what there is, and in which form."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cpm_lib.commands.options import open_data, wanted_config
from cpm_lib.commands.output import as_text, print_table, write_json
from cpm_lib.errors import UserError


def env(args: argparse.Namespace) -> None:
    from cpm_lib import environment

    described = environment.describe()
    if write_json(args, described):
        return
    versions, git = described.pop("versions"), described.pop("git")
    rows = [[name, version] for name, version in versions.items()]
    rows += [[name, as_text(value)] for name, value in described.items()]
    state = {True: "with changes", False: "clean", None: ""}[git["dirty"]]
    rows.append(["git", f"{git['sha'] or 'not run from a repository'} {state}".strip()])
    print_table(rows, left=2)


def list_presets(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from cpm_lib import presets

    fields = ("name", "summary", "paper", "expected", "tolerance", "cost", "hardware", "command")
    entries = [
        {**{field: getattr(preset, field) for field in fields}, "results": [asdict(r) for r in preset.results]}
        for preset in presets.PRESETS.values()
    ]
    if write_json(args, entries):
        return
    for entry in entries:
        expected = "no AP" if entry["expected"] is None else f"AP {entry['expected']} +- {entry['tolerance']}"
        print(f"{entry['name']}: {entry['summary']}")
        print(f"    expected: {expected}; printed: {entry['paper']}")
        print(f"    cost: {entry['cost']}; {entry['hardware']}")
        print(f"    {entry['command']}")
    print("\nprofiles (--profile):")
    print_table([[profile.name, profile.summary] for profile in presets.PROFILES.values()], left=2)


def info(args: argparse.Namespace) -> None:
    config = wanted_config(args)
    from cpm_lib.complexity import describe

    described = {**describe(config, args.num_classes), "conventions": config.to_dict()["conventions"]}
    if write_json(args, described):
        return
    print(f"{args.preset}, profile {args.profile}, {args.num_classes} classes with background")
    rows = [["part", "GMAC"]] + [[part, f"{value:.3f}"] for part, value in described["gmac"].items()]
    rows.append(["total", f"{described['total_gmac']:.3f}"])
    print_table(rows)
    print(f"parameters {described['parameters'] / 1e6:.2f} M")
    for key, value in described.items():
        if key not in ("gmac", "total_gmac", "parameters", "preset", "profile") and isinstance(
            value, (int, float, str)
        ):
            print(f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}")
    print("conventions:")
    print_table([[name, str(value), _side(name, value)] for name, value in described["conventions"].items()], left=3)


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

    data = open_data(args.source, args.strict)
    report = inspection.check(data, samples=args.samples)
    drawn = inspection.draw_samples(data, args.out) if args.out else []
    if not write_json(args, {**dataclasses.asdict(report), "sane": report.sane}):
        print(report.text())
        if drawn:
            print(f"{len(drawn)} drawn samples in {args.out}")
    return 0 if report.sane else 1


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


def _side(switch: str, value: Any) -> str:
    """Which of the two sets of conventions a value belongs to."""
    from cpm_lib.config import CONVENTIONS

    sides = [name for name, conventions in CONVENTIONS.items() if getattr(conventions, switch) == value]
    return {0: "of its own", 1: sides[0] if sides else "", 2: "the same in both"}[len(sides)]
