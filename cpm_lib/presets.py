"""Presets fix the method, profiles fix the size; both are plain overrides of `Config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cpm_lib.config import CONVENTIONS, Config
from cpm_lib.errors import UserError
from cpm_lib.typed import nearest

Overrides = Mapping[str, Any]

_TRAIN = (
    "torchrun --nproc-per-node 8 -m cpm_lib train --preset {name} --data coco:ROOT,train --val coco:ROOT,val "
    "--set backbone.pretrained=true --out RUN"
)


@dataclass(frozen=True)
class Result:
    """A number that the paper or the authors' repository prints for a preset; none of them is ours."""

    source: str
    """Table of the paper, or file of the repository."""
    value: float
    split: Literal["val2017", "test-dev"] = "val2017"
    stage: int | None = None
    """1-based stage that was tested (`cpm eval --stages all`); None: the last."""
    metric: Literal["AP", "AP75", "seconds"] = "AP"
    """AP in 0..100; seconds per image on the paper's TITAN Xp."""
    options: str = ""
    """Further options of `cpm eval`."""

    def __str__(self) -> str:
        how = [self.split, *([f"stage {self.stage}"] if self.stage else []), *([self.options] if self.options else [])]
        return f"{self.source} ({', '.join(how)}): {self.metric} {self.value}"


@dataclass(frozen=True)
class Preset:
    """One row of the paper: what is switched on, what it costs and what it should give.

    `results` holds the number of the row itself first, then others of the same model. A reproduction within
    `tolerance` AP counts as agreeing.
    """

    name: str
    summary: str
    overrides: Overrides
    results: tuple[Result, ...] = ()
    tolerance: float = 0.5
    hardware: str = "8 GPUs x 2 images (the paper's: TITAN Xp)"

    @property
    def expected(self) -> float | None:
        """The first printed AP; None where it is illegible, not printed, or in doubt."""
        return next((result.value for result in self.results if result.metric == "AP"), None)

    @property
    def paper(self) -> str:
        """Everything printed for this model, in words."""
        return "; ".join(map(str, self.results)) or "no number is printed for this model"

    @property
    def cost(self) -> str:
        config = Config().override(self.overrides)
        solver, sizes = config.solver, config.input.train_sizes
        pixels = f"{min(sizes)}-{max(sizes)}" if len(sizes) > 1 else sizes[0]
        return (
            f"{solver.iterations // 1000}k iterations of {solver.images_per_batch} images, short side {pixels} px; "
            "time not measured by us"
        )

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


def _schedule(iterations: int, *steps: int) -> dict[str, Any]:
    return {"solver.iterations": iterations, "solver.steps": steps}


_OFF = _modules(False, False)
_EQUAL_IOU = {"cascade.iou_thresholds": (0.5, 0.5)}
_TWO_CONSTANT = _stages(2, (2.0, 2.0)) | _EQUAL_IOU
_GRID = {"detector": "grid"} | _stages(1) | _OFF
_FUSED = _GRID | {"grid.fusion": True}
_ORIGINAL = _FUSED | {"grid.head": "original"}
_OFFSET = {"classification.score_threshold": 0.05, "classification.nms_iou": 0.5}
_FASTER = {"detector": "faster"} | _stages(1) | _OFF | _OFFSET
_CASCADE = {"detector": "cascade"} | _stages(2) | _OFFSET | _schedule(90_000, 60_000, 80_000)
_R101 = {"backbone.name": "resnet101"}
_X101 = {"backbone.name": "resnext101_64x4d", "grid.rois_per_image": 32}
_DCN = _X101 | {"backbone.deformable": True}
# The one long side serves training and test here; the authors test at 1333 and train at 1400 (facts 13).
_MULTI_SCALE = {"input.train_sizes": (600, 640, 672, 704, 736, 768, 800, 864), "input.max_size": 1400}
# The authors' configurations for development: half schedule, small images, fusion, no scoring module (facts 13).
_HALF = (
    {"input.train_sizes": (600,), "input.test_size": 600, "input.max_size": 1000, "grid.fusion": True}
    | _schedule(45_000, 30_000, 40_000)
    | _OFF
)


def _by_stage(source: str, *values: float) -> tuple[Result, ...]:
    """AP of each stage tested alone, the last stage first."""
    return tuple(Result(source, value, stage=stage) for stage, value in reversed([*enumerate(values, start=1)]))


def _main() -> list[Preset]:
    rows: list[tuple[str, str, Overrides, list[Result]]] = [
        ("cpm", "CPM R-CNN, 3 stages, R-50-FPN: the authors' main configuration", {},
         [Result("Table 2", 41.5), Result("Table 7", 41.7, "test-dev")]),
        ("cpm-r101", "CPM R-CNN, R-101-FPN", _R101,
         [Result("Table 2", 43.2), Result("Table 7", 43.3, "test-dev"), Result("Table 8", 43.2),
          Result("Table 8", 0.14, metric="seconds")]),
        ("cpm-x101", "CPM R-CNN, ResNeXt-101-64x4d (no configuration published)", _X101,
         [Result("Table 7", 43.6, "test-dev")]),
        ("cpm-x101-dcn", "CPM R-CNN, ResNeXt-101-64x4d with deformable convolutions", _DCN,
         [Result("Table 7", 46.4, "test-dev")]),
        ("cpm-x101-dcn-ms", "the same with multi-scale training; with soft-NMS and multi-scale testing the best row",
         _DCN | _MULTI_SCALE, [Result("Table 7", 47.4, "test-dev"), Result("Table 7", 49.9, "test-dev", None, "AP",
                                                                           "--tta")]),
        ("cpm-2stage", "CPM R-CNN, 2 stages", _stages(2), [Result("Table 1", 41.3)]),
        ("grid", "Grid R-CNN Plus without fusion, one stage", _GRID, [Result("Table 1", 39.9)]),
        ("grid-fused", "Grid R-CNN Plus with feature fusion; the paper's number is mmdetection's", _FUSED,
         [Result("Table 2", 40.3)]),
        ("grid-fused-r101", "Grid R-CNN Plus with feature fusion, R-101-FPN; mmdetection's number", _FUSED | _R101,
         [Result("Table 2", 41.7)]),
        ("grid-original", "Grid R-CNN of CVPR 2019: whole maps, dilated convolutions", _ORIGINAL, []),
        ("grid-original-r101", "Grid R-CNN of CVPR 2019, R-101-FPN: the slow side of the speed table",
         _ORIGINAL | _R101, [Result("Table 8", 41.3), Result("Table 8", 0.29, metric="seconds")]),
        ("faster", "Faster R-CNN with FPN", _FASTER, [Result("Table 2", 37.6)]),
        ("faster-r101", "Faster R-CNN with FPN, R-101", _FASTER | _R101, [Result("Table 2", 39.9)]),
        ("cascade", "Cascade R-CNN, 2 stages", _CASCADE | _OFF, [Result("Table 3", 39.8)]),
        ("cascade-ism", "Cascade R-CNN with ISM", _CASCADE | _modules(True, False) | {"scoring.ism_weight": 1.5},
         [Result("Table 3", 39.9)]),
        ("cascade-rsm", "Cascade R-CNN with RSM", _CASCADE | _modules(False, True) | {"scoring.rsm_weight": 0.2},
         [Result("Table 3", 40.0)]),
        ("cascade-ism-rsm", "Cascade R-CNN with ISM and RSM",
         _CASCADE | _modules(True, True) | {"scoring.rsm_weight": 0.2}, [Result("Table 3", 40.2)]),
    ]  # fmt: skip
    return [Preset(name, summary, overrides, tuple(results)) for name, summary, overrides, results in rows]


def _table1() -> list[Preset]:
    """Rows of Table 1; where CMM is off the paper does not say whether one stage or two constant ones ran."""
    rows = [
        Preset(f"table1-{name}", summary, _stages(2) | _modules(ism, rsm), (Result("Table 1", expected),))
        for name, summary, ism, rsm, expected in (
            ("cmm", "CMM, 2 stages", False, False, 40.7),
            ("cmm-rsm", "CMM and RSM, 2 stages", False, True, 40.9),
            ("cmm-ism", "CMM and ISM, 2 stages", True, False, 41.1),
            ("all", "CMM, ISM and RSM, 2 stages", True, True, 41.3),
        )
    ]
    # The AP of the last row is illegible in our copy of the paper, its AP75 is not.
    without = (
        ("baseline", False, False, Result("Table 1", 39.9)),
        ("ism", True, False, Result("Table 1", 40.5)),
        ("rsm", False, True, Result("authors' README, for Table 1", 40.6)),
        ("ism-rsm", True, True, Result("Table 1", 44.2, metric="AP75")),
    )
    for name, ism, rsm, result in without:
        for suffix, how, stages in (
            ("1stage", "one stage", _stages(1)),
            ("2const", "two stages, ratio 2, IoU 0.5", _TWO_CONSTANT),
        ):
            summary = f"no CMM ({how}), {name}"
            rows.append(Preset(f"table1-{name}-{suffix}", summary, stages | _modules(ism, rsm), (result,)))
    return rows


def _ablations() -> list[Preset]:
    ism = _stages(1) | _modules(True, False)
    table4 = ((39.9,), (39.9, 40.7), (39.8, 40.7, 40.8))
    return [
        *(
            Preset(f"table4-{n}", f"CMM with {n} stage(s), no scoring module", _stages(n) | _OFF,
                   _by_stage("Table 4", *values))
            for n, values in enumerate(table4, start=1)
        ),
        Preset("table5-2-2-2", "constant mapping ratio 2 (no configuration published)",
               _stages(3, (2.0, 2.0, 2.0)) | _OFF, _by_stage("Table 5", 39.9, 40.4, 40.3)),
        Preset("table5-2-1.5-1.25", "falling mapping ratio", _stages(3) | _OFF, _by_stage("Table 5", 39.8, 40.7, 40.8)),
        Preset("table6-baseline", "one stage, no ISM", _stages(1) | _OFF, (Result("Table 6", 39.9),)),
        Preset("table6-l1", "ISM with l1 (no configuration published)", ism | {"scoring.ism_loss": "l1"},
               (Result("Table 6", 40.0),)),
        Preset("table6-smooth-l1", "ISM with smooth l1 (no configuration published)",
               ism | {"scoring.ism_loss": "smooth_l1"}, (Result("Table 6", 40.3),)),
        Preset("table6-l2", "ISM with l2", ism, (Result("Table 6", 40.5),)),
    ]  # fmt: skip


def _development() -> list[Preset]:
    """Two stages at the half schedule; AP from the comment at the head of a file, where no other file repeats it."""
    rows: tuple[tuple[str, str, tuple[float, float], bool, float | None], ...] = (
        ("mapping-ratio-1-1", "mapping_ratio/1-1", (1, 1), True, 22.9),
        ("mapping-ratio-1.5-1.25", "mapping_ratio/1.5-1.25", (1.5, 1.25), False, 36.2),
        ("mapping-ratio-2-1.25", "mapping_ratio/2-1.25", (2, 1.25), False, 36.5),
        # Twenty files repeat this one's header (36.7), so it proves nothing.
        ("mapping-ratio-2-1.5", "iou_strategy @56", (2, 1.5), False, None),
        ("mapping-ratio-2-1.5-iou-0.5", "iou_strategy @55", (2, 1.5), True, 36.3),
        ("mapping-ratio-2-1.75", "mapping_ratio/2-1.75", (2, 1.75), False, 36.6),
        ("mapping-ratio-2-2", "mapping_ratio/2-2", (2, 2), True, 36.2),
        ("mapping-ratio-2.5-2", "mapping_ratio/2.5-2", (2.5, 2), False, 36.7),
        ("no-mapping", "no_mapping", (1, 1), False, 23.3),
    )
    return [
        Preset(
            name,
            f"half schedule, ratios {ratios[0]:g} and {ratios[1]:g}, IoU 0.5 and {0.5 if equal else 0.6}",
            _HALF | _stages(2, ratios) | (_EQUAL_IOU if equal else {}),
            () if expected is None else (Result(f"authors' {file}", expected),),
        )
        for name, file, ratios, equal, expected in rows
    ]


PRESETS: Mapping[str, Preset] = {
    preset.name: preset for preset in (*_main(), *_table1(), *_ablations(), *_development())
}

_SMALL: dict[str, Any] = {
    "backbone.name": "slim", "backbone.norm": "batch", "backbone.frozen_layers": 0,
    "proposals.anchor_scale": 4.0, "proposals.inside_only": False,
    "classification.canonical_size": 128.0,
    "grid.start_bias": -4.6,
    "conventions.gt_append": 0.2,
    "solver.optimiser": "adamw", "solver.lr": 0.002, "solver.weight_decay": 0.05, "solver.schedule": "cosine",
    "solver.images_per_batch": 8, "solver.clip_norm": 10.0,
}  # fmt: skip

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "smoke",
            "64 px, a few iterations: tests",
            _SMALL
            | {
                "input.train_sizes": (64,), "input.test_size": 64, "input.max_size": 96,
                "backbone.slim_widths": (8, 12, 16, 24), "backbone.fpn_channels": 16,
                "proposals.pre_nms_train": 100, "proposals.post_nms_train": 50, "proposals.pre_nms_test": 50,
                "proposals.post_nms_test": 30,
                "classification.hidden": 32, "classification.rois_per_image": 16,
                "grid.channels_per_point": 4, "grid.convs": 2, "grid.norm_groups": 9, "grid.rois_per_image": 4,
                "solver.images_per_batch": 2, "solver.iterations": 6, "solver.warmup_iterations": 2,
                "solver.checkpoint_every": 3,
            },
        ),
        Profile(
            "quick",
            "128 px, slim ResNet: at most 3 minutes per training run on 2 CPU cores",
            _SMALL
            | {
                "input.train_sizes": (128,), "input.test_size": 128, "input.max_size": 192,
                "backbone.fpn_channels": 64,
                "proposals.anchors_per_image": 128, "proposals.pre_nms_train": 300, "proposals.post_nms_train": 200,
                "proposals.pre_nms_test": 200, "proposals.post_nms_test": 100,
                "classification.hidden": 128, "classification.rois_per_image": 32,
                "grid.channels_per_point": 8, "grid.convs": 4, "grid.rois_per_image": 8,
                "solver.precision": "bf16", "solver.iterations": 240,
                "solver.warmup_iterations": 20, "solver.checkpoint_every": 100,
            },
        ),
        Profile(
            "gpu",
            "320 px, ResNet-50: minutes per run on one data-centre GPU",
            {
                "input.train_sizes": (320,), "input.test_size": 320, "input.max_size": 512,
                "backbone.norm": "batch", "backbone.frozen_layers": 0,
                "proposals.anchor_scale": 4.0, "proposals.inside_only": False, "proposals.post_nms_train": 1000,
                "proposals.post_nms_test": 300,
                "classification.canonical_size": 128.0, "classification.rois_per_image": 64,
                "grid.channels_per_point": 32, "grid.rois_per_image": 16,
                "conventions.gt_append": 0.2,
                "solver.optimiser": "adamw", "solver.lr": 0.001, "solver.weight_decay": 0.05,
                "solver.schedule": "cosine", "solver.images_per_batch": 32, "solver.iterations": 900,
                "solver.warmup_iterations": 50, "solver.clip_norm": 10.0, "solver.precision": "bf16",
                "solver.checkpoint_every": 300,
            },
        ),
        Profile(
            "paper", "COCO, 8 GPUs x 2 images, 180k iterations: as published", {"input.skip_empty": True}
        ),
    )
}  # fmt: skip


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
    if conventions == "official" and config.detector == "cascade":
        config = config.override({"scoring.gamma": 1.0})  # their Cascade R-CNN never asks the RSM at test (facts 11.2)
    sized = PROFILES[profile].overrides
    if profile in ("smoke", "quick"):
        config = config.override({"backbone.caffe": False, "backbone.deformable": False})
    return config.override(sized)
