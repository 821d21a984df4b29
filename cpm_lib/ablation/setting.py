"""On what an experiment runs: profile, data and seed, and what it has left behind so far."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cpm_lib import ledger
from cpm_lib.config import Config
from cpm_lib.data import DetectionDataset, open_source
from cpm_lib.errors import UserError
from cpm_lib.files import check_folder, write_atomic
from cpm_lib.training.run_folder import RunFolder

RUNS = Path("_build/ablation")
"""Default place of run folders, so that what was stopped can go on."""
PROFILES = ("smoke", "quick", "gpu")
"""Sizes at which the ablations run, in rising order."""
_FORMS = "shapes:PROFILE, voc:ROOT or coco:ROOT; both splits are needed, so name none"


@dataclass(frozen=True)
class Setting:
    """Data of an experiment at one size.

    Attributes:
        profile: see `PROFILES`.
        source: text without split, e.g. ``shapes:quick``.
        runs: folder of the run folders.
    """

    profile: str
    source: str
    train: DetectionDataset
    val: DetectionDataset
    runs: Path = RUNS

    @classmethod
    def open(cls, profile: str, source: str | None = None, runs: str | Path = RUNS) -> Setting:
        """Open the training and the validation split of a source; default: the shapes of the profile.

        Raises:
            UserError: unknown profile, a source with a split, or data that cannot be used.
        """
        if profile not in PROFILES:
            raise UserError(f"profile '{profile}': ablations run at {', '.join(PROFILES)}; choose one of these")
        source = source or f"shapes:{profile}"
        train, val = (open_source(text) for text in splits(source))
        return cls(profile, source, train, val, Path(runs))

    @property
    def level(self) -> str:
        """Level of evidence."""
        return level_of(self.source)

    def record_id(self, experiment: str, seed: int = 0) -> str:
        """``<experiment>-<profile>``, then the data if it is not the profile's own, then the seed if it is not 0."""
        return record_id(experiment, self.profile, self.source, seed)

    def run(self, experiment: str, config: Config, seed: int, **further: Any) -> Path:
        """A run folder of its own for everything that decides the result; `further` are such things, too."""
        facts = {
            "config": unusual(config),
            "data": [self.train.fingerprint(), self.val.fingerprint()],
            "version": ledger.RESULTS_VERSION,
            **further,
        }
        return self.folder(experiment, seed, facts)

    def folder(self, experiment: str, seed: int, facts: Mapping[str, Any]) -> Path:
        """A run folder named after the experiment and everything in `facts`."""
        text = json.dumps(facts, sort_keys=True, default=str)
        mark = hashlib.sha256(text.encode()).hexdigest()[:8]
        return self.runs / f"{record_id(experiment, self.profile, self.source, 0)}-s{seed}-{mark}"

    def inputs(self) -> dict[str, str]:
        """`ledger.Record.inputs` of all records: the training data, and the shipped trunk, where trainings begin."""
        return {
            "train": self.train.fingerprint(),
            "trunk": digest(shipped_trunk()) if shipped_trunk().is_file() else "",
        }

    def current(self, id: str) -> ledger.Record | None:
        """The record of this id if code, data and starting weights are still those it was made with, else None; its
        configuration is left to the caller."""
        if not (ledger.results_folder() / f"{id}.json").is_file():
            return None
        record = ledger.read(id)
        same = record.results_version == ledger.RESULTS_VERSION and record.data_fingerprint == self.val.fingerprint()
        return record if same and record.inputs == self.inputs() else None

    def found(self, id: str, config: Config) -> ledger.Record | None:
        """The `current` record of this id if it is of this configuration, else None."""
        record = self.current(id)
        return record if record and unusual(Config.from_dict(record.config)) == unusual(config) else None

    def check(self, id: str) -> None:
        """To be called before a record is made: refuse now what would fail after the training.

        Raises:
            UserError: run folders or records cannot be written, or the record of this id is of other data.
        """
        check_folder(self.runs, "choose another --runs")
        results = ledger.results_folder()
        check_folder(results, "set CPM_RESULTS to another folder")
        if not (results / f"{id}.json").is_file():
            return
        record = ledger.read(id)
        # Data of one name may change, which makes a record stale; other data of another name would replace it.
        other = record.data_fingerprint not in ("", self.val.fingerprint()) and record.data != self.val.name
        if other:
            raise UserError(
                f"{results / id}.json is of {record.data}, not of {self.val.name}, and both have this name; rename the "
                "data's folder, or set CPM_RESULTS to another one"
            )


def shipped_trunk() -> Path:
    """Weights of the trunk that comes with the library."""
    return ledger.find_data("checkpoints") / "trunk.safetensors"


def digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def place() -> torch.device:
    """Where models are evaluated: where `train` trains them, on a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def trained_on(runs: Iterable[Path]) -> str:
    """`ledger.Record.device` of what these run folders hold: "cpu", or the GPU's name."""
    names: dict[str, None] = {}
    for run in runs:
        made = RunFolder(run).read()
        kind, _, index = str(made["device"]).partition(":")
        names[made["environment"]["gpus"][int(index or 0)] if kind == "cuda" else kind] = None
    return ", ".join(names)


@contextlib.contextmanager
def spending(run: Path) -> Iterator[None]:
    """Adds what a `with` block costs to ``cost.json`` of a run folder, also when it is interrupted.

    Raises:
        UserError: another process is at work in this folder.
    """
    with _alone(run):
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            before = cost(run)
            spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
            total = {name: round(before[name] + value, 1) for name, value in spent.items()}
            write_atomic(run / "cost.json", json.dumps(total) + "\n")


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keeps a second process out of a run folder, by a lock beside it that goes when its process ends."""
    check_folder(run.parent, "choose another --runs")
    with (run.parent / f"{run.name}.lock").open("a") as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{run}: another process is at work here; wait for it, then ask again") from error
        yield


def cost(run: Path) -> dict[str, float]:
    """Wall and CPU seconds spent on a run folder so far, interrupted attempts included."""
    file = run / "cost.json"
    return json.loads(file.read_text()) if file.is_file() else {"wall_s": 0.0, "cpu_s": 0.0}


def together(seeds: Sequence[int], known: ledger.Record | None) -> list[int]:
    """The seeds that are asked for and those that a record has: a record never loses any."""
    return sorted({*seeds, *(known.metrics["seeds"] if known else ())})


def splits(source: str) -> tuple[str, str]:
    """Source texts of the training and the validation split.

    Raises:
        UserError: the text names a split already.
    """
    kind, _, rest = source.partition(":")
    mark = ":" if kind == "shapes" else ","
    if not rest or mark in rest:
        raise UserError(f"--data {source}: ablations take {_FORMS}")
    return f"{source}{mark}train", f"{source}{mark}val"


def level_of(source: str) -> str:
    """Level of evidence of a source: shapes, photographs, or COCO."""
    return {"shapes": "E1", "coco": "E3"}.get(source.partition(":")[0], "E2")


def record_id(experiment: str, profile: str, source: str, seed: int) -> str:
    """See `Setting.record_id`."""
    name = f"{experiment}-{profile}"
    if source != f"shapes:{profile}":
        name += "-" + re.sub(r"[^a-z0-9]+", "-", source.rstrip("/").rpartition("/")[2].lower()).strip("-")
    return name if seed == 0 else f"{name}-s{seed}"


def unusual(config: Config) -> dict[str, Any]:
    """The settings that differ from the defaults, by dotted name; settings added later change nothing here."""
    return {key: value for key, value in _flat(config.to_dict()).items() if value != _DEFAULTS[key]}


def plain(value: Any) -> Any:
    """As JSON keeps it: lists for tuples."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


_DEFAULTS = _flat(Config().to_dict())
