"""`cpm bench inference` and `training`: a detector of ours against torchvision's, against another, or against size."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from cpm_lib.bench import measuring, peer
from cpm_lib.bench.case import Case, Running, Work, forced
from cpm_lib.bench.comparison import compare, examine, machine, whole_row
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.presets import PRESETS
from cpm_lib.progress import progress

Axis = Literal["rois", "stages", "batch", "area"]

_UNCHECKED = "; from memory, not compared with the publication"


class OwnSettings(NamedTuple):
    """How many RoIs per image a method refines at most at test, and who says so."""

    rois: int
    source: str


_TORCHVISION = OwnSettings(100, "100 detections per image, as torchvision")


def own_settings(config: Config) -> OwnSettings:
    """The number of RoIs of the method's own publication; of a baseline that refines none, its detections."""
    if config.detector == "cpm":
        return OwnSettings(96, "CPM R-CNN, Sec. 3.4.3: 96 at most after NMS")
    if config.detector == "grid" and config.grid.head == "original":
        return OwnSettings(125, f"Grid R-CNN (arXiv 1811.12030): the 125 best after NMS{_UNCHECKED}")
    if config.detector == "grid":
        return OwnSettings(100, f"Grid R-CNN Plus (arXiv 1906.05688): 100 after its one NMS{_UNCHECKED}")
    return _TORCHVISION


def usual_rois(config: Config, work: Work) -> int:
    """RoIs per image that `config` itself asks for, as far as there are proposals for them."""
    if work == "training":
        return config.grid.rois_per_image
    limit = config.conventions.rois_at_test or config.classification.detections_per_image
    return min(limit, config.proposals.post_nms_test)


def versus(
    work: Work,
    config: Config,
    against: Config | None = None,
    *,
    rois: int | None = None,
    own: bool = False,
    names: tuple[str, str] | None = None,
    repeats: int = 5,
    memory: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Time of whole images, or of training steps (forward, backward, update), ours first, in turns.

    Args:
        against: another detector of ours; None: torchvision's Faster R-CNN with the sizes of `config`.
        rois: forced for both, per image; default: `usual_rois` of `config`.
        own: force the `own_settings` of each instead; at test only.
        names: of both, where the presets' would not tell them apart.
        options: `size`, `batch`, `device` and `precision` of `case.forced`.

    Returns:
        See `comparison.compare`; with `own` also the `sources`, with two grid detectors at test the `speed_table`.
    """
    sides = [config] if against is None else [config, against]
    number = usual_rois(config, work) if rois is None else rois
    cases = [
        forced(side, work, own_settings(side).rois if own else number, name=name, **options)
        for side, name in zip(sides, names or (None, None), strict=False)
    ]
    if against is None:
        likewise = forced(config, work, _TORCHVISION.rois, **options) if own else cases[0]
        cases.append(in_faster_layout(replace(likewise, name=peer.NAME, torchvision=True)))
    first, second = cases
    content = compare(first, second, repeats, with_memory=memory)
    if own:
        settings = [*map(own_settings, sides), _TORCHVISION]
        content["sources"] = {case.name: known.source for case, known in zip(cases, settings, strict=False)}
    kinds = [case.config.detector for case in cases]
    if work == "inference" and against is not None and kinds == ["cpm", "grid"]:
        content["speed_table"] = speed_table(content, first, second)
    return content


def in_faster_layout(case: Case) -> Case:
    """`case` with its maps in the order, channels first or channels last, in which it takes less time on this device.

    Which one that is depends on the processor and on the work: without AVX-512 oneDNN trains channels-last convolutions
    slowly. Whoever is compared with deserves the better one.
    """
    layouts = [replace(case, config=case.config.override({"solver.channels_last": last})) for last in (False, True)]
    running = [Running(layout) for layout in layouts]
    for one in running:
        one()
    passes = measuring.alternate(*(functools.partial(measuring.one_pass, one) for one in running), repeats=2)
    first, last = (min(one.wall for one in found) for found in passes)
    return layouts[last < first]


def speed_table(content: dict[str, Any], first: Case, second: Case) -> dict[str, Any]:
    """At how many RoIs per image the second would take as much longer than the first as Table 8 prints.

    The time of the second as a line in its number of RoIs, from the parts that work on them; the first is as it was
    measured. None where it would take longer without any RoI.
    """
    rows = {row["name"]: row["median_s"] for row in content["rows"]}
    printed = {
        name: next(result.value for result in PRESETS[name].results if result.metric == "seconds")
        for name in ("cpm-r101", "grid-original-r101")
    }
    ratio = printed["grid-original-r101"] / printed["cpm-r101"]
    refining = tuple(f"{second.name}: {part}" for part in ("grid", "decoding", "ISM", "RSM"))
    on_rois = sum(seconds for name, seconds in rows.items() if name.startswith(refining))
    missing = ratio * rows[first.name] - rows[second.name]
    needed = second.rois * (1 + missing / on_rois)
    return {"printed_ratio": ratio, "rois": second.rois, "rois_needed": needed if needed >= 0 else None}


def sweep(config: Config, axis: Axis, *, rois: int | None = None, repeats: int = 5, **options: Any) -> dict[str, Any]:
    """Time of whole images against one quantity, with the straight line of least squares.

    `rois`, `area`: a quarter to the whole of what is asked for, in quarters; `batch`: 1 to 4 images, or to `batch`;
    `stages`: the first 1 to all. All sizes take turns, up and down, so that a slow minute meets all.

    Returns:
        As `comparison.compare`, with `fit`: `slope_s` per unit of `axis`, `intercept_s` and `r2`; area in 10^6 pixels.
    """
    cases = _along(config, axis, usual_rois(config, "inference") if rois is None else rois, options)
    if len(cases) < 2:
        raise UserError(f"--sweep {axis}: one size makes no line; ask for more")
    running = [Running(case) for _, case in cases]
    examined = [examine(one) for one in running]
    for one in running:
        one()
    passes: list[list[measuring.Pass]] = [[] for _ in running]
    order = list(zip(running, passes, strict=True))
    for number in progress(range(repeats), desc="all sizes", unit="round"):
        for one, found in order if number % 2 == 0 else order[::-1]:
            found.append(measuring.one_pass(one))
    rows = [
        {**whole_row(case, found, seen, x=x), "name": f"{case.name}: {axis} {x:g}"}
        for (x, case), found, seen in zip(cases, passes, examined, strict=True)
    ]
    _, largest = cases[-1]
    return {
        **machine(running[0].device, largest),
        "work": "inference",
        "preset": config.preset,
        "profile": config.profile,
        "image": list(largest.size),
        "batch": largest.batch,
        "rois": largest.rois,
        "fit": {"x": axis, **line([x for x, _ in cases], [row["median_s"] for row in rows])},
        "rows": rows,
    }


def _along(config: Config, axis: Axis, rois: int, options: dict[str, Any]) -> list[tuple[float, Case]]:
    def case(config: Config = config, rois: int = rois, **changes: Any) -> Case:
        return forced(config, "inference", rois, **options | changes)

    quarters = (0.25, 0.5, 0.75, 1.0)
    if axis == "rois":
        numbers = sorted({max(1, round(rois * quarter)) for quarter in quarters})
        return [(number, case(rois=number)) for number in numbers]
    if axis == "batch":
        return [(number, case(batch=number)) for number in range(1, max(options.get("batch", 1), 4) + 1)]
    if axis == "area":
        whole = case()
        found = []
        for quarter in quarters:
            height, width = (round(side * quarter**0.5) for side in whole.size)
            found.append((height * width / 1e6, case(size=(height, width))))
        return found
    if config.detector not in ("cpm", "grid"):
        raise UserError(f"--sweep stages: {config.preset} has no grid stages; take cpm, or another --sweep")
    names = ("mapping_ratios", "iou_thresholds", "stage_weights")
    return [
        (stages, case(config.override({f"cascade.{name}": getattr(config.cascade, name)[:stages] for name in names})))
        for stages in range(1, config.cascade.stages + 1)
    ]


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float | None]:
    """Least squares: `slope_s`, `intercept_s` and `r2`; None for less than two different x."""
    if len(set(x)) < 2:
        return {"slope_s": None, "intercept_s": None, "r2": None}
    slope, intercept = statistics.linear_regression(x, y)
    spread = statistics.pvariance(y)
    left = statistics.fmean((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    return {"slope_s": slope, "intercept_s": intercept, "r2": 1 - left / spread if spread > 0 else None}
