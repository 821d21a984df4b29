"""The `cpm` command: its options, and what becomes of its errors."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from cpm_lib import commands as run
from cpm_lib.errors import UserError
from cpm_lib.files import check_writable

SOURCES = "shapes:PROFILE[:SPLIT], coco:ROOT,SPLIT, coco:ANN.json,IMAGE_DIR or voc:ROOT[,SPLIT]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    0 done; 1 a check failed, or our bug (with traceback); 2 the user must act; 130 Ctrl-C and 143 SIGTERM.
    """
    args = _parser().parse_args(arguments)
    args.command_line = shlex.join(["cpm", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        if getattr(args, "json", None) not in (None, "-"):
            check_writable(args.json)
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
    except PermissionError as error:
        _complain(f"error: {error.filename}: {error.strerror}; change its permissions or name another place", args)
        return 2
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            _complain("error: the GPU's memory is full; lower solver.images_per_batch or the image size, or set "
                      "grid.recompute=true or solver.accumulate=2 with --set", args)  # fmt: skip
            return 2
        if _lost_process(error):
            _complain("error: another process of this group has ended, its own words say why; then use --resume", args)
            return 1
        raise


def _lost_process(error: Exception) -> bool:
    """Whether one of several processes, itself in order, cannot reach another one any more."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not isinstance(error, RuntimeError):
        return False
    return type(error).__name__ in ("DistBackendError", "DistNetworkError") or "gloo" in str(error)


def _complain(text: str, args: argparse.Namespace) -> None:
    if args.traceback:
        traceback.print_exc()
    # What is wrong may be known to one process only; what all know is said by all.
    rank = os.environ.get("RANK", "0")
    who = "cpm" if rank == "0" else f"cpm: rank {rank}"
    # In one piece with its end, because other processes write into the same stream.
    sys.stderr.write(f"{who}: {text}\n")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all other mistakes are."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"cpm: error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="cpm", description="CPM R-CNN: train, evaluate and use the detector.")
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
    command = _command(actions, run.data_coco, "coco", "check a copy of COCO 2017, or download it")
    command.add_argument("--root", required=True, metavar="DIR", help="for train2017, val2017 and annotations")
    command.add_argument("--download", action="store_true", help="fetch what is missing; may be interrupted")
    command.add_argument("--splits", nargs="+", choices=["train", "val"], default=["train", "val"])
    command.add_argument("--keep-archives", action="store_true", help="keep the zip files in DIR")
    command = _command(actions, run.data_check, "check", "classes, box statistics and bad boxes of a data set")
    command.add_argument("source", metavar="SOURCE", help=SOURCES)
    command.add_argument("--out", metavar="DIR", help="also draw some images with their boxes there")
    command.add_argument("--samples", type=_count, metavar="N", help="images to decode; default: all")
    command.add_argument("--strict", action="store_true", help="refuse bad boxes instead of dropping them")
    _json_option(command)

    command = _command(commands, run.train, "train", "train a preset on a data set")
    command.add_argument(
        "--preset", metavar="NAME", help="default: the preset and every setting of the checkpoint of --init"
    )
    command.add_argument("--data", required=True, metavar="SOURCE", help=SOURCES)
    command.add_argument("--val", metavar="SOURCE", help="evaluate on this at the end")
    command.add_argument("--out", required=True, metavar="RUN", help="run folder")
    _size_options(command, profile="paper")
    command.set_defaults(profile=None, conventions=None)  # tells whether they were given
    command.add_argument("--iterations", type=int, help="length of the schedule; its steps move in proportion")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--init", metavar="CKPT", help="start from these weights, also with other classes")
    command.add_argument("--resume", action="store_true", help="continue the run in RUN exactly")
    command.add_argument(
        "--deterministic", action="store_true", help="on a GPU too, the same bits each time (slower there)"
    )
    command.add_argument("--log-every", type=int, default=20, metavar="N", help="iterations between two lines")
    command.add_argument("--tensorboard", action="store_true", help="also write curves below RUN/tensorboard")
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
    _compile_option(command)
    command.add_argument(
        "--results", metavar="FILE", help="write the detections of the last row in COCO's results format"
    )
    _data_options(command)
    _json_option(command)

    command = _command(commands, run.detect, "detect", "find objects in pictures and draw them")
    command.add_argument("checkpoint", metavar="RUN_OR_CKPT")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders or quoted globs")
    command.add_argument("--out", required=True, metavar="DIR", help="for the drawn pictures and detections.json")
    command.add_argument("--score", type=_share, default=0.3, help="lowest score shown, 0..1 (default 0.3)")
    command.add_argument("--gamma", type=_share, help="exponent of the fused score, 0..1 (default: the run's)")
    _compile_option(command)
    command.add_argument("--device", help="cpu, cuda or cuda:N; default: a GPU if there is one")

    command = _command(commands, run.convert, "convert", "the authors' checkpoints to ours, or back")
    command.add_argument("checkpoint", metavar="CHECKPOINT", help="the authors' .pth; with --reverse a run or ours")
    command.add_argument("--out", required=True, metavar="FILE", help=".safetensors; with --reverse .pth")
    command.add_argument("--preset", metavar="NAME", help="what the file is; default: recognised by its keys")
    command.add_argument("--allow-missing", action="store_true", help="accept left-over and missing keys")
    _set_option(command)
    command.add_argument("--reverse", action="store_true", help="write ours in the authors' layout")

    command = commands.add_parser("bench", help="speed beside others", description="Speed, beside others' speed.")
    _bench_parsers(command.add_subparsers(metavar="WHAT", required=True))

    command = _command(commands, run.ablate, "ablate", "the paper's tables and figures again, with verdicts")
    command.add_argument("names", nargs="*", metavar="NAME", help="what --list lists, or report: every claim's verdict")
    command.add_argument("--list", action="store_true", help="what there is, its records, cost and status")
    command.add_argument("--profile", default="quick", help="smoke, quick or gpu (default: quick)")
    command.add_argument("--seeds", type=_seeds, default=(0, 1, 2), metavar="N,N", help="default: 0,1,2")
    command.add_argument(
        "--data", metavar="SOURCE", help="without a split, e.g. voc:ROOT; default: the shapes of the profile"
    )
    command.add_argument(
        "--runs", default="_build/ablation", metavar="DIR", help="for the trainings (default: _build/ablation)"
    )
    command.add_argument("--update", action="store_true", help="report: write the statuses into data/claims.json")
    _json_option(command)

    command = _command(commands, run.plot, "plot", "loss and AP curves of a run")
    command.add_argument("run_folder", metavar="RUN")
    return parser


def _bench_parsers(actions: Any) -> None:
    for work, summary in (("inference", "whole images through a detector"), ("training", "training steps")):
        command = _command(actions, run.bench_detectors, work, f"{summary}, against torchvision's Faster R-CNN")
        command.set_defaults(work=work)
        command.add_argument("--preset", default="cpm", metavar="NAME", help="default: cpm")
        command.add_argument(
            "--against", default="torchvision", metavar="PRESET", help="another of ours instead of torchvision's"
        )
        command.add_argument(
            "--against-set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="--set for that one"
        )
        _case_options(command)
        command.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure peak memory")
        rois = command.add_mutually_exclusive_group()
        where = "that enter each grid stage" if work == "inference" else "that are positive"
        rois.add_argument("--rois", type=_positive, metavar="N", help=f"RoIs per image {where}; default: the preset's")
        if work == "inference":
            rois.add_argument("--own-settings", action="store_true", help="as many RoIs as each method's paper")
            command.add_argument(
                "--sweep", choices=("rois", "stages", "batch", "area"), help="time against this, without a peer"
            )
        _bench_options(command)
        command.add_argument("--device", help="cpu, cuda or cuda:N; default: a GPU if there is one")

    command = _command(actions, run.bench_paths, "paths", "what each of the CPU's fast paths saves")
    command.add_argument("--preset", default="cpm", metavar="NAME", help="default: cpm")
    command.add_argument("--work", choices=("inference", "training"), default="training", help="default: training")
    command.add_argument("--rois", type=_positive, metavar="N", help="RoIs per image; default: the preset's")
    command.add_argument("--compile", action="store_true", help="inference: also with torch.compile for the backbone")
    _case_options(command)
    _bench_options(command)

    command = _command(actions, run.bench_targets, "targets", "heatmap targets against a plain loop")
    command.add_argument("--preset", default="cpm", metavar="NAME", help="default: cpm")
    _size_options(command, profile="paper")
    command.add_argument("--rois", type=_positive, default=96, metavar="N", help="default 96")
    command.add_argument("--device", help="cpu, cuda or cuda:N; default: a GPU if there is one")
    _bench_options(command)

    command = _command(actions, run.bench_loading, "loading", "images per second by number of workers")
    command.add_argument("source", metavar="SOURCE", nargs="?", default="shapes:quick", help=SOURCES)
    command.add_argument("--preset", default="cpm", metavar="NAME", help="default: cpm")
    _size_options(command, profile="quick")
    command.add_argument("--workers", type=_count, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    command.add_argument("--batches", type=_positive, default=8, metavar="N", help="timed per repetition (default 8)")
    command.add_argument("--strict", action="store_true", help="refuse bad boxes instead of dropping them")
    _bench_options(command)


def _case_options(command: argparse.ArgumentParser) -> None:
    _size_options(command, profile="paper")
    command.add_argument(
        "--size", nargs=2, type=_positive, metavar=("H", "W"), help="of the images; default: the profile's"
    )
    command.add_argument("--batch", type=_positive, default=1, metavar="N", help="images at a time (default 1)")
    command.add_argument("--dtype", choices=("fp32", "bf16"), help="default: the profile's, where the device can")


def _compile_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile for backbone and FPN: a little faster, after half a minute; for many pictures",
    )


def _bench_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--repeats", type=_positive, default=5, metavar="N", help="after warming up (default 5)")
    command.add_argument("--threads", type=_positive, metavar="N", help="of the CPU; default: torch's")
    command.add_argument("--record", metavar="ID", help="also keep the result as data/results/ID.json, for the book")
    _json_option(command)


def _command(commands: Any, function: Any, name: str, summary: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    command.add_argument("-v", "--traceback", action="store_true", help="show where an error came from")
    command.set_defaults(run=function)
    return command


def _size_options(command: argparse.ArgumentParser, profile: str) -> None:
    command.add_argument("--profile", default=profile, help=f"smoke, quick, gpu or paper (default: {profile})")
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
    command.add_argument(
        "--workers", type=_count, metavar="N", help="processes that read images; default: 0, with a GPU up to 4"
    )
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


def _seeds(text: str) -> tuple[int, ...]:
    """``0,1,2`` as numbers, each once."""
    if not all(number.strip().isdigit() for number in text.split(",")):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of seeds such as 0,1,2")
    return tuple(dict.fromkeys(map(int, text.split(","))))


def _positive(text: str) -> int:
    value = _count(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is too few")
    return value
