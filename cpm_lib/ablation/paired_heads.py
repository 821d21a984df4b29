"""The paired run: every head of the ablations side by side on one frozen trunk.

All see the same features and the same sampled RoIs, and heads of one form start from the same weights, so that two
rows differ by nothing but what they compare. No gradient passes from one head to another.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from cpm_lib import boxes as box_ops
from cpm_lib import presets
from cpm_lib.config import CascadeConfig, Config
from cpm_lib.errors import UserError
from cpm_lib.model.cascade_mapping import CascadeMapping, StageOutput, next_regions
from cpm_lib.model.classification import ClassificationBranch, RoIClassifier, TwoLayerHead, linear, sample_regions
from cpm_lib.model.detector import Detection, Detector
from cpm_lib.model.faster_rcnn import CODER_WEIGHTS, offset_loss
from cpm_lib.model.grid_branch import GridBranch
from cpm_lib.model.iou_scoring import IoUScoring
from cpm_lib.model.losses import Mean, cross_entropy
from cpm_lib.model.regions import Batch, Regions, RoIPooler
from cpm_lib.model.resampling_scoring import ResamplingScoring
from cpm_lib.model.sampling import Sampling
from cpm_lib.training import checkpoint

FALLING = presets.get("table5-2-1.5-1.25").cascade
CONSTANT = presets.get("table5-2-2-2").cascade
UNMAPPED = presets.get("mapping-ratio-1-1").cascade


def _level(cascade: CascadeConfig) -> CascadeConfig:
    """The same ratios without IoU filtering: the first threshold in every stage."""
    return replace(cascade, iou_thresholds=cascade.iou_thresholds[:1] * cascade.stages)


CHAINS = {
    "falling": FALLING,
    "constant": CONSTANT,
    "falling-level": _level(FALLING),
    "constant-level": _level(CONSTANT),
    "unmapped": UNMAPPED,
}
"""Chains of grid stages; `falling` and `constant` are the rows of Table 5, `level` ones keep one IoU threshold."""

SCORED = ("falling1", "falling2", "falling3")
"""Boxes that ISM and RSM judge."""
ISM = {
    **{f"{box}-{kind}-{target}": (box, kind, target)
       for box in SCORED for kind in ("l2", "l1", "smooth_l1") for target in ("output", "input")
       if kind == "l2" or box == "falling1"},
}  # fmt: skip
"""Name of every ISM: the boxes it judges, its loss (Table 6) and whose IoU it learns."""


class OffsetHead(nn.Module):
    """The offset-guided way of Faster R-CNN, as a head of its own: two hidden layers and one box per class."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__()
        self.pool = RoIPooler(7, config.classification.canonical_size, config.conventions.pixel_plus_one)
        self.head = TwoLayerHead(config.backbone.fpn_channels, config.classification.hidden)
        self.regressor = linear(config.classification.hidden, 4 * num_classes, std=0.001)

    def forward(self, features: list[Tensor], regions: Regions) -> Tensor:
        """Deltas [R, num_classes, 4]."""
        return self.regressor(self.head(self.pool(features, regions))).view(len(regions), -1, 4)


class PairedHeads(Detector):
    """A detector whose trunk is frozen and whose heads are all those of `CHAINS`, `ISM` and the controls.

    `boxes` names the columns of "stage_boxes" in a detection, `parts` those of "parts", both as `detect` fills them.
    """

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.classification = ClassificationBranch(config, num_classes, self.sampling)
        self.regressor = linear(config.classification.hidden, 4 * num_classes, std=0.001)
        for part in self.frozen():
            part.requires_grad_(False)
        self.dice = Sampling()
        self.chains = nn.ModuleDict()
        self.roots: dict[float, str] = {}
        for name, cascade in CHAINS.items():
            chain = CascadeMapping(replace(config, cascade=cascade), self.dice)
            if self.roots.setdefault(cascade.mapping_ratios[0], name) != name:
                chain.stages[0] = nn.Identity()  # that of the chain which starts in the same way
            self.chains[name] = chain
        stage = self._chain("falling").stages[0]
        assert isinstance(stage, GridBranch)
        self.iou_scoring = nn.ModuleDict(
            {
                name: IoUScoring(config.override({"scoring.ism_loss": kind}), stage.feature_size)
                for name, (_, kind, _) in ISM.items()
            }
        )
        self.resampling = nn.ModuleDict({box: ResamplingScoring(config, num_classes, self.dice) for box in SCORED})
        self.second = RoIClassifier(config, num_classes)
        """The control: a second classifier trained on the original RoIs, asked on the refined box."""
        self.offset = OffsetHead(config, num_classes)
        self._start_alike()
        self.boxes = [
            "offset",
            "faster",
            *(f"{name}{stage + 1}" for name in CHAINS for stage in self._own_stages(name)),
        ]
        self.parts = [*(f"ism-{name}" for name in ISM), *(f"{kind}-{box}" for box in SCORED for kind in ("rsm", "n0"))]

    def frozen(self) -> tuple[nn.Module, ...]:
        """The parts that are not trained."""
        return self.backbone, self.proposals, self.classification, self.regressor

    def load_trunk(self, path: str | Path) -> None:
        """Take over a trained Faster R-CNN.

        Raises:
            UserError: a tensor is missing or has another shape.
        """
        weights = checkpoint.read_weights(path)
        frozen = ("backbone.", "proposals.", "classification.", "regressor.")
        own = {name: value for name, value in self.state_dict().items() if name.startswith(frozen)}
        for name, value in own.items():
            if name not in weights or weights[name].shape != value.shape:
                raise UserError(f"{path}: no '{name}' of shape {list(value.shape)}; give a Faster R-CNN of this size")
        self.load_state_dict({name: weights[name] for name in own}, strict=False)

    def train(self, mode: bool = True) -> PairedHeads:
        super().train(mode)
        self.backbone.eval()  # running statistics stay as they are
        return self

    def train_heads(self, features: list[Tensor], proposals: Regions, batch: Batch) -> dict[str, Mean]:
        samples = self.sample(proposals, batch)
        losses, reached = self.train_chains(features, samples, batch)
        for name, (box, _, target) in ISM.items():
            stage, module = reached[box], self.iou_scoring[name]
            assert isinstance(module, IoUScoring)
            judged = stage.leaving if target == "output" else stage.entering
            losses[f"loss_iou_{name}"] = module.train_step(stage.features.detach(), judged, batch)
        for box, module in self.resampling.items():
            assert isinstance(module, ResamplingScoring)
            self._throw_dice()
            losses[f"loss_rescore_{box}"] = module.train_step(features, samples, reached[box].leaving, batch)
        losses["loss_second"] = cross_entropy(self.second(features, samples), samples.labels)
        plus_one = self.config.conventions.pixel_plus_one
        losses["loss_offset"] = offset_loss(self.offset(features, samples), samples, batch, plus_one)
        return losses

    def sample(self, proposals: Regions, batch: Batch) -> Regions:
        """The RoIs on which everything is trained, as the classification branch samples them."""
        config = self.config.classification
        return sample_regions(
            proposals, batch, config.rois_per_image, config.positive_fraction, config.positive_iou,
            self.sampling, self.config.conventions.pixel_plus_one,
        )  # fmt: skip

    def train_chains(
        self, features: list[Tensor], samples: Regions, batch: Batch
    ) -> tuple[dict[str, Mean], dict[str, StageOutput]]:
        """Losses of all chains, and what every stage leaves behind, by name: ``falling1``, ..."""
        losses: dict[str, Mean] = {}
        reached: dict[str, StageOutput] = {}
        self._throw_dice()
        first = self._chain("falling").first_regions(samples, batch)
        for name, cascade in CHAINS.items():
            chain = self._chain(name)
            self._throw_dice()
            for stage in range(cascade.stages):
                key = self._key(name, stage)
                if key not in reached:
                    before = reached[self._key(name, stage - 1)] if stage else None
                    regions = first
                    if before is not None:
                        regions = next_regions(before.entering, before.leaving, batch, chain.conventions, self.dice)
                    reached[key], losses[f"loss_grid_{key}"] = chain.train_stage(stage, features, regions, batch)
        return losses, reached

    def detect(self, features: list[Tensor], proposals: Regions, batch: Batch) -> list[Detection]:
        regions = self.classification.detect(features, proposals, batch).regions
        row = torch.arange(len(regions), device=regions.boxes.device)
        boxes = {"offset": self.offset(features, regions)}
        boxes["faster"] = self.regressor(self.classification.classifier.hidden(features, regions))
        boxes = {name: self._shifted(deltas, regions, row) for name, deltas in boxes.items()}
        grid_features = {}
        for name, cascade in CHAINS.items():
            moved = regions
            for stage in range(cascade.stages):
                key = self._key(name, stage)
                if key not in boxes:
                    moved, grid_features[key] = self._chain(name).refine_once(stage, features, moved)
                    boxes[key] = moved.boxes
                moved = regions.with_boxes(boxes[key])
        parts = {f"ism-{name}": self.iou_scoring[name](grid_features[box])[:, 1] for name, (box, *_) in ISM.items()}
        for box in SCORED:
            refined = regions.with_boxes(boxes[box])
            parts[f"rsm-{box}"] = self.resampling[box](features, refined)[row, regions.labels]
            parts[f"n0-{box}"] = self.second(features, refined).softmax(dim=1)[row, regions.labels]
        found = {
            "boxes": boxes["falling3"],
            "labels": regions.labels,
            "scores": regions.scores,
            "stage_boxes": torch.stack([boxes[name] for name in self.boxes], dim=1),
            "parts": torch.stack([parts[name].float() for name in self.parts], dim=1),
            "proposals": regions.boxes,
        }
        return [{key: value[regions.image == image] for key, value in found.items()} for image in range(len(batch))]

    def _shifted(self, deltas: Tensor, regions: Regions, row: Tensor) -> Tensor:
        own = deltas.view(len(regions), -1, 4)[row, regions.labels]
        return box_ops.decode(own, regions.boxes, CODER_WEIGHTS, self.config.conventions.pixel_plus_one)

    def _start_alike(self) -> None:
        """Heads of one form begin with the same weights, as far as they have been given any."""
        first = self._chain("falling").stages[0]
        for name in CHAINS:
            for stage in self._own_stages(name):
                self._chain(name).stages[stage] = first if (name, stage) == ("falling", 0) else copy.deepcopy(first)
        for modules in (self.iou_scoring, self.resampling):
            weights = next(iter(modules.values())).state_dict()
            for module in modules.values():
                module.load_state_dict(weights)
        resampling = self.resampling[SCORED[0]]
        assert isinstance(resampling, ResamplingScoring)
        self.second.load_state_dict(resampling.classifier.state_dict())
        self.offset.head.load_state_dict(self.second.head.state_dict())

    def _throw_dice(self) -> None:
        """The same draws of ground truth and samples for the next head as for the one before.

        Negative iterations, so that they are not those of the proposals and the classification branch.
        """
        self.dice.set(self.sampling.seed, -1 - self.sampling.iteration)

    def _chain(self, name: str) -> CascadeMapping:
        chain = self.chains[name]
        assert isinstance(chain, CascadeMapping)
        return chain

    def _own_stages(self, name: str) -> list[int]:
        """Stages of a chain, counted from 0, that no other chain lends it."""
        cascade = CHAINS[name]
        return list(range(0 if self.roots[cascade.mapping_ratios[0]] == name else 1, cascade.stages))

    def _key(self, name: str, stage: int) -> str:
        """Name of a chain's stage, counted from 0."""
        owner = self.roots[CHAINS[name].mapping_ratios[0]] if stage == 0 else name
        return f"{owner}{stage + 1}"
