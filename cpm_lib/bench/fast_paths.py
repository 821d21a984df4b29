"""`cpm bench paths`: what each of the CPU's fast paths saves."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from cpm_lib.bench import measuring
from cpm_lib.bench.case import Running, Work, forced
from cpm_lib.bench.comparison import examine, machine, whole_row
from cpm_lib.bench.detectors import usual_rois
from cpm_lib.bench.switches import SWITCHES, without
from cpm_lib.config import Config
from cpm_lib.model import compile_backbone
from cpm_lib.progress import progress


def paths(
    config: Config,
    work: Work,
    *,
    rois: int | None = None,
    repeats: int = 5,
    compiled: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Time of one detector with all fast paths, without each, and without any, in turns, up and down.

    Args:
        rois: forced per image, see `case.forced`; default: `usual_rois`.
        compiled: at test only: also with all fast paths and `compile_backbone`.
        options: `size`, `batch` and `precision` of `case.forced`.

    Returns:
        As `comparison.compare` without a peer. `ratio`: the median of a row's time over that of all paths in the same
        round; below 1 a path does harm.
    """
    case = forced(config, work, usual_rois(config, work) if rois is None else rois, **options)
    running = Running(case)
    found = examine(running)
    variants: dict[str, tuple[str, ...]] = {"all fast paths": ()}
    variants |= {f"without {name}": (name,) for name in SWITCHES}
    variants["without any"] = tuple(SWITCHES)
    ways = {name: functools.partial(_pass_without, names, running) for name, names in variants.items()}
    if compiled:
        other = Running(case)
        compile_backbone(other.model)
        ways["compiled backbone and FPN"] = functools.partial(measuring.one_pass, other)
    for way in ways.values():
        way()
    passes: dict[str, list[measuring.Pass]] = {name: [] for name in ways}
    for number in progress(range(repeats), desc="fast paths", unit="round"):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            passes[name].append(ways[name]())
    first = passes["all fast paths"]
    rows = [
        {**whole_row(case, timed, found), "name": name}
        | ({} if timed is first else {"against": "all fast paths", "ratio": measuring.ratios(timed, first)["ratio"]})
        for name, timed in passes.items()
    ]
    return {
        **machine(running.device, case),
        "work": f"fast paths of {work}",
        "preset": config.preset,
        "profile": config.profile,
        "image": list(case.size),
        "batch": case.batch,
        "rois": case.rois,
        "rows": rows,
    }


def _pass_without(names: Sequence[str], running: Running) -> measuring.Pass:
    with without(names):
        return measuring.one_pass(running)
