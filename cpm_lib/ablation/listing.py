"""What there is of every experiment, what it cost or would cost, and whether it is up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpm_lib import ledger
from cpm_lib.ablation.experiments import EXPERIMENTS, Experiment
from cpm_lib.ablation.setting import level_of
from cpm_lib.ledger import Record

SEEDS = (0, 1, 2)


def listing(profile: str, source: str | None = None, seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """What there is of every experiment, without opening any data; the content of ``--list --json``."""
    source = source or f"shapes:{profile}"
    known = {record.id: record for record in ledger.read_all()}
    found = []
    for experiment in EXPERIMENTS.values():
        wanted = [id for one in experiment.sources for id in one.ids(profile, source, seeds)]
        records = [known[id] for id in wanted if id in known]
        fresh = [record for record in records if record.results_version == ledger.RESULTS_VERSION]
        found.append(
            {
                "name": experiment.name,
                "table": experiment.table,
                "level": experiment.sources[0].level or level_of(source),
                "profile": profile,
                "rows": len(experiment.rows),
                "records": [record.id for record in records],
                "seeds": _seeds(fresh),
                "created": max((record.created for record in records), default=None),
                "cost": _cost(experiment, records, wanted),
                "status": _status(len(fresh), len(records), len(wanted)),
                "also on": _elsewhere(experiment, profile, source, seeds, known),
            }
        )
    return found


def _elsewhere(
    experiment: Experiment, profile: str, source: str, seeds: Sequence[int], known: Mapping[str, Record]
) -> list[str]:
    """Other data on which the experiment was run at this profile, with at least one seed."""
    data = {record.data.rpartition(",")[0] for record in known.values() if record.data.startswith(("voc:", "coco:"))}
    others = sorted(data - {source})
    return [
        other
        for other in others
        if all(any(id in known for id in one.ids(profile, other, seeds)) for one in experiment.sources)
    ]


def _seeds(records: Sequence[Record]) -> list[int]:
    """Seeds of which every record exists."""
    single = {record.seed for record in records if record.seed is not None}
    several = [set(record.metrics.get("seeds", [])) for record in records if record.seed is None]
    sets = ([single] if single else []) + several
    return sorted(set.intersection(*sets)) if sets else []


def _cost(experiment: Experiment, records: Sequence[Record], wanted: Sequence[str]) -> str:
    """Measured where the records are there, else as expected."""
    if records and len(records) == len(wanted):
        return f"{sum(record.cpu_s or 0.0 for record in records) / 60:.0f} CPU min"
    return "; ".join(dict.fromkeys(source.cost for source in experiment.sources))


def _status(fresh: int, there: int, wanted: int) -> str:
    if fresh == wanted:
        return "complete"
    if there > fresh:
        return f"{there - fresh} of {there} records stale"
    return f"{fresh} of {wanted} records" if fresh else "missing"
