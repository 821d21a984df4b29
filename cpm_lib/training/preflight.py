"""Checks before a long run: processes, schedule, data, disk, speed, memory, time."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch

from cpm_lib import presets
from cpm_lib.config import Config
from cpm_lib.data import DetectionDataset, inspection, open_source
from cpm_lib.data.coco_download import COCO_2017
from cpm_lib.data.shape_files import available_cores
from cpm_lib.errors import UserError
from cpm_lib.model import build_model
from cpm_lib.training import optimisation
from cpm_lib.training.checkpoint import state_files
from cpm_lib.training.launch import launch
from cpm_lib.training.run_folder import RunFolder

MARGIN = 1.2
"""On top of the memory measured: other images are larger or hold more objects than the measured ones."""
WAITING = 0.2
"""Share of the time spent waiting for images from which a GPU is worth more workers."""
DECODED = 16
"""Images decoded as a sample of the data."""


@dataclass(frozen=True)
class Check:
    """One line of the report. `text` says what was found and, unless `good`, what to do."""

    name: str
    good: bool
    text: str


@dataclass(frozen=True)
class Measurement:
    """Speed and memory of a few iterations."""

    seconds: float
    """Per iteration."""
    waiting: float
    """Share of the time in which the main process waited for images, 0..1."""
    memory_gb: float
    """Highest of the main process: of its GPU if it has one."""


@dataclass(frozen=True)
class Report:
    """All checks, and the numbers behind them."""

    checks: tuple[Check, ...]
    measured: Measurement
    hours: float
    """Of the iterations still to do, at the measured speed."""
    disk_gb: float
    """What checkpoints and final weights take."""

    @property
    def good(self) -> bool:
        return all(check.good for check in self.checks)

    def text(self, width: int = 68) -> str:
        """The checks one below the other, folded to lines of `width` characters."""
        lines = (f"{'ok ' if check.good else 'ACT'}  {check.name:<9}  {check.text}" for check in self.checks)
        return "\n".join(textwrap.fill(line, width, subsequent_indent=" " * 16) for line in lines)


def check(
    config: Config,
    data: str,
    out: str | Path,
    *,
    val: str | None = None,
    processes: int = 1,
    measured: int = 10,
    options: tuple[str, ...] = (),
) -> Report:
    """Look at everything that a run of `launch` with the same arguments needs, before it starts.

    Speed and memory are measured: the training itself is started in a temporary folder beside `out` for twice
    `measured` iterations, of which the second half counts. So its processes find each other, and a batch fits.

    Raises:
        UserError: going on cannot work: unusable folder or data, other classes in `val`, more processes than GPUs,
            a batch that cannot be shared out, or the measured iterations fail.
    """
    RunFolder(out).check(resume=True)
    gpus = 0 if "cpu" in options else torch.cuda.device_count()
    checks = [_processes(config, processes, gpus)]
    training = open_source(data)
    checks += [_schedule(config, len(training)), _data("data", training)]
    if val is not None:
        validation = open_source(val)
        if validation.classes != training.classes:
            raise UserError(
                f"{data} and {val} have different classes; use data with the same classes in the same order"
            )
        checks.append(_data("val data", validation))
    place = next(parent for parent in Path(out).absolute().parents if parent.is_dir())
    disk_gb = _disk_gb(config, len(training.classes) + 1)
    checks.append(_disk(disk_gb, shutil.disk_usage(place).free / 1e9, config))
    measurement = _measure(config, data, place, processes, measured, options)
    states = state_files(Path(out))
    done = min(int(states[-1].stem.rpartition("-")[2]), config.solver.iterations) if states else 0
    hours = measurement.seconds * (config.solver.iterations - done) / 3600
    free = _gpu_gb(processes) if gpus else _ram_gb()
    checks += [_speed(measurement, config, gpus), _memory(measurement, free, processes, gpus)]
    checks.append(_time(hours, config.solver.iterations, done))
    return Report(tuple(checks), measurement, hours, disk_gb)


def _processes(config: Config, processes: int, gpus: int) -> Check:
    solver, cores = config.solver, available_cores()
    if processes < 1 or solver.images_per_batch % (processes * solver.accumulate):
        parts = f" in {solver.accumulate} parts each" if solver.accumulate > 1 else ""
        raise UserError(
            f"{processes} processes cannot share {solver.images_per_batch} images equally{parts}; "
            "change the processes or solver.images_per_batch"
        )
    if 0 < gpus < processes:
        raise UserError(f"{processes} processes but {gpus} GPUs; use at most one process per GPU")
    share = f"{processes} x {solver.images_per_batch // processes} images"
    if gpus:
        return Check("processes", True, f"{share} on {processes} of {gpus} GPUs ({torch.cuda.get_device_name(0)})")
    if processes > cores:
        return Check("processes", False, f"{share} on {cores} CPU cores, no GPU; use at most {cores}")
    return Check("processes", True, f"{share} on {cores} CPU cores, no GPU")


def _schedule(config: Config, images: int) -> Check:
    solver = config.solver
    usual = presets.get(config.preset, config.profile).solver
    passes = solver.iterations * solver.images_per_batch / images
    text = f"{solver.iterations:,} iterations of {solver.images_per_batch} images, {passes:.1f} times through the data"
    scaled = optimisation.scaled_to_batch(config, usual, chosen=False)[0].solver.lr
    if solver.optimiser == "sgd" and abs(solver.lr - scaled) > 0.01 * scaled:
        rule = f"{usual.lr:g} belongs to {usual.images_per_batch} images, so this batch needs {scaled:g}"
        return Check("schedule", False, f"{text}; learning rate {solver.lr:g}: {rule}, set solver.lr={scaled:g}")
    return Check("schedule", True, f"{text}, learning rate {solver.lr:g}")


def _data(name: str, dataset: DetectionDataset) -> Check:
    report = inspection.check(dataset, samples=DECODED)
    text = f"{report.images:,} images, {report.objects:,} objects of {len(report.classes)} classes"
    if report.dropped:
        text += f", {len(report.dropped)} bad boxes left out"
    absent = [name for name, count in report.classes.items() if not count]
    if absent:
        text += f", no object of {', '.join(absent[:3])}{' and others' if len(absent) > 3 else ''}"
    known = _known_count(dataset)
    if known not in (None, report.images):
        return Check(name, False, f"{text}; COCO 2017 has {known:,} images here: cpm data coco --root ROOT --download")
    if report.unreadable:
        image_id, reason = report.unreadable[0]
        count = f"{len(report.unreadable)} of {report.decoded} images looked at are not readable"
        return Check(name, False, f"{text}; {count}, e.g. image {image_id}: {reason}; copy the images again")
    return Check(name, True, text + (", as many images as COCO 2017 has" if known else ""))


def _known_count(dataset: DetectionDataset) -> int | None:
    """How many images COCO 2017 has in the split of this annotation file; None for other data."""
    for split in ("train", "val"):
        if Path(dataset.where).name == f"instances_{split}2017.json" and len(dataset.classes) == 80:
            return COCO_2017[split].images
    return None


def _disk_gb(config: Config, num_classes: int) -> float:
    """Most that a run has on the disk at once: the kept checkpoints, one being written, and the final weights."""
    with torch.device("meta"):
        model = build_model(config.override({"backbone.pretrained": False}), num_classes)
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    # Momentum, or AdamW's two moments, each as large as the weights it belongs to.
    state = weights + trained * (2 if config.solver.optimiser == "adamw" else 1)
    return ((config.solver.checkpoints_kept + 1) * state + weights) / 1e9


def _disk(need: float, free: float, config: Config) -> Check:
    kept = config.solver.checkpoints_kept
    text = f"{_size(need)} for {kept} + 1 checkpoints and the final weights, {_size(free)} are free"
    advice = "; free some, choose another folder or lower solver.checkpoints_kept"
    return Check("disk", need < free, text + ("" if need < free else advice))


def _measure(
    config: Config, data: str, place: Path, processes: int, measured: int, options: tuple[str, ...]
) -> Measurement:
    """A training that is thrown away."""
    changes = {"iterations": 2 * measured, "checkpoint_every": 2 * measured, "evaluate_every": 0}
    short = config.override({f"solver.{name}": value for name, value in changes.items()})
    try:
        with tempfile.TemporaryDirectory(prefix=".preflight-", dir=place) as folder:
            run, logged = Path(folder) / "run", (*options, "--log-every", str(measured))
            launch(short, data, run, processes=processes, options=logged, quiet=True)
            first, last = RunFolder(run).records("timing")
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror}); choose another output folder") from error
    except UserError as error:
        raise UserError(f"measuring the speed: {error}") from error
    seconds = last["wall_s"] - first["wall_s"]
    return Measurement(seconds / measured, (last["data_s"] - first["data_s"]) / seconds, last["memory_gb"])


def _speed(measurement: Measurement, config: Config, gpus: int) -> Check:
    rate, share = config.solver.images_per_batch / measurement.seconds, 100 * measurement.waiting
    text = (
        f"measured {measurement.seconds:.3g} s per iteration, {rate:.3g} images/s, {share:.0f} % of it reading images"
    )
    slow = gpus > 0 and measurement.waiting > WAITING
    return Check("speed", not slow, text + ("; give it more --workers" if slow else ""))


def _memory(measurement: Measurement, free: float | None, processes: int, gpus: int) -> Check:
    need = MARGIN * measurement.memory_gb * (1 if gpus else processes)
    parts = f"{MARGIN:g} x {measurement.memory_gb:.2f} GB measured" + (
        "" if gpus or processes == 1 else f" x {processes} processes"
    )
    text = f"{'per GPU ' if gpus else ''}{_size(need)} by estimate ({parts})"
    if free is None:
        return Check("memory", True, f"{text}; how much is free is not known on this system")
    text += f", {_size(free)} {'on the smallest GPU' if gpus else 'are free'}"
    advice = "; set grid.recompute=true or solver.accumulate, or lower solver.images_per_batch or the image size"
    return Check("memory", need < free, text + ("" if need < free else advice))


def _time(hours: float, iterations: int, done: int) -> Check:
    shown = f"{3600 * hours:.0f} s" if hours < 0.03 else f"{60 * hours:.0f} min" if hours < 2 else f"{hours:.1f} h"
    days = f" ({hours / 24:.1f} days)" if hours > 48 else ""
    what = f"{iterations - done:,} iterations" + (f" that are left of {iterations:,}" if done else "")
    return Check("time", True, f"{shown}{days} expected for {what}; start and evaluations come on top")


def _gpu_gb(processes: int) -> float:
    """Memory of the smallest GPU used."""
    return min(torch.cuda.get_device_properties(number).total_memory for number in range(processes)) / 1e9


def _ram_gb() -> float | None:
    """Memory that new processes can have; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    table = dict(line.split(":", 1) for line in lines)
    return int(table["MemAvailable"].split()[0]) * 1024 / 1e9


def _size(gb: float) -> str:
    return f"{1000 * gb:.0f} MB" if gb < 1 else f"{gb:.1f} GB"
