"""`cpm bench paths`: what each of the CPU's fast paths saves."""

from __future__ import annotations

from typing import Any

from cpm_lib.bench import measuring
from cpm_lib.bench.case import Running, Work, forced
from cpm_lib.bench.comparison import examine, machine, whole_row
from cpm_lib.bench.detectors import usual_rois
from cpm_lib.bench.switches import SWITCHES, without
from cpm_lib.config import Config
from cpm_lib.progress import progress


def paths(config: Config, work: Work, *, rois: int | None = None, repeats: int = 5, **options: Any) -> dict[str, Any]:
    """Time of one detector with all fast paths, without each, and without any, in turns, up and down.

    Args:
        rois: forced per image, see `case.forced`; default: `usual_rois`.
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
    for names in variants.values():
        with without(names):
            running()
    passes: dict[str, list[measuring.Pass]] = {name: [] for name in variants}
    for number in progress(range(repeats), desc="fast paths", unit="round"):
        for name in list(variants)[:: 1 if number % 2 == 0 else -1]:
            with without(variants[name]):
                passes[name].append(measuring.one_pass(running))
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
