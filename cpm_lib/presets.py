"""Presets fix the method, profiles fix the size; both are plain overrides of `Config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cpm_lib.config import CONVENTIONS, Config, nearest
from cpm_lib.errors import UserError

Overrides = Mapping[str, Any]

_TRAIN = (
    "torchrun --nproc-per-node 8 -m cpm_lib train --preset {name} --data coco:ROOT,train --val coco:ROOT,val --out RUN"
)


@dataclass(frozen=True)
class Preset:
    """One row of the paper: what is switched on, what it costs and what it should give.

    `expected` is the paper's AP on COCO val2017 after 180k iterations of 16 images (None: not printed or
    illegible); a reproduction within `tolerance` AP counts as agreeing.
    """

    name: str
    summary: str
    paper: str
    overrides: Overrides
    expected: float | None = None
    tolerance: float = 0.5
    hardware: str = "8 GPUs x 2 images"
    cost: str = "180k iterations, about 2 days on 8 GPUs of the paper's time; not measured by us"

    @property
    def command(self) -> str:
        return _TRAIN.format(name=self.name)


@dataclass(frozen=True)
class Profile:
    """A size: the same code with other widths, resolutions and schedules."""

    name: str
    summary: str
    overrides: Overrides = field(default_factory=dict)


def _stages(number: int, ratios: tuple[float, ...] = (2.0, 1.5, 1.25)) -> dict[str, Any]:
    return {
        "cascade.mapping_ratios": ratios[:number],
        "cascade.iou_thresholds": (0.5, 0.6, 0.7)[:number],
        "cascade.stage_weights": (1.0, 0.5, 0.25)[:number],
    }


def _modules(ism: bool, rsm: bool) -> dict[str, Any]:
    return {"scoring.ism": ism, "scoring.rsm": rsm}


_TWO_CONSTANT = _stages(2, (2.0, 2.0)) | {"cascade.iou_thresholds": (0.5, 0.5)}
_GRID = {"detector": "grid"} | _stages(1) | _modules(False, False)
_OFFSET = {"classification.score_threshold": 0.05, "classification.nms_iou": 0.5}
_FASTER = {"detector": "faster"} | _stages(1) | _modules(False, False) | _OFFSET
_CASCADE = {"detector": "cascade"} | _stages(2) | _OFFSET
_X101 = {"backbone.name": "resnext101_64x4d", "grid.rois_per_image": 32}


def _table1() -> list[Preset]:
    """Rows of Table 1; where CMM is off the paper does not say whether one stage or two constant ones ran."""
    one, two = _stages(1), _TWO_CONSTANT
    rows = [
        Preset("table1-cmm", "CMM", "Table 1 CMM; Table 4, 2 stages", _stages(2) | _modules(False, False), 40.7),
        Preset("table1-cmm-rsm", "CMM and RSM", "Table 1 CMM+RSM", _stages(2) | _modules(False, True), 40.9),
        Preset("table1-cmm-ism", "CMM and ISM", "Table 1 CMM+ISM", _stages(2) | _modules(True, False), 41.1),
        Preset("table1-all", "CMM, ISM and RSM", "Table 1 all", _stages(2) | _modules(True, True), 41.3),
    ]
    without = [("baseline", False, False, 39.9), ("ism", True, False, 40.5), ("rsm", False, True, 40.6),
               ("ism-rsm", True, True, None)]  # fmt: skip
    for name, ism, rsm, expected in without:
        for suffix, how, stages in (("1stage", "one stage", one), ("2const", "two stages, ratio 2, IoU 0.5", two)):
            rows.append(
                Preset(
                    f"table1-{name}-{suffix}", f"no CMM ({how}), {name}", f"Table 1 {name}",
                    stages | _modules(ism, rsm), expected,
                )
            )  # fmt: skip
    return rows


def _tables() -> list[Preset]:
    off = _modules(False, False)
    ism = _modules(True, False)
    return [
        *_table1(),
        Preset("table4-1", "one grid stage", "Table 4, 1 stage", _stages(1) | off, 39.9),
        Preset("table4-2", "two stages", "Table 4, 2 stages", _stages(2) | off, 40.7),
        Preset("table4-3", "three stages", "Table 4, 3 stages", _stages(3) | off, 40.8),
        Preset("table5-2-2-2", "constant mapping ratio 2", "Table 5 (2,2,2)", _stages(3, (2.0, 2.0, 2.0)) | off, 40.3),
        Preset("table5-2-1.5-1.25", "falling mapping ratio", "Table 5 (2,1.5,1.25)", _stages(3) | off, 40.8),
        Preset("table6-baseline", "no ISM", "Table 6 baseline", _stages(1) | off, 39.9),
        Preset("table6-l1", "ISM with l1", "Table 6 l1", _stages(1) | ism | {"scoring.ism_loss": "l1"}, 40.0),
        Preset("table6-smooth-l1", "ISM with smooth l1", "Table 6 smooth l1",
               _stages(1) | ism | {"scoring.ism_loss": "smooth_l1"}, 40.3),
        Preset("table6-l2", "ISM with l2", "Table 6 l2", _stages(1) | ism, 40.5),
    ]  # fmt: skip


def _all() -> list[Preset]:
    return [
        Preset("cpm", "CPM R-CNN, 3 stages, R-50-FPN: the authors' main configuration", "Table 2, R-50", {}, 41.5),
        Preset("cpm-r101", "CPM R-CNN, R-101-FPN", "Table 2, R-101", {"backbone.name": "resnet101"}, 43.2),
        Preset("cpm-x101", "CPM R-CNN, ResNeXt-101-64x4d", "Table 7 (test-dev)", _X101, 43.6),
        Preset("cpm-x101-dcn", "CPM R-CNN, ResNeXt-101-64x4d with deformable convolutions", "Table 7 (test-dev)",
               _X101 | {"backbone.deformable": True}, 46.4),
        Preset("cpm-2stage", "CPM R-CNN, 2 stages", "Table 1, all modules", _stages(2), 41.3),
        Preset("grid", "Grid R-CNN Plus without fusion, one stage", "Table 1 baseline", _GRID, 39.9),
        Preset("grid-fused", "Grid R-CNN Plus with feature fusion, as in mmdetection", "Table 2, Grid R-CNN",
               _GRID | {"grid.fusion": True}, 40.3),
        Preset("grid-original", "Grid R-CNN of CVPR 2019: whole maps, dilated convolutions", "Table 8, Grid R-CNN",
               _GRID | {"grid.fusion": True, "grid.head": "original"}),
        Preset("faster", "Faster R-CNN with FPN", "Table 2, Faster R-CNN", _FASTER, 37.6),
        Preset("cascade", "Cascade R-CNN, 2 stages", "Table 3, none", _CASCADE | _modules(False, False), 39.8),
        Preset("cascade-ism", "Cascade R-CNN with ISM", "Table 3, +ISM",
               _CASCADE | _modules(True, False) | {"scoring.ism_weight": 1.5}, 39.9),
        Preset("cascade-rsm", "Cascade R-CNN with RSM", "Table 3, +RSM",
               _CASCADE | _modules(False, True) | {"scoring.rsm_weight": 0.2}, 40.0),
        Preset("cascade-ism-rsm", "Cascade R-CNN with ISM and RSM", "Table 3, +ISM&RSM",
               _CASCADE | _modules(True, True) | {"scoring.rsm_weight": 0.2}, 40.2),
        *_tables(),
    ]  # fmt: skip


PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _all()}

_SMALL: dict[str, Any] = {
    "backbone.name": "slim",
    "backbone.norm": "batch",
    "backbone.frozen_layers": 0,
    "proposals.anchor_scale": 4.0,
    "proposals.inside_only": False,
    "classification.canonical_size": 128.0,
    "grid.start_bias": -4.6,
    "conventions.gt_append": 0.2,
    "solver.optimiser": "adamw",
    "solver.lr": 0.002,
    "solver.weight_decay": 0.05,
    "solver.schedule": "cosine",
    "solver.images_per_batch": 8,
    "solver.clip_norm": 10.0,
}

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "smoke",
            "64 px, a few iterations: tests",
            _SMALL
            | {
                "input.train_sizes": (64,),
                "input.test_size": 64,
                "input.max_size": 96,
                "backbone.slim_widths": (8, 12, 16, 24),
                "backbone.fpn_channels": 16,
                "proposals.pre_nms_train": 100,
                "proposals.post_nms_train": 50,
                "proposals.pre_nms_test": 50,
                "proposals.post_nms_test": 30,
                "classification.hidden": 32,
                "classification.rois_per_image": 16,
                "grid.channels_per_point": 4,
                "grid.convs": 2,
                "grid.norm_groups": 9,
                "grid.rois_per_image": 4,
                "solver.images_per_batch": 2,
                "solver.iterations": 6,
                "solver.warmup_iterations": 2,
                "solver.checkpoint_every": 3,
            },
        ),
        Profile(
            "quick",
            "128 px, slim ResNet: at most 3 minutes per training run on 2 CPU cores",
            _SMALL
            | {
                "input.train_sizes": (128,),
                "input.test_size": 128,
                "input.max_size": 192,
                "backbone.fpn_channels": 64,
                "proposals.anchors_per_image": 128,
                "proposals.pre_nms_train": 300,
                "proposals.post_nms_train": 200,
                "proposals.pre_nms_test": 200,
                "proposals.post_nms_test": 100,
                "classification.hidden": 128,
                "classification.rois_per_image": 32,
                "grid.channels_per_point": 8,
                "grid.convs": 4,
                "grid.rois_per_image": 8,
                "solver.precision": "bf16",
                "solver.channels_last": True,
                "solver.iterations": 400,
                "solver.warmup_iterations": 20,
                "solver.checkpoint_every": 100,
            },
        ),
        Profile(
            "gpu",
            "320 px, ResNet-50: minutes per run on one data-centre GPU",
            {
                "input.train_sizes": (320,),
                "input.test_size": 320,
                "input.max_size": 512,
                "backbone.norm": "batch",
                "backbone.frozen_layers": 0,
                "proposals.anchor_scale": 4.0,
                "proposals.inside_only": False,
                "proposals.post_nms_train": 1000,
                "proposals.post_nms_test": 300,
                "classification.canonical_size": 128.0,
                "classification.rois_per_image": 64,
                "grid.channels_per_point": 32,
                "grid.rois_per_image": 16,
                "conventions.gt_append": 0.2,
                "solver.optimiser": "adamw",
                "solver.lr": 0.001,
                "solver.weight_decay": 0.05,
                "solver.schedule": "cosine",
                "solver.images_per_batch": 32,
                "solver.iterations": 900,
                "solver.warmup_iterations": 50,
                "solver.clip_norm": 10.0,
                "solver.precision": "bf16",
                "solver.channels_last": True,
                "solver.checkpoint_every": 300,
            },
        ),
        Profile("paper", "COCO, 8 GPUs x 2 images, 180k iterations: as published"),
    )
}


def get(preset: str, profile: str = "paper", conventions: str = "corrected") -> Config:
    """The configuration of a preset at a size, under one of the two sets of conventions.

    Raises:
        UserError: unknown name; the nearest one is suggested.
    """
    for kind, name, known in (
        ("preset", preset, PRESETS),
        ("profile", profile, PROFILES),
        ("conventions", conventions, CONVENTIONS),
    ):
        if name not in known:
            raise UserError(f"unknown {kind} '{name}'{nearest(name, list(known))}")
    config = replace(Config(), preset=preset, profile=profile, conventions=CONVENTIONS[conventions])
    # The authors' weights expect their own backbone.
    config = config.override({"backbone.caffe": conventions == "official"})
    config = config.override(PRESETS[preset].overrides)
    sized = PROFILES[profile].overrides
    if profile in ("smoke", "quick"):
        config = config.override({"backbone.caffe": False, "backbone.deformable": False})
    return config.override(sized)
