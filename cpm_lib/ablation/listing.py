"""What there is of every experiment, what it cost or would cost, and whether it is up to date."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cpm_lib import ledger
from cpm_lib.ablation import joint, joint_record
from cpm_lib.ablation.experiments import EXPERIMENTS, Experiment, Settings, Source
from cpm_lib.ablation.setting import PROFILES, digest, level_of, plain, shipped_trunk, splits, unusual
from cpm_lib.config import Config
from cpm_lib.data.shape_files import cache_folder, read_shapes
from cpm_lib.data.shapes import knobs_hash, profile_config
from cpm_lib.errors import UserError
from cpm_lib.ledger import Record
from cpm_lib.typed import nearest

SEEDS = (0, 1, 2)
NOTE = (
    "*: some of its trainings or records serve other rows, too, so prices do not add up. To go: by the mean of the "
    "records of this profile, where the run folders of these are at hand. Compared: seeds, results version, "
    "configuration, trunk, and the data where they are shapes that were made before; other data are not opened."
)
"""What a reader of the list has to know."""
_KINDS = ("shapes", "voc", "coco")


def listing(
    profile: str, source: str | None = None, seeds: Sequence[int] = SEEDS, names: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """What there is of every experiment, without opening any data; the content of ``--list --json``.

    Args:
        names: of experiments; default all.

    Returns:
        One dict each: records; "stale", id -> what is no longer the same; "lacking", what records of several trainings
        should hold, too; "seeds" that every record holds; "created", the date of the oldest record; "cpu_min",
        measured, and "to_go_min", expected for what is missing, None where nothing tells; "shared", the experiments
        that read the same records or trainings; "cost" and "status" in words.

    Raises:
        UserError: unknown profile, or a source that the ablations do not take.
    """
    source = source or f"shapes:{profile}"
    _check(profile, source)
    stock = _Stock(profile, source, tuple(seeds))
    chosen = [EXPERIMENTS[name] for name in names] or list(EXPERIMENTS.values())
    return [_row(experiment, stock) for experiment in chosen]


def total(profile: str, source: str | None = None, seeds: Sequence[int] = SEEDS) -> str:
    """The measured price of all records of all experiments together, in one sentence; each record counts once."""
    stock = _Stock(profile, source or f"shapes:{profile}", tuple(seeds))
    sources = dict.fromkeys(one for experiment in EXPERIMENTS.values() for one in experiment.sources)
    records = [record for one in sources for record in stock.records(one)]
    spent = sum(record.cpu_s or 0.0 for record in records) / 60
    untimed = sum(record.cpu_s is None for record in records)
    return f"All {len(records)} records, each once: {spent:.0f} CPU min" + (_untimed(untimed) if untimed else "") + "."


def _check(profile: str, source: str) -> None:
    """Refuses what a run would refuse, as far as that can be told without the data."""
    if profile not in PROFILES:
        raise UserError(f"profile '{profile}': ablations run at {', '.join(PROFILES)}; choose one of these")
    splits(source)
    kind, _, name = source.partition(":")
    if kind not in _KINDS:
        raise UserError(f"--data {source}: unknown kind of data '{kind}'{nearest(kind, _KINDS)}")
    if kind == "shapes":
        profile_config(name)


@dataclass(frozen=True)
class _Stock:
    """What is wanted, and the records there are."""

    profile: str
    source: str
    seeds: tuple[int, ...]

    @functools.cached_property
    def known(self) -> Mapping[str, Record]:
        return {record.id: record for record in ledger.read_all()}

    @functools.cached_property
    def inputs(self) -> dict[str, str]:
        """Digests of the shipped trunk and, for shapes in the cache, of both splits."""
        found = {"trunk": digest(shipped_trunk()) if shipped_trunk().is_file() else ""}
        kind, _, name = self.source.partition(":")
        if kind == "shapes":
            folder = cache_folder() / f"shapes-{name}-{knobs_hash(profile_config(name), 0)}"
            for split in ("train", "val"):
                if (folder / f"annotations_{split}.json").is_file():
                    found[split] = read_shapes(folder, split).fingerprint()
        return found

    def ids(self, source: Source) -> list[str]:
        return source.ids(self.profile, self.source, self.seeds)

    def records(self, source: Source) -> list[Record]:
        return [self.known[id] for id in self.ids(source) if id in self.known]

    def difference(self, record: Record, source: Source) -> str:
        """What of a record is no longer as it would be made now; "" if nothing is, as far as can be told."""
        if record.results_version != ledger.RESULTS_VERSION:
            return "results version"
        if source.settings is None:
            return ""
        wanted, made = plain(source.settings(self.profile)), _settings(record)
        if any(settings != wanted.get(row) for row, settings in made.items()):
            return "configuration"
        if record.inputs.get("trunk") != self.inputs["trunk"]:
            return "trunk"
        digests = {"train": record.inputs.get("train"), "val": record.data_fingerprint}
        return "data" if any(self.inputs.get(split, value) != value for split, value in digests.items()) else ""

    def lacking(self, record: Record, source: Source) -> list[str]:
        """Seeds that are asked for, rows and differences that a record of several trainings does not hold."""
        if source.by_seed or source.settings is None:
            return []
        rows = source.settings(self.profile)
        missing = [f"seed {seed}" for seed in self.seeds if seed not in record.metrics.get("seeds", [])]
        missing += [row for row in rows if row not in _settings(record)]
        names = joint_record.beside(source.name.removeprefix("joint-"), rows)
        return missing + (["differences beside the claims"] if names - set(record.metrics.get("beside", {})) else [])

    def complete(self, source: Source) -> list[Record]:
        """The records that are as they would be made now, with all seeds."""
        return [
            record
            for record in self.records(source)
            if not self.difference(record, source) and not self.lacking(record, source)
        ]

    @functools.cached_property
    def trained(self) -> set[tuple[str, int]]:
        """Trainings of detectors that up-to-date records hold; their run folders may be gone."""
        sources = {one for experiment in EXPERIMENTS.values() for one in experiment.sources if not one.by_seed}
        return {
            (training, seed)
            for one in sources
            for record in self.records(one)
            if not self.difference(record, one)
            for training in _keys(_settings(record))
            for seed in record.metrics.get("seeds", [])
        }

    @functools.cached_property
    def minutes(self) -> dict[str, float]:
        """Mean CPU minutes of a record by its source, and of one ``training`` of a detector, where measured."""
        found: dict[str, list[tuple[float, int]]] = {}
        for record in self.known.values():
            if record.profile != self.profile or record.cpu_s is None or record.device != "cpu":
                continue
            name = record.id.partition(f"-{self.profile}")[0]
            if name.startswith("joint-"):
                runs = len(record.metrics["configs"]) * len(record.metrics["seeds"])
                found.setdefault("training", []).append((record.cpu_s / 60, runs))
            else:
                found.setdefault(name, []).append((record.cpu_s / 60, 1))
        return {name: sum(m for m, _ in of) / sum(runs for _, runs in of) for name, of in found.items()}

    def to_go(self, experiment: Experiment) -> float | None:
        """CPU minutes of what is missing, as measured on records of the same profile; None where none tells."""
        minutes, runs = 0.0, set()
        for source in dict.fromkeys(one for mine in experiment.sources for one in (*mine.needs, mine)):
            if len(self.complete(source)) == len(self.ids(source)):
                continue
            if source.settings is not None and not source.by_seed:
                runs |= {(training, seed) for training in trainings(source, self.profile) for seed in self.seeds}
                continue
            if source.name not in self.minutes:
                return None
            minutes += self.minutes[source.name] * (len(self.ids(source)) - len(self.complete(source)))
        runs -= self.trained
        if runs and "training" not in self.minutes:
            return None
        return minutes + self.minutes.get("training", 0.0) * len(runs)


@functools.cache
def trainings(source: Source, profile: str) -> frozenset[str]:
    """A key for every training behind a record of this source: equal keys are one run, whatever record asks for it."""
    return _keys(source.settings(profile) if source.settings else {})


def _keys(settings: Settings) -> frozenset[str]:
    skipped = {"preset", *(f"conventions.{name}" for name in joint.AT_TEST)}
    return frozenset(
        json.dumps({key: value for key, value in one.items() if key not in skipped}, sort_keys=True)
        for one in settings.values()
    )


def _row(experiment: Experiment, stock: _Stock) -> dict[str, Any]:
    sources = experiment.sources
    records = [record for one in sources for record in stock.records(one)]
    complete = [record for one in sources for record in stock.complete(one)]
    stale = {r.id: what for one in sources for r in stock.records(one) if (what := stock.difference(r, one))}
    lacking = [
        what for one in sources for r in stock.records(one) if r.id not in stale for what in stock.lacking(r, one)
    ]
    wanted = sum(len(stock.ids(one)) for one in sources)
    row: dict[str, Any] = {
        "name": experiment.name,
        "table": experiment.table,
        "level": (sources[0].level or level_of(stock.source)) if sources else "",
        "profile": stock.profile,
        "rows": len(experiment.rows),
        "records": [record.id for record in records],
        "stale": stale,
        "lacking": sorted(set(lacking)),
        "seeds": _seeds([record for record in records if record.id not in stale]),
        "created": min((record.created for record in records), default=None),
        "cpu_min": _spent(records),
        "to_go_min": None if len(complete) == wanted else stock.to_go(experiment),
        "shared": _sharing(experiment, stock.profile),
        "also on": _elsewhere(experiment, stock),
    }
    cost = _cost(experiment, row, records, len(complete) == wanted)
    status = experiment.quoted or _status(len(complete), wanted, stale, row["lacking"])
    return {**row, "cost": cost, "status": status}


def _settings(record: Record) -> Settings:
    """What `Source.settings` gave when a record was made."""
    if "configs" in record.metrics:
        return dict(record.metrics["configs"])
    try:
        return {"": plain(unusual(Config.from_dict(record.config)))}
    except UserError:
        return {"": {"config": "of a version of the library that had other settings"}}


def _sharing(experiment: Experiment, profile: str) -> list[str]:
    """Names of other experiments that read one of its records or trainings."""

    def reads(one: Experiment) -> set[str]:
        runs = {training for source in one.sources for training in trainings(source, profile)}
        return {source.name for source in one.sources} | runs

    mine = reads(experiment)
    return [other.name for other in EXPERIMENTS.values() if other is not experiment and mine & reads(other)]


def _elsewhere(experiment: Experiment, stock: _Stock) -> list[str]:
    """Other data on which the experiment was run at this profile, with at least one seed."""
    known = stock.known
    data = {record.data.rpartition(",")[0] for record in known.values() if record.data.startswith(("voc:", "coco:"))}
    return [
        other
        for other in sorted(data - {stock.source})
        if experiment.sources
        and all(any(id in known for id in one.ids(stock.profile, other, stock.seeds)) for one in experiment.sources)
    ]


def _seeds(records: Sequence[Record]) -> list[int]:
    """Seeds of which every record exists."""
    single = {record.seed for record in records if record.seed is not None}
    several = [set(record.metrics.get("seeds", [])) for record in records if record.seed is None]
    sets = ([single] if single else []) + several
    return sorted(set.intersection(*sets)) if sets else []


def _spent(records: Sequence[Record]) -> float | None:
    timed = [record.cpu_s / 60 for record in records if record.cpu_s is not None]
    return round(sum(timed), 1) if timed else None


def _cost(experiment: Experiment, row: Mapping[str, Any], records: Sequence[Record], complete: bool) -> str:
    """Measured, and for what is missing as expected."""
    if not experiment.sources:
        return "-"
    parts = []
    if records:
        untimed = sum(record.cpu_s is None for record in records)
        parts.append(f"{row['cpu_min'] or 0:.0f} CPU min" + (_untimed(untimed) if untimed else ""))
    if not complete:
        usual = "; ".join(dict.fromkeys(source.cost for source in experiment.sources))
        to_go = row["to_go_min"]
        parts.append(
            usual if to_go is None else f"about {to_go:.0f} CPU min to go" if to_go >= 1 else "evaluations to go"
        )
    return "; ".join(parts) + ("*" if row["shared"] else "")


def _untimed(number: int) -> str:
    return f", {number} record{'s' if number > 1 else ''} without a time"


def _status(complete: int, wanted: int, stale: Mapping[str, str], lacking: Sequence[str]) -> str:
    if complete == wanted:
        return "complete"
    if not (complete or stale or lacking):
        return "missing"
    parts = [f"{complete} of {wanted} records"]
    if stale:
        parts.append(f"{len(stale)} stale ({', '.join(sorted(set(stale.values())))})")
    if lacking:
        parts.append(f"without {', '.join(lacking)}")
    return ", ".join(parts)
