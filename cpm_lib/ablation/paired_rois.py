"""Claims of the paired run about its RoIs: what the stages train on, and what better RoIs bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpm_lib.ablation.paired_heads import PairedHeads
from cpm_lib.ablation.setting import Setting
from cpm_lib.ablation.statistics import Images
from cpm_lib.config import Config
from cpm_lib.data.loading import training_batches
from cpm_lib.evaluation import GroundTruth, match
from cpm_lib.evaluation.bootstrap import Interval
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.evaluation.matching import image_positions, paired_iou
from cpm_lib.model.cascade_mapping import is_copy
from cpm_lib.model.regions import match as match_regions
from cpm_lib.progress import progress

STAGES = ("falling1", "falling2", "falling3")
BINS = 10
"""Of 0.05, between IoU 0.5 and 1."""
TRAINING_IMAGES = 320


def training_ious(model: PairedHeads, setting: Setting, config: Config, seed: int) -> Tensor:
    """IoU of the RoIs that the trained stages would train on next, ground truth left out.

    Returns:
        counts [images, stages, `BINS`], of `TRAINING_IMAGES` images.
    """
    batches = max(1, min(TRAINING_IMAGES, len(setting.train)) // config.solver.images_per_batch)
    start = config.solver.iterations
    counts: list[Tensor] = []
    model.train()
    with torch.no_grad(), progress(total=batches, desc="training RoIs", unit="batch") as bar:
        for step, (images, targets) in enumerate(
            training_batches(setting.train, config, seed=seed, start=start, stop=start + batches)
        ):
            model.sampling.set(seed, start + step + 1)
            batch = model.prepare(images, targets)
            features = model.backbone(batch.pixels)
            samples = model.sample(model.proposals(features, batch)[0], batch)
            reached = model.train_chains(features, samples, batch)[1]
            table = torch.zeros(len(batch), len(STAGES), BINS, dtype=torch.float64)
            for number, stage in enumerate(STAGES):
                entering = reached[stage].entering
                ious = match_regions(entering, batch, model.config.conventions.pixel_plus_one)[0].cpu()
                for image, gt_boxes in enumerate(batch.gt_boxes):
                    index = entering.of_image(image)
                    index = index[~is_copy(entering.boxes[index], gt_boxes, "rows")].cpu()
                    place = ((ious[index] - 0.5) * 2 * BINS).long()
                    inside = place[(place >= 0) & (ious[index] >= 0.5)].clamp(max=BINS - 1)
                    table[image, number] += torch.bincount(inside, minlength=BINS)
            counts.append(table)
            bar.update()
    model.eval()
    return torch.cat(counts)


def entropy_gain(counts: Tensor) -> Interval:
    """Entropy in nats of the IoUs of all stages together minus that of stage 1, with its interval over images."""

    def statistic(sums: Tensor) -> Tensor:
        stages = sums.reshape(len(sums), len(STAGES), BINS)
        return _entropy(stages.sum(dim=1)) - _entropy(stages[:, 0])

    images = Images(len(counts))
    return images.interval(torch.arange(len(counts)), counts.flatten(1), statistic)


def gain_from_better_rois(detections: Sequence[Detection], ground_truth: Any) -> tuple[Interval, dict[str, Any]]:
    """IoU gained from RoIs of IoU 0.7..0.8 against 0.5..0.6 by the grid branch, minus the same by offsets.

    Returns:
        the difference, and the mean output IoU {way: {"worse": x, "better": x}} with the number of RoIs.
    """
    truth = GroundTruth.of(ground_truth)
    plain = [{**d, "boxes": d["proposals"]} for d in detections]
    entering = match(plain, truth)
    known = entering.gt_index >= 0
    outputs = {
        way: paired_iou(torch.cat([d["at"][name] for d in detections]), entering.gt_boxes)
        for way, name in (("grid", "falling1"), ("offset", "offset"))
    }
    groups = {
        "worse": known & (entering.ious >= 0.5) & (entering.ious < 0.6),
        "better": known & (entering.ious >= 0.7) & (entering.ious < 0.8),
    }
    difference = (outputs["grid"] - outputs["offset"]).nan_to_num()
    image = image_positions(entering.image_ids, truth)
    found = Images(len(truth.image_ids)).mean_difference(image, difference, groups["better"], groups["worse"])
    means = {way: {name: _mean(ious[group]) for name, group in groups.items()} for way, ious in outputs.items()}
    return found, {**means, "rois": {name: int(group.sum()) for name, group in groups.items()}}


def _entropy(counts: Tensor) -> Tensor:
    """[B, bins] -> [B]; NaN without a count."""
    share = counts / counts.sum(dim=1, keepdim=True)
    return torch.special.entr(share).sum(dim=1)


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
