"""An outside check of ours: torchvision's own Faster R-CNN with the same weights, data and schedule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cpm_lib import evaluation, ledger, presets
from cpm_lib.ablation import joint
from cpm_lib.ablation.joint import METRICS, t_interval
from cpm_lib.ablation.paired import trunk
from cpm_lib.ablation.setting import Setting, cost, digest, place, spending, together, trained_on
from cpm_lib.bench import peer
from cpm_lib.config import Config
from cpm_lib.model.backbone import STRIDES
from cpm_lib.model.detector import Detection, Target
from cpm_lib.model.proposals import cell_anchors
from cpm_lib.model.sampling import Sampling
from cpm_lib.training import checkpoint
from cpm_lib.training.trainer import train

NAMES = {
    "backbone.": "backbone.backbone.",
    "proposals.head.": "rpn.head.",
    "classification.classifier.head.": "roi_heads.box_head.",
    "classification.classifier.predictor.": "roi_heads.box_predictor.cls_score.",
    "regressor.": "roi_heads.box_predictor.bbox_pred.",
}
"""Beginning of the name of a weight of our Faster R-CNN -> of torchvision's."""
CLAIM = "Our Faster R-CNN and torchvision's agree: the same weights at test, and after the same training"
NOTES = (
    "torchvision's detector around our backbone, from the same trunk, on the same batches for as many iterations, over "
    "the same anchors. Its own: matching, sampling, smooth l1 with beta 1/9, decoding, NMS. The trunk itself is "
    "evaluated by both; the rows of the seeds are trained. Intervals by Student's t over the seeds."
)


class Outside(nn.Module):
    """torchvision's Faster R-CNN with what our trainer asks of a detector."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__()
        side = config.input.test_size
        self.config, self.num_classes, self.sampling = config, num_classes, _GlobalSampling()
        self.detector = peer.build(config, num_classes, (side, side))
        # torchvision centres its anchors on the corners of cells, ours are on their centres;
        # weights of one mean little over the anchors of the other.
        scale, ratios = config.proposals.anchor_scale, config.proposals.ratios
        anchors = [cell_anchors(stride, scale, ratios, config.conventions.pixel_plus_one) for stride in STRIDES]
        self.detector.rpn.anchor_generator.cell_anchors = anchors

    def load_trunk(self, path: Path) -> None:
        """The weights of a Faster R-CNN of ours.

        Raises:
            UserError: of another backbone, or another number of classes.
        """
        theirs = {}
        for name, value in checkpoint.read_weights(path).items():
            beginning = next(ours for ours in NAMES if name.startswith(ours))
            theirs[NAMES[beginning] + name.removeprefix(beginning)] = value
        checkpoint.fit(self.detector, theirs, path)

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> dict[str, Tensor] | list[Detection]:
        if not self.training:
            found: list[Detection] = self.detector(images)
            return found
        assert targets is not None
        place = images[0].device
        wanted = ("boxes", "labels")
        return dict(self.detector(images, [{key: target[key].to(place) for key in wanted} for target in targets]))


class _GlobalSampling(Sampling):
    """torchvision draws its samples from torch's own generator, so that one is set for every iteration."""

    def set(self, seed: int, iteration: int) -> None:
        super().set(seed, iteration)
        torch.manual_seed(self.generator(0).initial_seed())


def record(setting: Setting, seeds: Sequence[int]) -> ledger.Record:
    """AP of both on the trunk's weights and after training: read if it holds these seeds, else made and
    written with these and those it held before.

    Raises:
        UserError: the data cannot be used.
        Interrupted: Ctrl-C; finished runs are kept.
    """
    config, id = presets.get("faster", setting.profile), setting.record_id("outside")
    known = setting.found(id, config)
    if known is not None and set(seeds) <= set(known.metrics["seeds"]):
        return known
    setting.check(id)
    seeds = together(seeds, known)
    ours = {seed: joint.run(setting, config, seed)["last"] for seed in seeds}
    theirs = {seed: _trained(setting, config, seed) for seed in seeds}
    same_weights = _same_weights(setting, config)
    rows: dict[str, Any] = {
        name: {metric: {"seeds": [by_seed[seed][metric] for seed in seeds]} for metric in METRICS}
        for name, by_seed in (("ours", ours), ("torchvision", theirs))
    }
    difference = {
        metric: t_interval([(theirs[seed][metric] or 0.0) - (ours[seed][metric] or 0.0) for seed in seeds])
        for metric in ("AP", "AP50", "AP75")
    }
    runs = [_run_folder(setting, config, seed) for seed in seeds]
    spent = [cost(run) for run in runs]
    made = ledger.make(
        id, CLAIM, setting.level, config=config, dataset=setting.val, inputs=setting.inputs(), notes=NOTES,
        device=trained_on([*runs, *(joint.run_folder(setting, config, seed) for seed in seeds)]),
        metrics={"seeds": list(seeds), "rows": rows | same_weights}, differences={"outside": {"trained": difference}},
        wall_s=sum(x["wall_s"] for x in spent), cpu_s=sum(x["cpu_s"] for x in spent),
    )  # fmt: skip
    ledger.write(made)
    return made


def _run_folder(setting: Setting, config: Config, seed: int) -> Path:
    return setting.run("outside", config, seed, trunk=digest(trunk(setting)))


def _trained(setting: Setting, config: Config, seed: int) -> joint.Metrics:
    torch.manual_seed(seed)
    model = Outside(config, len(setting.train.classes) + 1)
    model.load_trunk(trunk(setting))
    run = _run_folder(setting, config, seed)
    final = run / "final.safetensors"
    with spending(run):
        if not final.is_file():
            train(config, setting.train, run, model=model, seed=seed, resume=run.exists())  # type: ignore[arg-type]
        checkpoint.fit(model, checkpoint.read_weights(final), final)
        return _metrics(model, setting)


def _same_weights(setting: Setting, config: Config) -> dict[str, joint.Metrics]:
    """The trunk as it is, evaluated by both."""
    outside = Outside(config, len(setting.train.classes) + 1)
    outside.load_trunk(trunk(setting))
    models = {"trunk, ours": checkpoint.load(trunk(setting), device=place()), "trunk, torchvision": outside}
    return {name: _metrics(model, setting) for name, model in models.items()}


def _metrics(model: nn.Module, setting: Setting) -> joint.Metrics:
    found = evaluation.predict(model.eval(), setting.val, device=place())
    values = evaluation.evaluate(found, setting.val)
    return {name: values[name] for name in METRICS}
