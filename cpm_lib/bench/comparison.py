"""Two cases side by side in one process: times, operations, memory, parts and waits of both."""

from __future__ import annotations

import functools
import gc
import platform
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn

from cpm_lib.bench import measuring, memory, parts
from cpm_lib.bench.case import Case, Running
from cpm_lib.bench.switches import without
from cpm_lib.bench.synchronisation import watching, watching_cuda
from cpm_lib.errors import UserError
from cpm_lib.model import CPMRCNN, Detector

Content = dict[str, Any]
Passer = Callable[[], measuring.Pass]


class Examined(NamedTuple):
    """What one pass does, as far as it is the same each time; numbers are over all images."""

    flops: int
    part_flops: dict[str, float]
    waits: Counter[tuple[str, str]]
    """How often each (operator, place) makes the host wait; see `synchronisation`."""
    proposals: int
    stage_rois: list[int]
    """RoIs that entered each grid stage."""

    def places(self) -> list[dict[str, Any]]:
        return [{"operator": name, "place": place, "count": n} for (name, place), n in self.waits.most_common()]


def compare(first: Case, second: Case, repeats: int, *, with_memory: bool = True) -> Content:
    """All rows for `first` against `second`, which run in turns; see `measuring.alternate`.

    Returns:
        The content of ``--json``: machine and settings, `ratio` and `flop_ratio` of the two, those of
        `memory_ratios`, `synchronisations` by side, operator and place, and `rows`: a matrix product, both detectors,
        their parts.

    Raises:
        UserError: the number of RoIs could not be forced.
    """
    cases, threads = (first, second), torch.get_num_threads()
    sides = [Running(case) for case in cases]
    calls = [parts.calls(running) for running in sides]
    examined = [examine(running, used) for running, used in zip(sides, calls, strict=True)]
    for running in sides:
        running()
    device, held = sides[0].device, [running.held_mb() for running in sides]
    product = measuring.matrix_product(device, first.bf16, repeats)
    whole: list[Passer] = [functools.partial(measuring.one_pass, running) for running in sides]
    by_part: list[Passer] = [functools.partial(measuring.one_pass, *side) for side in zip(sides, calls, strict=True)]
    # A GPU would have to wait for each part, so there the parts take passes of their own.
    cuda = device.type == "cuda"
    passes = measuring.alternate(*(whole if cuda else by_part), repeats=repeats)
    details = measuring.alternate(*by_part, repeats=repeats) if cuda else passes
    # The other processes need the room.
    del sides, calls, whole, by_part, running
    gc.collect()
    ours, theirs = (
        whole_row(case, side, found, memory.peak_mb(case, threads) if with_memory else None, held_mb=own)
        for case, side, found, own in zip(cases, passes, examined, held, strict=True)
    )
    ours |= {"against": second.name, "flop_ratio": ours["flops"] / theirs["flops"], **measuring.ratios(*passes)}
    rows = [product, ours, theirs]
    for case, side, found in zip(cases, details, examined, strict=True):
        rows += part_rows(case.name, side, found.part_flops)
    return {
        **machine(device, *cases),
        "work": first.work,
        "preset": first.config.preset,
        "profile": first.config.profile,
        "against": second.name,
        "image": list(first.size),
        "batch": first.batch,
        "rois": [first.rois, second.rois],
        "ratio": ours["ratio"],
        "flop_ratio": ours["flop_ratio"],
        **memory_ratios(ours, theirs),
        "matrix_flops_per_s": product["flops_per_s"],
        "synchronisations": {case.name: found.places() for case, found in zip(cases, examined, strict=True)},
        "rows": rows,
    }


def memory_ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float | None]:
    """`memory_ratio` of two rows, and `memory_bound`: what it would be if ours needed no more for its images than
    theirs, but its weights, gradients and momentum as they are; None where memory was not measured."""
    if not (ours["peak_mb"] and theirs["peak_mb"]):
        return {"memory_ratio": None, "memory_bound": None}
    bound = 1 + (ours["held_mb"] - theirs["held_mb"]) / theirs["peak_mb"]
    return {"memory_ratio": ours["peak_mb"] / theirs["peak_mb"], "memory_bound": bound}


def whole_row(
    case: Case, passes: Sequence[measuring.Pass], found: Examined, peak_mb: float | None = None, **values: Any
) -> dict[str, Any]:
    """The row of a whole detector."""
    return measuring.row(
        case.name,
        [one.wall for one in passes],
        flops=found.flops,
        peak_mb=peak_mb,
        cpu_s=statistics.median(one.cpu for one in passes),
        synchronisations=sum(found.waits.values()),
        channels_last=case.config.solver.channels_last,
        proposals=found.proposals,
        stage_rois=found.stage_rois,
        **values,
    )


def part_rows(name: str, passes: Sequence[measuring.Pass], flops: dict[str, float]) -> list[dict[str, Any]]:
    """One row per part, with its `share` of the whole."""
    whole = statistics.median(one.wall for one in passes)
    rows = []
    for part in passes[0].parts:
        walls = [one.parts[part] for one in passes]
        values = {
            "flops": int(flops.get(part, 0)) or None,
            "cpu_s": statistics.median(one.cpu_parts[part] for one in passes),
            "share": statistics.median(walls) / whole,
        }
        rows.append(measuring.row(f"{name}: {part}", walls, **values))
    return rows


def examine(running: Running, calls: Sequence[measuring.Call] = ()) -> Examined:
    """One pass under observation, without the CPU's fast paths: a GPU does not take them, and they may do the same
    with more operations in less time. In training without the update, which has no operation that counts.

    Raises:
        UserError: other numbers of RoIs than the case asks for.
    """
    model, case = running.model, running.case
    proposals: list[int] = []
    entered = [0] * (len(model.cascade.stages) if isinstance(model, CPMRCNN) else 0)

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        proposals.append(len(output[0]) if isinstance(model, Detector) else sum(map(len, output[0])))

    rpn: nn.Module = model.proposals if isinstance(model, Detector) else model.rpn
    hooks = [rpn.register_forward_hook(note)]
    for number, stage in enumerate(model.cascade.stages if isinstance(model, CPMRCNN) else ()):

        def enter(_module: nn.Module, inputs: Any, number: int = number) -> None:
            entered[number] += len(inputs[0])

        hooks.append(stage.register_forward_pre_hook(enter))
    watch = watching_cuda if running.device.type == "cuda" else watching
    counter = measuring.flop_counter()
    try:
        observed = measuring.divided(calls, counter.get_total_flops)
        with without(), watch() as waits, counter, observed as part_flops:
            if case.work == "training":
                running.backward(running.forward())
            else:
                running()
    finally:
        for hook in hooks:
            hook.remove()
    if any(number != case.rois * case.batch for number in entered):
        raise UserError(
            f"{case.name}: {case.rois * case.batch} RoIs were to enter each grid stage and {entered} did "
            f"({sum(proposals)} proposals); ask for fewer --rois or larger images"
        )
    return Examined(counter.get_total_flops(), part_flops, waits, sum(proposals), entered)


def machine(device: torch.device, *cases: Case) -> dict[str, Any]:
    """The head of every result: where and how it was measured; without a case in float32."""
    dtypes = dict.fromkeys("bf16" if case.bf16 else "fp32" for case in cases) or ["fp32"]
    return {
        "device": str(device),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "dtype": " against ".join(dtypes),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def processor() -> str:
    """Name of the CPU."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
