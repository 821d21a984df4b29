"""CPM R-CNN: the forward pass in the order of the paper's Figure 2."""

from __future__ import annotations

import torch
from torch import Tensor

from cpm_lib.config import Config
from cpm_lib.model.cascade_mapping import CascadeMapping
from cpm_lib.model.classification import Candidates, ClassificationBranch
from cpm_lib.model.detector import Detection, Detector
from cpm_lib.model.fused_score import fuse
from cpm_lib.model.grid_branch import GridBranch
from cpm_lib.model.iou_scoring import IoUScoring
from cpm_lib.model.losses import Mean
from cpm_lib.model.regions import Batch, Regions
from cpm_lib.model.resampling_scoring import ResamplingScoring


class CPMRCNN(Detector):
    """Classification branch beside a cascade of grid branches (CMM), scored by ISM and RSM.

    `Detector.forward` runs backbone and proposals; what follows in Fig. 2 is `train_heads` and `detect`.
    With one stage and without the scoring modules it is Grid R-CNN. See `Detector` for inputs and outputs.
    """

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.classification = ClassificationBranch(config, num_classes, self.sampling)
        self.cascade = CascadeMapping(config, self.sampling)
        last = self.cascade.stages[-1]
        assert isinstance(last, GridBranch)
        self.iou_scoring = IoUScoring(config, last.feature_size) if config.scoring.ism else None
        self.resampling = ResamplingScoring(config, num_classes, self.sampling) if config.scoring.rsm else None

    def train_heads(self, features: list[Tensor], proposals: Regions, batch: Batch) -> dict[str, Mean]:
        """All losses of Eq. 5 but L_rpn."""
        conventions = self.config.conventions
        samples, losses = self.classification.train_step(features, proposals, batch)
        final, cascade_losses = self.cascade.train_step(features, samples, batch)
        losses |= cascade_losses
        if self.iou_scoring is not None:
            judged = final.leaving if conventions.ism_target == "output" else final.entering
            name = f"loss_iou_{self.config.cascade.stages}"
            losses[name] = self.iou_scoring.train_step(final.features, judged, batch)
        if self.resampling is not None:
            refined = final.leaving if conventions.rsm_positives == "output" else final.entering
            losses["loss_rescore"] = self.resampling.train_step(features, samples, refined, batch)
        return losses

    def detect(self, features: list[Tensor], proposals: Regions, batch: Batch) -> list[Detection]:
        """Classified proposals, each localised by the cascade and scored."""
        candidates = self.classification.detect(features, proposals, batch)
        found = self.localise_and_score(features, candidates)
        indices = [candidates.regions.of_image(number) for number in range(len(batch))]
        return [{key: value[index] for key, value in found.items()} for index in indices]

    def most_detections(self) -> int | None:
        """Without a limit of the RoIs (the authors' way) the detections have none either."""
        return None if self.config.conventions.rois_at_test is None else super().most_detections()

    def localise_and_score(self, features: list[Tensor], candidates: Candidates) -> Detection:
        """Boxes of every stage and the parts of the fused score, Eq. 1, 3 and 4, for candidates [D]."""
        regions = candidates.regions
        # The grid branch knows no classes: a RoI that is a candidate for several is refined once.
        rois, which = candidates.roi.unique(return_inverse=True)
        representative = torch.empty_like(rois).scatter_(0, which, torch.arange(len(which), device=which.device))
        stage_boxes, grid_features = self.cascade.refine(features, regions[representative])
        refined = regions[representative].with_boxes(stage_boxes[:, -1])
        iou = self.iou_scoring(grid_features)[which, 1] if self.iou_scoring is not None else None
        rsm = self.resampling(features, refined)[which, regions.labels] if self.resampling is not None else None
        scoring, clamp = self.config.scoring, self.config.conventions.ism_clamp
        found = {
            "boxes": stage_boxes[which, -1],
            "labels": regions.labels,
            "scores": fuse(regions.scores, iou, rsm, scoring.gamma, clamp=clamp),
            "cls_scores": regions.scores,
            "iou_scores": iou.clamp(0, 1) if iou is not None and clamp else iou,
            "rsm_scores": rsm,
            "stage_boxes": stage_boxes[which],
            "proposals": regions.boxes,
        }
        return {key: value for key, value in found.items() if value is not None}
