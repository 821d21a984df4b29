"""`cpm ablate` and `bench`: the paper's claims and other detectors' speed."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from cpm_lib.commands.options import open_data, wanted_config
from cpm_lib.commands.output import as_text, print_table, write_json
from cpm_lib.errors import UserError


def ablate(args: argparse.Namespace) -> None:
    if "report" in args.names:
        if args.list or len(args.names) > 1:
            raise UserError(
                "report prints all claims and takes no other name and no --list; cpm ablate table4 prints "
                "those of one table"
            )
        return _ablate_report(args)
    if args.update:
        raise UserError("--update belongs to the report: cpm ablate report --update")
    if not args.list and not args.names:
        raise UserError("say what to run, e.g. cpm ablate table4; cpm ablate --list tells what there is")
    from cpm_lib import ablation
    from cpm_lib.ablation import tables

    experiments = [ablation.get(name) for name in args.names]
    if args.list:
        from cpm_lib.ablation.listing import NOTE, listing, total

        rows = listing(args.profile, args.data, args.seeds, args.names)
        if not write_json(args, rows):
            columns = {
                "name": "name", "table": "table", "level": "level", "profile": "profile", "rows": "rows",
                "seeds": "seeds", "created": "oldest record", "cost": "cost", "status": "status", "also on": "also on",
            }  # fmt: skip
            print_table([list(columns.values())] + [[as_text(row[key]) for key in columns] for row in rows], left=2)
            print(total(args.profile, args.data, args.seeds))
            print(NOTE)
        return None
    setting = None
    if any(experiment.sources for experiment in experiments):
        setting = ablation.Setting.open(args.profile, args.data, args.runs)
    found, before, read = [], _written(), False
    for experiment in experiments:
        records = ablation.run(experiment, setting, args.seeds) if setting and experiment.sources else []
        read = read or bool(records)
        found.append(tables.content(experiment, records))
        if args.json != "-":
            print("\n".join(tables.lines(found[-1])), flush=True)
    write_json(args, found)
    if read and _written() == before:
        note = "from records that were there, nothing was run; to run it yourself name an empty folder in CPM_RESULTS"
        print(f"note: {note}", file=sys.stderr)
    return None


def _written() -> dict[str, int]:
    """When each record was written."""
    from cpm_lib import ledger

    return {path.name: path.stat().st_mtime_ns for path in ledger.results_folder().glob("*.json")}


def _ablate_report(args: argparse.Namespace) -> None:
    from cpm_lib import ablation, ledger
    from cpm_lib.ablation import report

    if args.update:
        if not any(judged.parts for judged in ablation.judge_all()):
            raise UserError(
                f"no record in {ledger.results_folder()} judges a claim, so all would become 'not run'; nothing is "
                "written. Set CPM_RESULTS to the folder of the records"
            )
        print(f"{ablation.write_statuses()} entries of data/claims.json changed", file=sys.stderr)
    if not write_json(args, report.entries()):
        print("\n".join(report.lines()))


def bench_detectors(args: argparse.Namespace) -> None:
    # First of all, and before the slow imports: most mistakes are made here.
    config, against, names = wanted_config(args), None, None
    if args.against != "torchvision":
        against = wanted_config(args, args.against, args.against_set)
        if against.preset == config.preset:
            ours, theirs = (" ".join([config.preset, *settings]) for settings in (args.set, args.against_set))
            names = (ours, theirs if theirs != ours else f"{theirs} again")
    elif args.against_set:
        raise UserError("--against-set changes another preset of ours; name it with --against")
    if args.work == "inference" and args.sweep and (against or args.own_settings):
        raise UserError("--sweep has no other side; leave out --against and --own-settings")
    _check_record(args)
    from cpm_lib import bench
    from cpm_lib.environment import has_bfloat16
    from cpm_lib.training import distributed

    options: dict[str, Any] = {"size": args.size and tuple(args.size), "batch": args.batch, "precision": args.dtype}
    options |= {"device": distributed.start(args.device), "rois": args.rois, "repeats": args.repeats}
    if args.dtype == "bf16" and not has_bfloat16(options["device"]):
        print("note: this processor has no instructions for bf16, so it takes several times as long", file=sys.stderr)
    with bench.threads(args.threads):
        if args.work == "inference" and args.sweep:
            content = bench.sweep(config, args.sweep, **options)
        else:
            own = args.work == "inference" and args.own_settings
            content = bench.versus(args.work, config, against, names=names, own=own, memory=args.memory, **options)
    _bench_result(args, content)


def bench_paths(args: argparse.Namespace) -> None:
    config = wanted_config(args)
    if args.compile and args.work == "training":
        raise UserError("--compile is for detecting; add --work inference")
    _check_record(args)
    from cpm_lib import bench

    options: dict[str, Any] = {"size": args.size and tuple(args.size), "batch": args.batch, "precision": args.dtype}
    with bench.threads(args.threads):
        options |= {"rois": args.rois, "repeats": args.repeats, "compiled": args.compile}
        content = bench.paths(config, args.work, **options)
    _bench_result(args, content)


def bench_targets(args: argparse.Namespace) -> int:
    config = wanted_config(args)
    _check_record(args)
    from cpm_lib import bench
    from cpm_lib.training import distributed

    device = distributed.start(args.device)
    with bench.threads(args.threads):
        content = bench.targets(config, rois=args.rois, repeats=args.repeats, device=device)
    _bench_result(args, content)
    return 1 if any(row.get("equal") is False for row in content["rows"]) else 0


def bench_loading(args: argparse.Namespace) -> None:
    config = wanted_config(args)
    _check_record(args)
    from cpm_lib import bench

    with bench.threads(args.threads):
        data = open_data(args.source, args.strict)
        options = {"workers": args.workers, "batches": args.batches, "repeats": args.repeats}
        content = bench.loading(config, data, **options)
    _bench_result(args, content)


def _check_record(args: argparse.Namespace) -> None:
    """Before minutes of measuring, not after them."""
    if args.record is not None:
        from cpm_lib import ledger

        ledger.check_id(args.record)


def _bench_result(args: argparse.Namespace, content: dict[str, Any]) -> None:
    from cpm_lib.bench import report

    if args.json != "-":
        print(report.head(content))
        print_table(report.table(content))
        print("\n".join(report.conclusions(content)))
    if args.record:
        from cpm_lib import bench, ledger

        ledger.write(bench.record(args.record, content | {"command": args.command_line}))
    write_json(args, content)
