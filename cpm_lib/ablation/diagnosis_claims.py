"""The claims of kind mechanism: what scores, boxes and proposals have to do with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cpm_lib.ablation.statistics import Images
from cpm_lib.evaluation import (
    GroundTruth,
    Resampling,
    coverage,
    hysteresis,
    match,
    object_quality,
    overall_appearance,
    regions,
    score_by_completeness,
    score_columns,
    summary,
)
from cpm_lib.evaluation.bootstrap import Interval
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.evaluation.matching import Matches, image_positions, paired_iou

Parts = dict[str, Interval]
INCOMPLETE = 0.1
"""Truncation above which an object counts as incomplete."""
GOOD = 0.5
"""Least IoU of boxes of which the correlations speak."""


@dataclass(frozen=True)
class View:
    """Detections of one detector, in the library's contract, against their ground truth."""

    detections: Sequence[Detection]
    truth: GroundTruth
    gamma: float

    @cached_property
    def matches(self) -> Matches:
        return match(self.detections, self.truth)

    @cached_property
    def good(self) -> Tensor:
        """[N] final boxes with an IoU of at least `GOOD`."""
        return (self.matches.ious >= GOOD) & (self.matches.gt_index >= 0)

    @cached_property
    def scores(self) -> dict[str, Tensor]:
        """By name, [N]; "cls_ism" is their product."""
        return score_columns(self.detections, self.gamma)

    @cached_property
    def image(self) -> Tensor:
        """[N] position of the image."""
        return image_positions(self.matches.image_ids, self.truth)

    @property
    def images(self) -> Images:
        return Images(len(self.truth.image_ids))

    def pearson_gain(self, score: str, other: str) -> Interval:
        """Correlation of one score with the true IoU minus that of another, good boxes."""
        kept = self.good
        return self.images.pearson_difference(
            self.image[kept], self.scores[score][kept], self.scores[other][kept], self.matches.ious[kept]
        )

    def annotated(self, key: str) -> Tensor:
        """[N] a number of the object that each detection overlaps most, NaN where there is none or it is unknown."""
        values = [float(a.get(key, torch.nan)) for a in self.truth.annotations]
        return torch.tensor([*values, torch.nan])[self.matches.gt_index]


@dataclass(frozen=True)
class Material:
    """What the claims are decided on.

    Attributes:
        one, last: the detector cut after its first stage, and whole; `one` is `last` where there is one stage.
        proposals: all boxes of the RPN per image, in "boxes".
        at_border: [A] annotations whose box touches the border of its image.
    """

    one: View
    last: View
    proposals: Sequence[Detection]
    at_border: Tensor

    def both(self, quantity: Callable[[View], Interval]) -> Parts:
        return {"one-stage": quantity(self.one), "last-stage": quantity(self.last)}


def misalignment_costs(material: Material) -> Parts:
    view, parts = material.last, {}
    counts = [len(d["labels"]) for d in view.detections]
    rows = {"cls": view.scores["cls_scores"], "true": view.scores["cls_scores"] * view.matches.ious}
    for name, scores in rows.items():
        split = zip(view.detections, scores.split(counts), strict=True)
        parts[name] = [{**d, "scores": values} for d, values in split]
    drawn = Resampling(view.truth, parts)
    return {"AP": summary(drawn.ap("true") - drawn.ap("cls"))}


def borders_outside_roi(material: Material) -> Parts:
    view = material.last
    entering = match(view.detections, view.truth, boxes="proposals")
    kept = (entering.ious >= GOOD) & (entering.gt_index >= 0)
    outside = 1 - coverage(entering.boxes[kept], entering.gt_boxes[kept], 1.0).points
    return {"points-outside": view.images.mean(view.image[kept], outside)}


def score_not_aligned(material: Material) -> Parts:
    view, kept = material.last, material.last.good
    scores = view.scores["cls_scores"][kept]
    return {"pearson": view.images.pearson(view.image[kept], scores, view.matches.ious[kept])}


def hysteresis_of_cls(material: Material) -> Parts:
    found = hysteresis(material.last.detections, material.last.truth, min_iou=GOOD)
    return {"final-minus-proposal": found["scores"]["cls_scores"]["final_minus_proposal"]}


def boxes_closer(material: Material) -> Parts:
    view = material.last
    entering = match(view.detections, view.truth, boxes="proposals")
    kept = (entering.ious >= GOOD) & (entering.gt_index >= 0)
    ious = [paired_iou(boxes, entering.gt_boxes)[kept] for boxes in regions(view.detections).values()]
    image = view.image[kept]
    steps = zip(ious[1:], ious[:-1], strict=True)
    return {f"stage{number}": view.images.mean(image, now - before) for number, (now, before) in enumerate(steps, 1)}


def ism_calibrates(material: Material) -> Parts:
    view, kept = material.last, material.last.good
    cls, product = (view.scores[name][kept] for name in ("cls_scores", "cls_ism"))
    return {"error": view.images.calibration_difference(view.image[kept], cls, product, view.matches.ious[kept])}


def incomplete_score_drop(material: Material) -> Parts:
    def drop(view: View) -> Interval:
        edges, iou_edges = (0.0, INCOMPLETE, 1.0), (0.8, 0.9, 1.0)
        found = score_by_completeness(view.detections, view.truth, edges=edges, iou_edges=iou_edges)
        return found["at_equal_iou"][-1]["scores"]["iou_scores"]

    return material.both(drop)


def rsm_lessens_drop(material: Material) -> Parts:
    view = material.last
    truncation, occlusion = view.annotated("truncation"), view.annotated("occlusion")
    well_placed = (view.matches.ious > 0.8) & (occlusion <= 0)
    incomplete, complete = well_placed & (truncation > INCOMPLETE), well_placed & (truncation <= 0)
    columns = []
    for score in (view.scores["rsm_scores"], view.scores["cls_ism"]):
        for side in (incomplete, complete):
            columns += [side.double(), side * score.double()]

    def statistic(sums: Tensor) -> Tensor:
        means = sums[:, 1::2] / sums[:, 0::2]
        return means[:, 0] / means[:, 1] - means[:, 2] / means[:, 3]

    return {"ratio": view.images.interval(view.image, torch.stack(columns, dim=1), statistic)}


def appearance(material: Material) -> Parts:
    found = overall_appearance(material.last.detections, material.last.truth, min_truncation=INCOMPLETE, min_iou=GOOD)
    return {"visible-minus-full": found["scores"]["iou_scores"]["visible_minus_full"]}


def large_proposals_worse(material: Material) -> Parts:
    view = material.last
    objects = object_quality(material.proposals, view.truth, boxes="boxes")
    return {"iou": _large_minus_medium(view.images, objects.image, objects.iou, objects.sizes)}


def large_heatmap_incomplete(material: Material) -> Parts:
    view = material.last
    objects = object_quality(material.proposals, view.truth, boxes="boxes", min_iou=GOOD, mapping_ratio=2.0)
    kept = objects.found
    sizes = {name: mask[kept] for name, mask in objects.sizes.items()}
    return {"share": _large_minus_medium(view.images, objects.image[kept], objects.cut[kept], sizes)}


def large_overestimated(material: Material) -> Parts:
    view, kept = material.last, material.last.good
    small, large = (limit**2 for limit in view.truth.area_limits)
    area = view.annotated("area")[kept]
    sizes = {"medium": (area >= small) & (area <= large), "large": area >= large}
    gap = (view.scores["cls_scores"] - view.matches.ious)[kept]
    return {"gap": _large_minus_medium(view.images, view.image[kept], gap, sizes)}


def large_objects_incomplete(material: Material) -> Parts:
    view, cut = material.last, material.at_border.double()
    objects = object_quality([], view.truth, boxes="boxes")
    large, small = objects.sizes["large"], objects.sizes["small"]
    return {"share": view.images.mean_difference(objects.image.clamp(min=0), cut, large, small)}


CLAIMS: Mapping[str, Callable[[Material], Parts]] = {
    "abstract.misalignment-costs": misalignment_costs,
    "fig1.borders-outside-roi": borders_outside_roi,
    "fig1.score-not-aligned": score_not_aligned,
    "sec1.hysteresis": hysteresis_of_cls,
    "sec1.cls-blind-to-quality": lambda m: m.both(lambda view: view.pearson_gain("iou_scores", "cls_scores")),
    "fig3.boxes-closer-each-stage": boxes_closer,
    "fig5.ism-follows-iou": lambda m: m.both(lambda view: view.pearson_gain("cls_ism", "cls_scores")),
    "fig5.ism-calibrates": ism_calibrates,
    "fig6.incomplete-score-drop": incomplete_score_drop,
    "fig6.rsm-lessens-drop": rsm_lessens_drop,
    "sec3-3-2.large-objects-incomplete": large_objects_incomplete,
    "sec3-3-2.overall-appearance": appearance,
    "sec4-1-3.rsm-follows-final-box": lambda m: {"pearson": m.last.pearson_gain("rsm_scores", "cls_scores")},
    "sec4-2-2.large-proposals-worse": large_proposals_worse,
    "sec4-2-2.large-heatmap-incomplete": large_heatmap_incomplete,
    "sec4-2-2.large-overestimated": large_overestimated,
}
"""Claim -> its quantities; the forms are those of the register."""

NEEDS: Mapping[str, tuple[str, ...]] = {
    "fig6.incomplete-score-drop": ("truncation", "occlusion"),
    "fig6.rsm-lessens-drop": ("truncation", "occlusion"),
    "sec3-3-2.overall-appearance": ("truncation", "full_bbox"),
}
"""Keys of the annotations without which a claim cannot be decided, so that photographs leave it out."""


def _large_minus_medium(images: Images, image: Tensor, values: Tensor, sizes: Mapping[str, Tensor]) -> Interval:
    return images.mean_difference(image.clamp(min=0), values, sizes["large"], sizes["medium"])
