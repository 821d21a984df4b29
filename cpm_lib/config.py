"""Every setting of the library as frozen dataclasses, with JSON in and out and typed overrides."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cpm_lib.errors import UserError
from cpm_lib.typed import check_names, replace_fields


@dataclass(frozen=True)
class Conventions:
    """Where a careful engineer and the authors' code differ. The defaults are `corrected`.

    Every field is one switch; flipping it alone is allowed and tested. "facts N.N" is the section of the facts
    sheet on the authors' code; `data/discrepancies.json` says for each switch what the paper states.
    """

    pixel_plus_one: bool = False
    """Boxes include their last pixel: sizes are x2-x1+1 in matching, coding, clipping and level assignment.
    True rounds the anchors as well and moves every box by up to a pixel, which counts for small objects
    (facts 1.5)."""
    clip_boxes: bool = True
    """Final boxes are clipped to the image. The authors' clamp acts on a copy: False leaves boxes outside the
    image, or inverted, as they are (facts 6.5)."""
    ism_target: Literal["output", "input"] = "output"
    """Whose IoU the ISM learns: that of the box the last stage puts out, which it judges at test, or of the RoI
    that enters the stage, ground truth among them, which says little about the box to be scored (facts 7)."""
    ism_index_slip: bool = False
    """The l2 loss of the ISM uses column numbers as row numbers too (the authors' slip). True gives the first
    two RoIs of each batch a huge extra weight, and all RoIs twice that of the loss that was meant (facts 7)."""
    ism_clamp: bool = True
    """The IoU score is clamped to [0, 1] before use. Raw, a negative value to the power of gamma is NaN and the
    detection comes last (facts 7, 9)."""
    rsm_positives: Literal["output", "input"] = "output"
    """Which boxes train the RSM beside the negatives: those the final stage produces (paper), or the RoIs that
    enter it with the ground truth, on which it is never asked at test (facts 8)."""
    rois_at_test: int | None = 96
    """Most RoIs per image refined at test, after NMS (paper, Sec. 3.4.3). None: no limit, as in the authors' code,
    which costs time where an image is crowded (facts 5)."""
    heatmap_rounding: Literal["floor", "trunc"] = "floor"
    """How a grid point becomes a heatmap cell. `trunc` puts points up to one cell left of or above the extended
    region into cell 0 instead of leaving them out (facts 6.3)."""
    joint_proposals: bool = False
    """In training the best proposals are chosen jointly over the images of one GPU, not for each image. True lets
    an image's number of proposals depend on its neighbour (facts 3.5)."""
    gt_copies: Literal["rows", "elements"] = "rows"
    """How copies of the ground truth are taken out between stages: whole boxes are compared, or coordinate by
    coordinate, which also drops some boxes that share a border with an object (facts 6.4)."""
    gt_append: float = 1.0
    """Probability, 0..1, that a ground-truth box joins the RoIs of a later stage; the authors always append it.
    With few RoIs per image these perfect boxes would be most of what the stage sees, so the small profiles use
    0.2 (facts 6.4)."""
    pad_before_normalise: bool = False
    """At test, pad with black before the mean is subtracted, as the authors do, though training pads with the
    mean. False does that in both (facts 1.3)."""
    authors_resize: bool = False
    """Resize as the authors: Pillow with truncated sizes in training, OpenCV's bilinear filter without
    antialiasing and rounded sizes at test. False: one rule, antialiased, for both (facts 1.2, 1.3)."""


OFFICIAL = Conventions(
    pixel_plus_one=True,
    clip_boxes=False,
    ism_target="input",
    ism_index_slip=True,
    ism_clamp=False,
    rsm_positives="input",
    rois_at_test=None,
    heatmap_rounding="trunc",
    joint_proposals=True,
    gt_copies="elements",
    gt_append=1.0,
    pad_before_normalise=True,
    authors_resize=True,
)
CONVENTIONS: Mapping[str, Conventions] = {"corrected": Conventions(), "official": OFFICIAL}


@dataclass(frozen=True)
class InputConfig:
    """Image size and augmentation. Sizes in pixels; the short side is resized, the long one capped."""

    train_sizes: tuple[int, ...] = (800,)
    test_size: int = 800
    max_size: int = 1333
    flip: float = 0.5
    size_divisor: int = 32
    skip_empty: bool = False
    """Train only on images with an object above one pixel wide and high, crowds aside, as the authors do on COCO
    (facts 1.1). The others would only teach what background is."""


@dataclass(frozen=True)
class BackboneConfig:
    """Feature extractor and feature pyramid."""

    name: Literal["resnet50", "resnet101", "resnext101_64x4d", "slim"] = "resnet50"
    caffe: bool = False
    """Caffe style: stride in the first 1x1, BGR 0..255 minus mean. Else torchvision's way."""
    deformable: bool = False
    norm: Literal["frozen", "batch"] = "frozen"
    frozen_layers: int = 2
    """Leading parts without gradient: 1 the stem, 2 the stem and layer1, ..."""
    slim_widths: tuple[int, int, int, int] = (24, 48, 96, 160)
    fpn_channels: int = 256
    pretrained: bool = False
    """Start from torchvision's ImageNet weights (downloaded once, checksum verified)."""


@dataclass(frozen=True)
class ProposalConfig:
    """Region proposal network (facts 3)."""

    anchor_scale: float = 8.0
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    anchors_per_image: int = 256
    positive_fraction: float = 0.5
    inside_only: bool = True
    """Only anchors fully inside the image are trained; small images need the others as well."""
    nms_iou: float = 0.7
    pre_nms_train: int = 2000
    post_nms_train: int = 2000
    pre_nms_test: int = 1000
    post_nms_test: int = 1000


@dataclass(frozen=True)
class ClassificationConfig:
    """Classification branch and the RoIs it samples (Sec. 3.4.1, facts 5)."""

    hidden: int = 1024
    positive_iou: float = 0.5
    rois_per_image: int = 512
    positive_fraction: float = 0.25
    score_threshold: float = 0.03
    nms_iou: float = 0.3
    detections_per_image: int = 100
    canonical_size: float = 224.0
    """RoIs of this side length are pooled from P4 (FPN's rule)."""


@dataclass(frozen=True)
class GridConfig:
    """Grid branch g_j (facts 6)."""

    head: Literal["plus", "original"] = "plus"
    """`plus`: stride 2, half-size windows (Grid R-CNN Plus and CPM); `original`: CVPR 2019, full maps."""
    points: int = 3
    channels_per_point: int = 64
    convs: int = 8
    fusion: bool = False
    norm_groups: int = 36
    map_size: int = 56
    radius: int = 1
    rois_per_image: int = 96
    loss_weight: float = 15.0
    recompute: bool = False
    """In training keep only the inputs of the branch and compute its inside again in the backward pass: less
    memory, a third more time, the same gradients."""
    chunk: int | None = None
    """RoIs that pass through the branch at a time; with `recompute` memory holds the inside of one chunk only."""
    start_bias: float | None = None
    """Bias of the last layer before training; -4.6 starts at probability 0.01, near the share of ones. None:
    as the authors, whose first iterations learn that most cells are empty (facts 6.1)."""


@dataclass(frozen=True)
class CascadeConfig:
    """Stages of the cascade mapping module (Eq. 1, 2), or of Cascade R-CNN's box heads."""

    mapping_ratios: tuple[float, ...] = (2.0, 1.5, 1.25)
    iou_thresholds: tuple[float, ...] = (0.5, 0.6, 0.7)
    stage_weights: tuple[float, ...] = (1.0, 0.5, 0.25)

    @property
    def stages(self) -> int:
        return len(self.mapping_ratios)


@dataclass(frozen=True)
class ScoringConfig:
    """ISM, RSM and the fused score (Eq. 3, 4, 6, 7)."""

    ism: bool = True
    ism_loss: Literal["l2", "l1", "smooth_l1"] = "l2"
    ism_weight: float = 1.0
    rsm: bool = True
    rsm_weight: float = 1.0
    gamma: float = 0.8


@dataclass(frozen=True)
class SolverConfig:
    """Optimisation. One iteration is one step over `images_per_batch` images in all processes."""

    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: Literal["code", "paper"] | float = "code"
    """`code` 1e-4 and `paper` 4e-5 (Sec. 3.4.2), or a number; never on biases and norm gains."""
    bias_lr_factor: float = 2.0
    schedule: Literal["step", "cosine"] = "step"
    iterations: int = 180_000
    steps: tuple[int, ...] = (120_000, 160_000)
    warmup_iterations: int = 500
    warmup_factor: float = 0.1
    images_per_batch: int = 16
    normalise: Literal["global", "process"] = "global"
    """Whose samples the losses are means over: those of all processes, so that the number of processes changes
    nothing, or each process's own, as in the authors' code."""
    accumulate: int = 1
    """Parts into which each process cuts its images, for small GPUs; gradients and losses are averaged over the
    parts. A part counts as a process: with `normalise` "process" 8 parts of 2 images are the authors' 8 GPUs."""
    clip_norm: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16`: autocast to bfloat16 on devices made for it, float32 elsewhere (`environment.has_bfloat16`)."""
    channels_last: bool = True
    """All channels of a pixel lie together in the maps of the backbone, as convolutions and RoIAlign like it."""
    checkpoint_every: int = 10_000
    checkpoints_kept: int = 2
    evaluate_every: int = 0
    """Evaluate on the validation data each so many iterations; 0: only at the end."""


@dataclass(frozen=True)
class Config:
    """One experiment: the method (preset), its size (profile) and the conventions."""

    preset: str = "cpm"
    profile: str = "paper"
    detector: Literal["cpm", "grid", "faster", "cascade"] = "cpm"
    conventions: Conventions = field(default_factory=Conventions)
    input: InputConfig = field(default_factory=InputConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    classification: ClassificationConfig = field(default_factory=ClassificationConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    cascade: CascadeConfig = field(default_factory=CascadeConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)

    def __post_init__(self) -> None:
        lengths = {len(self.cascade.mapping_ratios), len(self.cascade.iou_thresholds), len(self.cascade.stage_weights)}
        if len(lengths) != 1 or 0 in lengths:
            raise UserError(
                "cascade: mapping_ratios, iou_thresholds and stage_weights need one value per stage, got "
                f"{self.cascade.mapping_ratios}, {self.cascade.iou_thresholds}, {self.cascade.stage_weights}"
            )
        if self.solver.iterations < 1:
            raise UserError(f"solver.iterations is {self.solver.iterations}: at least 1 is needed")
        share = self.solver.images_per_batch / max(self.solver.accumulate, 1)
        if self.solver.accumulate < 1 or share != int(share):
            raise UserError(
                f"solver.accumulate is {self.solver.accumulate}: the {self.solver.images_per_batch} images of "
                "solver.images_per_batch must be a multiple of it"
            )
        if self.grid.points < 2:
            raise UserError(f"grid.points is {self.grid.points}: a box needs at least 2 points per side")
        if self.grid.chunk is not None and self.grid.chunk < 1:
            raise UserError(
                f"grid.chunk is {self.grid.chunk}: at least 1 RoI must pass at a time; null for all at once"
            )

    def override(self, values: Mapping[str, Any]) -> Config:
        """A copy with dotted fields replaced, e.g. ``{"solver.lr": 0.01}``.

        Raises:
            UserError: unknown field (the nearest name is suggested) or a value of the wrong type.
        """
        config = self
        nested: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            head, _, tail = key.partition(".")
            if tail:
                nested.setdefault(head, {})[tail] = value
            else:
                config = replace_fields(config, {head: value}, "")
        for head, inner in nested.items():
            check_names(type(config), [head], "")
            part = getattr(config, head)
            if not dataclasses.is_dataclass(part):
                raise UserError(f"{head} has no field '{next(iter(inner))}'")
            config = dataclasses.replace(config, **{head: replace_fields(part, inner, head + ".")})
        return config

    def override_text(self, assignments: Sequence[str]) -> Config:
        """Apply ``key=value`` strings of the command line; values are JSON, or bare words."""
        values: dict[str, Any] = {}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise UserError(f"'{assignment}' is not of the form key=value, e.g. solver.lr=0.01")
            try:
                values[key.strip()] = json.loads(text)
            except json.JSONDecodeError:
                values[key.strip()] = {"None": None, "True": True, "False": False}.get(text, text)
        return self.override(values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Inverse of `to_dict`; missing fields take their defaults.

        Raises:
            UserError: unknown field or a value of the wrong type.
        """
        check_names(cls, values, "")
        parts: dict[str, Any] = {}
        for name, value in values.items():
            default = getattr(_DEFAULT, name)
            if dataclasses.is_dataclass(default) and isinstance(value, Mapping):
                parts[name] = replace_fields(default, value, name + ".")
            else:
                parts[name] = value
        return replace_fields(_DEFAULT, parts, "")

    def write(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> Config:
        try:
            return cls.from_dict(json.loads(Path(path).read_text()))
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{path}: not a readable configuration ({error})") from error


_DEFAULT = Config()
