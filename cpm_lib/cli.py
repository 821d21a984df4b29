"""The `cpm` command: its options, and what becomes of its errors."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from cpm_lib import commands as run
from cpm_lib.errors import UserError

SOURCES = "shapes:PROFILE[:SPLIT], coco:ROOT,SPLIT, coco:ANN.json,IMAGE_DIR or voc:ROOT[,SPLIT]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    0 done; 1 a check failed, or our bug (with traceback); 2 the user must act; 130 Ctrl-C and 143 SIGTERM.
    """
    args = _parser().parse_args(arguments)
    try:
        code = args.run(args)
        sys.stdout.flush()
        return int(code or 0)
    except KeyboardInterrupt as stop:
        _complain(str(stop) or "interrupted", args)
        return int(getattr(stop, "exit_code", 130))
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python must not complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        _complain(f"error: {error}", args)
        return 2
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        _complain("error: the GPU's memory is full; lower solver.images_per_batch or the image size with --set", args)
        return 2


def _complain(text: str, args: argparse.Namespace) -> None:
    if args.traceback:
        traceback.print_exc()
    # What is wrong may be known to one process only; what all know is said by all.
    rank = os.environ.get("RANK", "0")
    print(f"cpm: {text}" if rank == "0" else f"cpm: rank {rank}: {text}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cpm", description="CPM R-CNN: train, evaluate and use the detector.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = _command(commands, run.env, "env", "versions, device, threads, git state")
    _json_option(command)

    command = _command(commands, run.list_presets, "presets", "all presets with cost and expected result")
    _json_option(command)

    command = _command(commands, run.info, "info", "parameters, operations per part and memory of a preset")
    command.add_argument("preset", metavar="PRESET")
    _size_options(command, profile="paper")
    command.add_argument("--num-classes", type=int, default=81, help="with background; COCO: 81 (default)")
    _json_option(command)

    command = commands.add_parser("data", help="make or check data sets", description="Make or check data sets.")
    actions = command.add_subparsers(metavar="ACTION", required=True)
    command = _command(actions, run.data_shapes, "shapes", "write a procedural data set in COCO layout")
    command.add_argument("--profile", required=True, help="smoke, quick or gpu")
    command.add_argument("--out", required=True, metavar="DIR")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--splits", nargs="+", default=["train", "val"], help="default: train val")
    command.add_argument("--workers", type=int, help="processes; default: one per core")
    command = _command(actions, run.data_check, "check", "classes, box statistics and bad boxes of a data set")
    command.add_argument("source", metavar="SOURCE", help=SOURCES)
    command.add_argument("--out", metavar="DIR", help="also draw some images with their boxes there")
    command.add_argument("--samples", type=_count, metavar="N", help="images to decode; default: all")
    command.add_argument("--strict", action="store_true", help="refuse bad boxes instead of dropping them")
    _json_option(command)

    command = _command(commands, run.train, "train", "train a preset on a data set")
    command.add_argument("--preset", required=True, metavar="NAME")
    command.add_argument("--data", required=True, metavar="SOURCE", help=SOURCES)
    command.add_argument("--val", metavar="SOURCE", help="evaluate on this at the end")
    command.add_argument("--out", required=True, metavar="RUN", help="run folder")
    _size_options(command, profile="paper")
    command.add_argument("--iterations", type=int, help="length of the schedule; its steps move in proportion")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--init", metavar="CKPT", help="take over weights whose name and shape match")
    command.add_argument("--resume", action="store_true", help="continue the run in RUN exactly")
    command.add_argument("--log-every", type=int, default=20, metavar="N", help="iterations between two lines")
    _data_options(command)

    command = _command(commands, run.evaluate, "eval", "COCO metrics of a trained detector")
    command.add_argument("checkpoint", metavar="RUN_OR_CKPT")
    command.add_argument("--data", required=True, metavar="SOURCE", help=SOURCES)
    command.add_argument("--gamma", type=_share, help="exponent of the fused score, 0..1 (default: the run's)")
    command.add_argument("--stages", choices=("last", "all"), default="last", help="all: every stage and score")
    command.add_argument(
        "--soft-nms",
        nargs="?",
        const="linear",
        choices=("linear", "gaussian"),
        help="decay overlapping detections of the last row; default kind: linear",
    )
    command.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: mirrored and at nine sizes, merged by soft-NMS (the paper's best row)",
    )
    command.add_argument(
        "--rois", type=_count, metavar="N", help="most RoIs refined per image by CPM and Grid R-CNN; 0: no limit"
    )
    command.add_argument("--batch", type=_positive, default=8, metavar="N", help="images at a time (default 8)")
    _data_options(command)
    _json_option(command)

    command = _command(commands, run.detect, "detect", "find objects in pictures and draw them")
    command.add_argument("checkpoint", metavar="RUN_OR_CKPT")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders or quoted globs")
    command.add_argument("--out", required=True, metavar="DIR", help="for the drawn pictures and detections.json")
    command.add_argument("--score", type=_share, default=0.3, help="lowest score shown, 0..1 (default 0.3)")
    command.add_argument("--device", help="cpu, cuda or cuda:N; default: a GPU if there is one")

    command = _command(commands, run.convert, "convert", "the authors' checkpoints to ours, or back")
    command.add_argument("checkpoint", metavar="CHECKPOINT", help="the authors' .pth; with --reverse a run or ours")
    command.add_argument("--out", required=True, metavar="FILE", help=".safetensors; with --reverse .pth")
    command.add_argument("--preset", metavar="NAME", help="what the file is; default: recognised by its keys")
    command.add_argument("--allow-missing", action="store_true", help="accept left-over and missing keys")
    _set_option(command)
    command.add_argument("--reverse", action="store_true", help="write ours in the authors' layout")

    command = _command(commands, run.plot, "plot", "loss and AP curves of a run")
    command.add_argument("run_folder", metavar="RUN")
    return parser


def _command(commands: Any, function: Any, name: str, summary: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    command.add_argument("-v", "--traceback", action="store_true", help="show where an error came from")
    command.set_defaults(run=function)
    return command


def _size_options(command: argparse.ArgumentParser, profile: str) -> None:
    command.add_argument("--profile", default=profile, help="smoke, quick, gpu or paper (default: %(default)s)")
    command.add_argument("--conventions", default="corrected", help="corrected (default) or official")
    _set_option(command)


def _set_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change any setting, e.g. solver.lr=0.01",
    )


def _data_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=_count, default=0, metavar="N", help="processes that read images")
    command.add_argument("--device", help="cpu, cuda or cuda:N; default: a GPU if there is one")
    command.add_argument("--strict", action="store_true", help="refuse bad boxes instead of dropping them")


def _json_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", metavar="FILE", help="also write the result as JSON; - for standard output")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _positive(text: str) -> int:
    value = _count(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is too few")
    return value
