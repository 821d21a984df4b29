"""Records of joint runs: rows by seed, and the claims that compare them."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpm_lib import ledger, presets
from cpm_lib.ablation import joint
from cpm_lib.ablation.joint import Metrics, Row, t_interval
from cpm_lib.ablation.paired_record import enter
from cpm_lib.ablation.setting import Setting, cost, plain, together, trained_on, unusual
from cpm_lib.claims import Claim, read_claims
from cpm_lib.config import Config
from cpm_lib.progress import progress

ROWS: Mapping[str, tuple[str, ...]] = {
    "table1": joint.TABLE1,
    "table2": (*joint.TABLE2, *joint.FRESH),
    "table3": joint.TABLE3,
}
"""Record -> its rows: presets, and those of `joint.FRESH`. Figure 8 compares rows of Table 2."""

BESIDE: Mapping[str, tuple[tuple[str, str], ...]] = {
    "table2": (("grid-fused", "faster-fresh"), ("cpm", "faster-fresh")),
    "table3": (("cascade-ism", "cascade"), ("cascade-rsm", "cascade"), ("cascade-ism-rsm", "cascade")),
}
"""Record -> rows whose difference it keeps beside its claims, whose forms were fixed before any run."""
BESIDE_METRICS = ("AP", "AP50", "AP75", "AP90")

PAIRS: Mapping[str, tuple[str, Row, Row]] = {
    "table1.cmm-gain": ("table1", Row("table1-cmm"), Row("table1-baseline-1stage")),
    "table1.cmm-on-ism-rsm": ("table1", Row("table1-all"), Row("table1-ism-rsm-1stage")),
    "table1.all-gain": ("table1", Row("table1-all"), Row("table1-baseline-1stage")),
    "table4.stage1-like-baseline": ("table1", Row("table1-cmm", "stage1-cls"), Row("table1-baseline-1stage")),
    "table2.r50-cpm-over-faster": ("table2", Row("cpm"), Row("faster")),
    "table2.r50-cpm-over-grid": ("table2", Row("cpm"), Row("grid-fused")),
    "table2.r50-grid-over-faster": ("table2", Row("grid-fused"), Row("faster")),
    "table2.third-stage-gain": ("table2", Row("cpm"), Row("cpm-2stage")),
    "fig8.a-over-faster": ("table2", Row("cpm"), Row("faster")),
    "fig8.a-over-grid": ("table2", Row("cpm"), Row("grid-fused")),
    "fig8.b-medium-and-large": ("table2", Row("cpm"), Row("grid-fused")),
    "table3.ism-gain": ("table3", Row("cascade-ism-rsm", "stage2-cls_ism"), Row("cascade-ism-rsm", "stage2-cls")),
    "table3.rsm-gain": ("table3", Row("cascade-ism-rsm", "stage2-cls_rsm"), Row("cascade-ism-rsm", "stage2-cls")),
    "table3.both-gain": ("table3", Row("cascade-ism-rsm", "stage2-fused"), Row("cascade-ism-rsm", "stage2-cls")),
}
"""Claim -> record and the two rows whose difference it is; its parts are metrics."""

Runs = Mapping[str, Mapping[int, dict[str, Metrics]]]
"""Preset -> seed -> rows."""
Seed = Callable[[Row, str], float]
"""(row, metric) -> AP of one seed."""


def _gain_grows(ap: Seed) -> dict[str, float]:
    def gain(metric: str, other: str) -> float:
        return ap(Row("cpm"), metric) - ap(Row(other), metric)

    others = {"over-faster": "faster", "over-grid": "grid-fused"}
    return {part: gain("AP90", other) - gain("AP80", other) for part, other in others.items()}


def _large_most(ap: Seed) -> dict[str, float]:
    large, medium = (ap(Row("cpm"), size) - ap(Row("grid-fused"), size) for size in ("APL", "APM"))
    return {"gain": large - medium}


SPECIAL: Mapping[str, tuple[str, Callable[[Seed], dict[str, float]]]] = {
    "fig8.a-gain-grows": ("table2", _gain_grows),
    "fig8.b-large-most": ("table2", _large_most),
}
"""Claims of other forms."""


def record(setting: Setting, table: str, seeds: Sequence[int]) -> ledger.Record:
    """The joint record of a table: read if it holds these seeds, else made and written with these and those it
    held before.

    Raises:
        UserError: the data cannot be used.
        Interrupted: Ctrl-C; finished runs and the one under way are kept.
    """
    starts = _starts(table, setting.profile)
    configs = described(table, setting.profile)
    id = setting.record_id(f"joint-{table}")
    known = _found(setting, id, configs)
    if known is not None and _complete(known, configs, table) and set(seeds) <= set(known.metrics["seeds"]):
        return known
    setting.check(id)
    seeds = together(seeds, known)
    found = _trained(setting, starts, seeds)
    differences: dict[str, Any] = {}
    for claim in read_claims():
        parts = quantities(claim, table, found, seeds)
        if parts:
            enter(differences, claim, parts)
    runs = [start.folder(setting, seed) for start in starts.values() for seed in seeds]
    spent = [cost(run) for run in runs]
    made = ledger.make(
        id, f"Rows of {table}, trained from one trunk on equal terms", setting.level, dataset=setting.val,
        inputs=setting.inputs(), device=trained_on(runs), profile=setting.profile,
        metrics=_metrics(found, configs, seeds) | _beside(table, found, seeds), differences=differences,
        notes=_notes(setting, seeds) + _NOTES.get(table, ""),
        wall_s=sum(x["wall_s"] for x in spent), cpu_s=sum(x["cpu_s"] for x in spent),
    )  # fmt: skip
    ledger.write(made)
    return made


class Start(NamedTuple):
    """What a row of a table is trained with; `fresh` as `joint.run` takes it."""

    config: Config
    fresh: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """As a record keeps it."""
        return unusual(self.config) | ({"fresh": list(self.fresh)} if self.fresh else {})

    def folder(self, setting: Setting, seed: int) -> Path:
        return joint.run_folder(setting, self.config, seed, self.fresh)


def _starts(table: str, profile: str) -> dict[str, Start]:
    of = {row: joint.FRESH.get(row, (row, ())) for row in ROWS[table]}
    return {row: Start(presets.get(preset, profile), fresh) for row, (preset, fresh) in of.items()}


def described(table: str, profile: str) -> dict[str, dict[str, Any]]:
    """Row -> what the table's record says it was made with."""
    return {row: start.described() for row, start in _starts(table, profile).items()}


def described_switch(name: str, profile: str) -> dict[str, dict[str, Any]]:
    """The same for the record of a switch: both of its sides."""
    usual = presets.get("cpm", profile)
    return {"corrected": unusual(usual), "official": unusual(usual.override(joint.switches()[name]))}


def beside(table: str, rows: Collection[str]) -> set[str]:
    """Names of the differences that the record of a table with these rows keeps beside its claims."""
    return {f"{one} - {other}" for one, other in BESIDE.get(table, ()) if {one, other} <= set(rows)}


def _trained(setting: Setting, starts: Mapping[str, Start], seeds: Sequence[int]) -> dict[str, dict[int, Any]]:
    """Rows of every training; a bar counts those that are not there yet, and says which one is under way."""
    missing = [
        (name, seed)
        for name, start in starts.items()
        for seed in seeds
        if not joint.rows_file(start.folder(setting, seed)).is_file()
    ]
    found: dict[str, dict[int, Any]] = {name: {} for name in starts}
    with progress(total=len(missing), unit="training", smoothing=0, leave=False) as bar:
        for name, start in starts.items():
            for seed in seeds:
                if (name, seed) in missing:
                    number = missing.index((name, seed)) + 1
                    bar.set_description(f"training {number} of {len(missing)}: {name}, seed {seed}")
                found[name][seed] = joint.run(setting, start.config, seed, fresh=start.fresh)
                bar.update((name, seed) in missing)
    return found


def _beside(table: str, found: Runs, seeds: Sequence[int]) -> dict[str, Any]:
    """``beside``: differences of whole trainings, metric by metric, that judge no claim."""
    sides = _sides(found, seeds)
    pairs = {
        f"{one} - {other}": {
            metric: t_interval([ap(Row(one), metric) - ap(Row(other), metric) for ap in sides])
            for metric in BESIDE_METRICS
        }
        for one, other in BESIDE.get(table, ())
        if {one, other} <= set(found)
    }
    return {"beside": pairs} if pairs else {}


def switch_record(setting: Setting, name: str, seeds: Sequence[int]) -> ledger.Record:
    """What one switch of the conventions changes: `cpm` with the authors' value minus `cpm` as it is."""
    usual, change = presets.get("cpm", setting.profile), joint.switches()[name]
    at_test = change if name in joint.AT_TEST else None
    config = usual if at_test else usual.override(change)
    id = setting.record_id(f"switch-{name.replace('_', '-')}")
    configs = described_switch(name, setting.profile)
    known = _found(setting, id, configs)
    if known is not None and set(seeds) <= set(known.metrics["seeds"]):
        return known
    setting.check(id)
    seeds = together(seeds, known)
    found = {"corrected": {seed: joint.run(setting, usual, seed) for seed in seeds}}
    began = time.perf_counter(), time.process_time()
    found["official"] = {seed: joint.run(setting, config, seed, at_test) for seed in seeds}
    evaluating = {"wall_s": time.perf_counter() - began[0], "cpu_s": time.process_time() - began[1]}
    one, other = Row("official"), Row("corrected")
    sides = _sides(found, seeds)
    parts = {
        metric: t_interval([ap(one, metric) - ap(other, metric) for ap in sides]) for metric in ("AP", "AP75", "AP90")
    }
    # What acts at test only has no training of its own: that of `cpm` is in the record of Table 2.
    runs = [joint.run_folder(setting, config, seed) for seed in seeds]
    spent = [evaluating] if at_test else [cost(run) for run in runs]
    made = ledger.make(
        id, f"conventions.{name}: the authors' value against ours", setting.level, config=usual, dataset=setting.val,
        inputs=setting.inputs(), device=trained_on(runs), metrics=_metrics(found, configs, seeds),
        differences={"switches": {name: parts}}, notes=_notes(setting, seeds),
        wall_s=sum(x["wall_s"] for x in spent), cpu_s=sum(x["cpu_s"] for x in spent),
    )  # fmt: skip
    ledger.write(made)
    return made


def quantities(claim: Claim, table: str, found: Runs, seeds: Sequence[int]) -> dict[str, Any]:
    """Part -> t interval over the seeds, for a claim that this table's runs decide; else empty."""
    sides = _sides(found, seeds)
    if claim.id in PAIRS and PAIRS[claim.id][0] == table:
        _, one, other = PAIRS[claim.id]
        return {metric: t_interval([ap(one, metric) - ap(other, metric) for ap in sides]) for metric in claim.values}
    if claim.id in SPECIAL and SPECIAL[claim.id][0] == table:
        by_seed = [SPECIAL[claim.id][1](ap) for ap in sides]
        return {part: t_interval([parts[part] for parts in by_seed]) for part in claim.values}
    return {}


def _sides(found: Runs, seeds: Sequence[int]) -> list[Seed]:
    """Access to the rows of every seed; NaN without an object of some size."""

    def ap(seed: int, row: Row, metric: str) -> float:
        value = found[row.preset][seed][row.row][metric]
        return math.nan if value is None else value

    return [functools.partial(ap, seed) for seed in seeds]


def _metrics(found: Runs, configs: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    table = {}
    for name, by_seed in found.items():
        rows = {}
        for row in by_seed[seeds[0]]:
            values = {metric: [by_seed[seed][row][metric] for seed in seeds] for metric in joint.METRICS}
            rows[row] = {
                metric: {"mean": _mean(numbers), "sd": _sd(numbers), "seeds": numbers}
                for metric, numbers in values.items()
            }
        table[name] = rows
    return {"seeds": list(seeds), "rows": table, "configs": dict(configs)}


def _found(setting: Setting, id: str, configs: Mapping[str, Any]) -> ledger.Record | None:
    """The record of this id if what it holds was made like this; rows may be missing in it."""
    record = setting.current(id)
    wanted = plain(configs)
    same = record is not None and all(config == wanted.get(row) for row, config in record.metrics["configs"].items())
    return record if same else None


def _complete(record: ledger.Record, configs: Mapping[str, Any], table: str) -> bool:
    """Whether it has all rows, and the differences beside the claims."""
    same = beside(table, configs) == set(record.metrics.get("beside", {}))
    return same and set(record.metrics["configs"]) == set(configs)


_NOTES = {
    "table2": " The rows go on from the trunk's box regressor where they have one; in faster-fresh it begins anew, as "
    "grid branches do. What lies under beside judges no claim.",
    "table3": " What lies under beside compares whole trainings and judges no claim.",
}


def _notes(setting: Setting, seeds: Sequence[int]) -> str:
    solver = presets.get("cpm", setting.profile).solver
    return (
        f"Every row trained from one trunk for {solver.iterations} iterations of {solver.images_per_batch} images: "
        f"undertrained. Seeds {', '.join(map(str, seeds))}, paired; intervals by Student's t over the seeds."
    )


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return statistics.fmean(defined) if defined else None


def _sd(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return statistics.stdev(defined) if len(defined) > 1 else None
