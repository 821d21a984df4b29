"""The diagnosis record: what the scores of a paired run know, and the numbers behind Figures 1, 5, 6 and 8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpm_lib import evaluation, ledger
from cpm_lib.ablation import diagnosis_claims, paired, paired_rows
from cpm_lib.ablation.diagnosis_claims import INCOMPLETE, Material, View
from cpm_lib.ablation.paired_record import enter
from cpm_lib.ablation.setting import Setting, cost, place, spending, trained_on
from cpm_lib.claims import read_claims
from cpm_lib.data import DetectionDataset
from cpm_lib.evaluation import GroundTruth
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.model import Detector
from cpm_lib.progress import progress
from cpm_lib.training import checkpoint

CLAIM = "What scores, boxes and proposals have to do with each other: Figures 1, 3, 5, 6 and the reasons in the text"
NOTES = (
    "Of the heads of the paired run with the same seed, chain falling, after stage 1 (one) and stage 3 (last); ISM: "
    "l2, target the output box. Classification scores and proposals are those of the frozen trunk. Intervals: "
    "bootstrap over the evaluation images. wall_s and cpu_s are those of the diagnosis alone."
)
_CUT_WITHIN = 0.5
"""Pixels from the border within which a box touches it."""


class AllProposals(nn.Module):
    """A detector that stops after its RPN: boxes, objectness as scores, label 1; never trained."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector, self.config = detector, detector.config

    def forward(self, images: list[Tensor]) -> list[Detection]:
        batch = self.detector.prepare(images, None)
        regions, _ = self.detector.proposals(self.detector.backbone(batch.pixels), batch)
        whole = {"boxes": regions.boxes, "scores": regions.scores, "labels": torch.ones_like(regions.labels)}
        found = [{key: value[regions.image == image] for key, value in whole.items()} for image in range(len(batch))]
        return self.detector.restore(found, batch, images)


def record(setting: Setting, seed: int) -> ledger.Record:
    """The diagnosis of the paired run of this setting and seed: read if it is there, else made and written.

    Raises:
        UserError: the data cannot be used.
        Interrupted: Ctrl-C; what was trained is kept.
    """
    config, id = paired.paired_config(setting.profile), setting.record_id("diagnosis", seed)
    known = setting.found(id, config)
    if known is not None:
        return known
    setting.check(id)
    found = paired.detections(setting, config, seed)
    run = setting.run("diagnosis", config, seed)
    with spending(run):
        proposals = evaluation.predict(AllProposals(_trunk(setting)), setting.val)
        metrics, differences = measure(found, proposals, setting.val, config.scoring.gamma)
    made = ledger.make(
        id, CLAIM, setting.level, config=config, dataset=setting.val, seed=seed,
        inputs=setting.inputs(), device=trained_on([paired.run_folder(setting, config, seed)]), metrics=metrics,
        differences=differences, notes=NOTES, **cost(run),
    )  # fmt: skip
    ledger.write(made)
    return made


def measure(
    found: Sequence[Detection], proposals: Sequence[Detection], dataset: DetectionDataset, gamma: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics for the figures, and differences by claim.

    Args:
        found: as `paired.detections` returns them; proposals: of `AllProposals`.
    """
    truth = GroundTruth.of(dataset)
    views = {name: paired_rows.view(found, stage, gamma) for name, stage in (("one", 1), ("last", 3))}
    material = Material(
        View(views["one"], truth, gamma), View(views["last"], truth, gamma), proposals, at_border(truth, dataset)
    )
    differences: dict[str, Any] = {}
    claims = [claim for claim in read_claims() if claim.id in diagnosis_claims.CLAIMS and _decidable(claim.id, truth)]
    for claim in progress(claims, desc="diagnosis", unit="claim"):
        enter(differences, claim, diagnosis_claims.CLAIMS[claim.id](material))
    metrics = {name: _figures(view, truth, gamma) for name, view in views.items()}
    metrics["proposals"] = {
        f"ratio_{ratio:g}".replace(".", "_"): evaluation.proposal_quality(
            proposals, truth, boxes="boxes", mapping_ratio=ratio
        )
        for ratio in (1.0, 2.0)
    }
    metrics["objects"] = _objects(truth, material.at_border)
    return metrics, differences


def at_border(truth: GroundTruth, dataset: DetectionDataset) -> Tensor:
    """[A] whether the box of an annotation touches the border of its image."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in dataset.coco["images"]}
    touching = []
    for annotation in truth.annotations:
        (x, y, width, height), (right, bottom) = annotation["bbox"], sizes[annotation["image_id"]]
        gaps = (x, y, right - x - width, bottom - y - height)
        touching.append(min(gaps) <= _CUT_WITHIN)
    return torch.tensor(touching, dtype=torch.bool)


def _figures(view: Sequence[Detection], truth: GroundTruth, gamma: float) -> dict[str, Any]:
    """Everything a page draws of one detector; what the annotations do not tell is left out."""
    figures: dict[str, Any] = {
        "score_quality": evaluation.score_quality(view, truth, min_iou=0.5, gamma=gamma),
        "hysteresis": evaluation.hysteresis(view, truth, gamma=gamma),
        "borders_by_stage": evaluation.borders_by_stage(view, truth),
        "error_bins": evaluation.error_bins(view, truth),
        "oracles": evaluation.oracles(view, truth),
    }
    keys = set(truth.annotations[0]) if truth.annotations else set()
    for by in ("truncation", "occlusion"):
        if {"truncation", "occlusion"} <= keys:
            found = evaluation.score_by_completeness(
                view,
                truth,
                by=by,
                edges=(0.0, INCOMPLETE, 0.3, 1.0),
                gamma=gamma,
            )
            figures[f"score_by_{by}"] = found
    if {"truncation", "full_bbox"} <= keys:
        figures["overall_appearance"] = evaluation.overall_appearance(
            view, truth, min_truncation=INCOMPLETE, gamma=gamma
        )
    return figures


def _objects(truth: GroundTruth, border: Tensor) -> dict[str, dict[str, float | int | None]]:
    """Number of objects, and the share that touches the border, by size."""
    sizes = evaluation.object_quality([], truth, boxes="boxes").sizes
    return {
        size: {"objects": int(mask.sum()), "at_border": float(border[mask].float().mean()) if mask.any() else None}
        for size, mask in sizes.items()
    }


def _decidable(id: str, truth: GroundTruth) -> bool:
    needed = diagnosis_claims.NEEDS.get(id, ())
    return all(key in annotation for annotation in truth.annotations for key in needed)


def _trunk(setting: Setting) -> Detector:
    wanted = {"classification.detections_per_image": 10_000}
    return checkpoint.load(paired.trunk(setting), device=place(), overrides=wanted)
