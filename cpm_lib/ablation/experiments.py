"""What `cpm ablate` knows by name: tables and figures, the records they read, and the rows they show."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cpm_lib import presets
from cpm_lib.ablation import (
    augmented,
    diagnosis,
    joint,
    joint_record,
    outside,
    paired,
    paired_record,
    paired_rows,
    precision,
    speed,
)
from cpm_lib.ablation.setting import Setting, record_id, unusual
from cpm_lib.errors import UserError
from cpm_lib.ledger import Record
from cpm_lib.typed import nearest

COLUMNS = {name: name for name in ("AP", "AP50", "AP75", "AP90", "APS", "APM", "APL")}
_WITH_AP70 = {name: name for name in ("AP", "AP50", "AP70", "AP75", "AP90", "APS", "APM", "APL")}
_WITH_AP80 = {name: name for name in ("AP", "AP50", "AP75", "AP80", "AP90", "APS", "APM", "APL")}

Settings = Mapping[str, Mapping[str, Any]]
"""Name -> what differs from the default configuration, as records of several trainings hold it in ``configs``; records
of one configuration have the name ""."""


@dataclass(frozen=True)
class Shown:
    """One row of a printed table.

    Attributes:
        name: as the paper calls it.
        key: dotted key of its metrics below ``metrics`` of a record.
        paper: id of the claim that holds the paper's numbers; "" where the paper prints none.
        record: which of the experiment's records; the first part of its id.
    """

    name: str
    key: str
    paper: str = ""
    record: str = "paired"


@dataclass(frozen=True)
class Source:
    """Records an experiment reads, and how they are made.

    Attributes:
        name: first part of their ids.
        make: makes those of these seeds, or reads them.
        by_seed: one record per seed; else one for all.
        cost: CPU time on one thread at quick, as measured.
        settings: profile -> what its records are made with; None where neither seeds nor data matter.
        level: of evidence; "" is that of the data.
        needs: records whose runs it starts from.
    """

    name: str
    make: Callable[[Setting, Sequence[int]], list[Record]]
    by_seed: bool
    cost: str
    settings: Callable[[str], Settings] | None
    level: str = ""
    needs: tuple[Source, ...] = ()

    def ids(self, profile: str, source: str, seeds: Sequence[int]) -> list[str]:
        wanted = seeds if self.by_seed else (0,)
        return [record_id(self.name, profile, source, seed) for seed in wanted]


@dataclass(frozen=True)
class Experiment:
    """A name of `cpm ablate`.

    Attributes:
        table: place in the paper.
        sources: what it reads; several experiments share one. None where only the paper's numbers are shown.
        rows: what it prints.
        columns: heading -> dotted key below that of a row; the default are metrics.
        claims: beginnings of the ids of the claims it decides.
        quoted: why it has no sources.
    """

    name: str
    table: str
    sources: tuple[Source, ...]
    rows: tuple[Shown, ...]
    claims: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=lambda: COLUMNS)
    quoted: str = ""


def _each(make: Callable[[Setting, int], Record]) -> Callable[[Setting, Sequence[int]], list[Record]]:
    return lambda setting, seeds: [make(setting, seed) for seed in seeds]


def _joint(table: str) -> Source:
    def make(setting: Setting, seeds: Sequence[int]) -> list[Record]:
        return [joint_record.record(setting, table, seeds)]

    runs = len(joint_record.ROWS[table])
    settings = functools.partial(joint_record.described, table)
    return Source(f"joint-{table}", make, False, f"{runs} trainings per seed", settings)


def _switch(name: str) -> Source:
    def make(setting: Setting, seeds: Sequence[int]) -> list[Record]:
        return [joint_record.switch_record(setting, name, seeds)]

    settings = functools.partial(joint_record.described_switch, name)
    cost = "an evaluation per seed" if name in joint.AT_TEST else "a training per seed"
    return Source(f"switch-{name.replace('_', '-')}", make, False, f"{cost}, and that of cpm", settings)


def _paired(profile: str) -> Settings:
    return {"": unusual(paired.paired_config(profile))}


PAIRED = Source("paired", _each(paired_record.record), True, "13 CPU min per seed", _paired)
DIAGNOSIS = Source(
    "diagnosis", _each(diagnosis.record), True, "the paired run and 2 CPU min per seed", _paired, needs=(PAIRED,)
)
SPEED = Source("speed", lambda setting, _: [speed.record(setting)], False, "10 CPU min at the paper's size", None, "E0")
OUTSIDE = Source(
    "outside", lambda setting, seeds: [outside.record(setting, seeds)], False, "2 trainings per seed",
    lambda profile: {"": unusual(presets.get("faster", profile))},
)  # fmt: skip
PRECISION = Source(
    "precision", lambda setting, _: [precision.record(setting)], False, "10 CPU min without bfloat16 instructions", None
)
AUGMENTED = Source(
    "augmented", _each(augmented.record), True, "a training of cpm and 15 CPU min per seed",
    lambda profile: {"": unusual(presets.get("cpm", profile))},
)  # fmt: skip
_STAGE1 = Shown("stage 1", "rows.falling1-cls", "table4.three-stages-stage1")


_REGIONS = {"entering stage 1": "0", "entering stage 2": "1", "entering stage 3": "2", "final": "3"}
_SCORES = {"cls": "cls_scores", "ISM": "iou_scores", "RSM": "rsm_scores", "cls x ISM": "cls_ism", "fused": "fused"}
_ORACLES = {"as it is": "plain", "score = true IoU": "true_iou", "score = cls x true IoU": "cls_true_iou",
            "hits ranked first": "hits_first", "boxes of the objects": "true_boxes",
            "no duplicates": "no_duplicates"}  # fmt: skip


def _diagnosed(keys: Mapping[str, str], below: str, prefix: str = "") -> tuple[Shown, ...]:
    return tuple(Shown(prefix + name, below + key, "", "diagnosis") for name, key in keys.items())


def _by_completeness(by: str, verb: str) -> tuple[Shown, ...]:
    """Scores of objects that are incomplete by this measure, by how much is missing."""
    return tuple(
        shown
        for cell, share in ((1, "0.1 to 0.3"), (2, "more"))
        for shown in _diagnosed(_SCORES, f"last.score_by_{by}.at_equal_iou.{cell}.scores.", f"{verb} by {share}, ")
    )


def _proposal_rows() -> tuple[Shown, ...]:
    """The objects, and what the proposals of the RPN leave of them, by size."""
    sizes = {size: str(number) for number, size in enumerate(("all", "small", "medium", "large"))}
    return (
        _diagnosed({size: size for size in sizes}, "objects.", "objects, ")
        + _diagnosed(sizes, "proposals.ratio_1.", "proposals, ")
        + _diagnosed(sizes, "proposals.ratio_2.", "extended by 2, ")
    )


def _joint_rows(table: str, papers: Mapping[str, str]) -> tuple[Shown, ...]:
    return tuple(
        Shown(f"{name} (joint)", f"rows.{name}.last", papers.get(name, ""), f"joint-{table}")
        for name in joint_record.ROWS[table]
    )


_TABLE1 = {
    "table1-baseline-1stage": "table1.baseline", "table1-ism-1stage": "table1.ism", "table1-rsm-1stage": "table1.rsm",
    "table1-ism-rsm-1stage": "table1.ism-rsm", "table1-cmm": "table1.cmm", "table1-cmm-rsm": "table1.cmm-rsm",
    "table1-cmm-ism": "table1.cmm-ism", "table1-all": "table1.all",
}  # fmt: skip
_TABLE2 = {"faster": "table2.r50-faster", "grid-fused": "table2.r50-grid", "cpm": "table2.r50-cpm"}
_TABLE3 = {"cascade": "table3.none", "cascade-ism": "table3.ism", "cascade-rsm": "table3.rsm",
           "cascade-ism-rsm": "table3.both"}  # fmt: skip
_LOSSES = (("l1", "falling1-ism-l1", "table6.l1"), ("smooth l1", "falling1-ism-smooth-l1", "table6.smooth-l1"),
           ("l2", "falling1-ism", "table1.ism"))  # fmt: skip

_TABLE7 = {
    "YOLOv2": "yolov2", "SSD-512": "ssd-512", "DSSD-513": "dssd-513", "RefineDet512": "refinedet512",
    "RetinaNet800": "retinanet800", "Cas-RetinaNet800": "cas-retinanet800", "HSD-512": "hsd-512",
    "Faster R-CNN+++": "faster-plus-plus-plus", "Faster R-CNN, FPN": "faster", "Mask R-CNN": "mask",
    "MS R-CNN": "ms-rcnn", "Revisiting R-CNN": "revisiting", "RPDet": "rpdet", "Grid R-CNN": "grid",
    "Cascade R-CNN": "cascade", "CPM R-CNN, R-50": "cpm-r50", "CPM R-CNN, R-101": "cpm-r101",
    "CPM R-CNN, X-101": "cpm-x101", "CPM R-CNN, X-101-DCN": "cpm-x101-dcn",
    "CPM R-CNN, X-101-DCN, multi-scale": "cpm-x101-dcn-ms",
    "CPM R-CNN, X-101-DCN, multi-scale, tta": "cpm-x101-dcn-ms-tta",
}  # fmt: skip

EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "table1", "Table 1", (PAIRED, _joint("table1")),
            (
                Shown("1 stage", "rows.falling1-cls", "table1.baseline"),
                Shown("1 stage, ISM", "rows.falling1-ism", "table1.ism"),
                Shown("1 stage, ISM (target: input)", "rows.falling1-ism-input"),
                Shown("1 stage, RSM", "rows.falling1-rsm", "table1.rsm"),
                Shown("1 stage, ISM and RSM", "rows.falling1-fused", "table1.ism-rsm"),
                Shown("CMM", "rows.falling2-cls", "table1.cmm"),
                Shown("CMM, RSM", "rows.falling2-rsm", "table1.cmm-rsm"),
                Shown("CMM, ISM", "rows.falling2-ism", "table1.cmm-ism"),
                Shown("CMM, ISM and RSM", "rows.falling2-fused", "table1.all"),
                *_joint_rows("table1", _TABLE1),
            ),
            ("table1.",),
        ),
        Experiment("table2", "Table 2", (_joint("table2"),), _joint_rows("table2", _TABLE2), ("table2.",)),
        Experiment("table3", "Table 3", (_joint("table3"),), _joint_rows("table3", _TABLE3), ("table3.",)),
        Experiment(
            "table4", "Table 4", (PAIRED,),
            (
                Shown("proposals", "rows.proposal-cls"),
                _STAGE1,
                Shown("stage 2", "rows.falling2-cls", "table4.three-stages-stage2"),
                Shown("stage 3", "rows.falling3-cls", "table4.three-stages-stage3"),
                Shown("offsets, same RoIs", "rows.offset-cls"),
            ),
            ("table4.",),
            _WITH_AP70,
        ),
        Experiment(
            "table5", "Table 5", (PAIRED,),
            (
                _STAGE1,
                Shown("falling, stage 2", "rows.falling2-cls", "table4.three-stages-stage2"),
                Shown("falling, stage 3", "rows.falling3-cls", "table4.three-stages-stage3"),
                Shown("constant, stage 2", "rows.constant2-cls", "table5.constant-stage2"),
                Shown("constant, stage 3", "rows.constant3-cls", "table5.constant-stage3"),
            ),
            ("table5.",),
            _WITH_AP70,
        ),
        Experiment(
            "table6", "Table 6", (PAIRED,),
            (
                Shown("1 stage", "rows.falling1-cls", "table1.baseline"),
                *(Shown(name, f"rows.{key}", paper) for name, key, paper in _LOSSES),
                *(Shown(f"{name} (target: input)", f"rows.{key}-input") for name, key, _ in _LOSSES),
            ),
            ("table6.",),
        ),
        Experiment(
            "table7", "Table 7", (), tuple(Shown(name, "", f"table7.{paper}") for name, paper in _TABLE7.items()),
            columns={name: name for name in ("AP", "AP50", "AP75", "APS", "APM", "APL")},
            quoted="quoted, not run: COCO test-dev",
        ),
        Experiment(
            "augmented", "Table 7, Sec. 4.2.1", (AUGMENTED,),
            tuple(Shown(name, f"rows.{name}", "", "augmented") for name in augmented.WAYS),
            (augmented.CLAIM_ID,),
        ),
        Experiment(
            "table8", "Table 8", (SPEED,),
            tuple(
                Shown(name, f"rows.{name}", paper, "speed")
                for name, paper in (("cpm-r101", "table8.cpm"), ("grid-original-r101", "table8.grid"), ("cpm", ""),
                                    ("grid", ""), ("grid-original", ""))
            ),
            ("table8.", "sec4-2-1.", "sec2-1."),
            {"seconds": "seconds", "GFLOP": "gflop"},
        ),
        Experiment(
            "fig1", "Fig. 1", (DIAGNOSIS,), _diagnosed(_REGIONS, "last.borders_by_stage."),
            ("fig1.", "sec1.hysteresis", "fig3.", "sec4-2-2."),
            {"IoU": "iou", "points in ratio 1": "coverage.0.points", "in 1.25": "coverage.1.points",
             "in 1.5": "coverage.2.points", "in 2": "coverage.3.points", "90 % need ratio": "needed_ratio.p90"},
        ),
        Experiment(
            "fig5", "Fig. 5", (DIAGNOSIS,),
            _diagnosed(_SCORES, "one.score_quality.", "stage 1, ")
            + _diagnosed(_SCORES, "last.score_quality.", "stage 3, "),
            ("fig5.", "sec1.cls-blind", "sec4-1-3."),
            {"Pearson": "pearson", "Spearman": "spearman", "calibration error": "calibration_error", "bias": "bias"},
        ),
        Experiment(
            "fig6", "Fig. 6", (DIAGNOSIS, PAIRED),
            _by_completeness("truncation", "cut") + _by_completeness("occlusion", "covered"),
            ("fig6.", "sec3-3-2."),
            {"incomplete - complete, equal IoU": "difference", "low": "low", "high": "high"},
        ),
        Experiment(
            "proposals", "Sec. 3.3.2, Sec. 4.2.2", (DIAGNOSIS,), _proposal_rows(),
            ("sec3-3-2.large-objects-incomplete", "sec4-2-2.large-proposals-worse",
             "sec4-2-2.large-heatmap-incomplete"),
            {"objects": "objects", "at border": "at_border", "best IoU": "iou", "recall at 0.5": "recall.0",
             "at 0.7": "recall.1", "at 0.9": "recall.2", "share outside": "cut", "objects cut": "cut_objects"},
        ),
        Experiment(
            "fig7", "Fig. 7", (PAIRED,),
            tuple(Shown(f"gamma {gamma:g}", f"rows.{paired_rows.gamma_row(gamma)}") for gamma in paired_rows.GAMMAS),
            ("fig7.",),
        ),
        Experiment("fig8", "Fig. 8", (PAIRED, _joint("table2")), _joint_rows("table2", {}), ("fig8.",), _WITH_AP80),
        Experiment(
            "mapping", "Sec. 1, Sec. 4.1.1", (PAIRED,),
            (
                Shown("(1, 1) at (.5, .5), stage 2", "rows.unmapped2-cls"),
                Shown("(2, 2) at (.5, .5), stage 2", "rows.constant-level2-cls"),
                Shown("(2, 2, 2) at (.5, .5, .5), stage 3", "rows.constant-level3-cls"),
                Shown("(2, 2, 2) at (.5, .6, .7), stage 3", "rows.constant3-cls", "table5.constant-stage3"),
                Shown("(2, 1.5, 1.25) at (.5, .5, .5), stage 3", "rows.falling-level3-cls"),
                Shown("(2, 1.5, 1.25) at (.5, .6, .7), stage 3", "rows.falling3-cls", "table4.three-stages-stage3"),
            ),
            ("sec1.mapping-needed", "sec1.stages", "sec4-1-1.", "sec3-2."),
        ),
        Experiment(
            "switches", "paper against code", tuple(_switch(name) for name in joint.switches()),
            (
                Shown("all as corrected", "rows.corrected.last", "", "switch-pixel-plus-one"),
                *(
                    Shown(f"{name} as official", "rows.official.last", "", f"switch-{name.replace('_', '-')}")
                    for name in joint.switches()
                ),
            ),
        ),
        Experiment(
            "outside", "check of ours", (OUTSIDE,),
            tuple(
                Shown(name, f"rows.{key}", "", "outside")
                for name, key in (("trunk, by ours", "trunk, ours"), ("trunk, by torchvision", "trunk, torchvision"),
                                  ("trained, ours", "ours"), ("trained, torchvision", "torchvision"))
            ),
        ),
        Experiment(
            "precision", "check of ours", (PRECISION,),
            tuple(Shown(name, f"rows.{name}", "", "precision") for name in ("float32", "bfloat16")),
        ),
        Experiment(
            "oracles", "Abstract", (DIAGNOSIS,), _diagnosed(_ORACLES, "last.oracles."), ("abstract.",),
            {name: name for name in ("AP", "AP50", "AP75", "AP90")},
        ),
    )
}  # fmt: skip


def get(name: str) -> Experiment:
    """An experiment by name.

    Raises:
        UserError: there is none; the nearest is suggested.
    """
    if name not in EXPERIMENTS:
        raise UserError(f"unknown ablation '{name}'{nearest(name, list(EXPERIMENTS))}")
    return EXPERIMENTS[name]


def run(experiment: Experiment, setting: Setting, seeds: Sequence[int]) -> list[Record]:
    """All records of an experiment; what is missing is made.

    Raises:
        UserError: the data cannot be used.
        Interrupted: Ctrl-C; the same command goes on.
    """
    return [record for source in experiment.sources for record in source.make(setting, seeds)]
