"""Heads and whole detectors filled by the rule: evaluation, a training step, and Cascade R-CNN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from cpm_lib import presets
from cpm_lib.config import Config
from cpm_lib.model import Detector, build_model
from cpm_lib.model import cascade_rcnn as cascade_module
from cpm_lib.model.fused_score import fuse
from cpm_lib.model.grid_branch import GridBranch
from cpm_lib.model.iou_scoring import IoUScoring, iou_targets
from cpm_lib.model.regions import Batch, Regions
from cpm_lib.official_names import official_name
from cpm_lib.training import optimisation
from tests.golden.filling import NUM_CLASSES, fill, filled_model
from tests.golden.harness import Recording, check, image_names, rule

# In the plain layout, for which the convolutions of the harness are made.
OFFICIAL = presets.get("cpm", "paper", "official").override({"solver.channels_last": False})
CHANNELS = [0, 85, 170, 255]
PIXELS, SCORES = 1e-3, 1e-5
"""Most that boxes and scores may differ at the end."""
MAPS = 1e-5
"""What is summed over thousands of terms in another order, relative to the largest value of the map. Small values can
be compared no closer: the same heads in float64 differ from (a) by 7e-5 of values of a hundredth of the largest."""


def _load(module: nn.Module, prefix: str, config: Config, value: Callable[[str, Tensor], Tensor]) -> None:
    """Fill `module`, which is `prefix` of a detector, with `value(the authors' key, our tensor)`."""
    own = module.state_dict()
    module.load_state_dict({k: value(official_name(prefix + k, config), v) for k, v in own.items()})


def _rule(key: str, like: Tensor) -> Tensor:
    return fill(key, *like.shape)


# ---- (a) heads


@check("a1_grid_head_small_nofused")
@check("a1_grid_head_small_fused")
@torch.inference_mode()
def small_head(r: Recording) -> None:
    shapes = {key.removeprefix("q/"): r.arrays[key].shape for key in r.keys("q/")}
    config = OFFICIAL.override(
        {
            "cascade.mapping_ratios": [2.0], "cascade.iou_thresholds": [0.5], "cascade.stage_weights": [1.0],
            "grid.channels_per_point": shapes["out.deconv_1.weight"][1],
            "grid.convs": sum(key.startswith("head.convs.") and key.endswith(".0.weight") for key in shapes),
            "grid.fusion": any(key.startswith("head.forder_trans.") for key in shapes),
        }
    )  # fmt: skip

    def stored(key: str, like: Tensor) -> Tensor:
        name = key.replace("Grid_Cascade_RCNN.Head_grid_0.", "head.").replace(
            "Grid_Cascade_RCNN.Output_grid_0.", "out."
        )
        offset, q, scale = (r.tensor(f"{part}/{name}").float() for part in ("offset", "q", "scale"))
        return offset + q * scale

    branch = GridBranch(config.grid, shapes["head.convs.0.0.weight"][1])
    _load(branch, "cascade.stages.0.", config, stored)
    pooled = r.tensor("roi_features")
    output = branch.eval()(pooled)
    _map(r, "feat7", output.features)
    if branch.fusion is None:
        _map(r, "heatmap", output.heatmaps)
    else:
        _map(r, "x_so", branch.fusion(output.features))
        _map(r, "heatmap_fused_eval", output.heatmaps)
        _map(r, "heatmap_unfused_train", branch.train()(pooled).unfused)
    scoring = IoUScoring(config, branch.feature_size)
    _load(scoring, "iou_scoring.", config, stored)
    _map(r, "iou_logits", scoring(output.features))


@check("a2_grid_head_full")
@torch.inference_mode()
def full_head(r: Recording) -> None:
    images = len(r.arrays["stage0_feat7"])
    pooled = rule("a2_input", images, OFFICIAL.backbone.fpn_channels, 14, 14)
    for stage in sorted({int(key[len("stage")]) for key in r.keys("stage")}):
        branch = GridBranch(OFFICIAL.grid, pooled.shape[1]).eval()
        _load(branch, f"cascade.stages.{stage}.", OFFICIAL, _rule)
        output = branch(pooled)
        _map(r, f"stage{stage}_feat7", output.features)
        _map(r, f"stage{stage}_heatmap", output.heatmaps)
        if f"stage{stage}_iou_logits" in r.arrays:
            scoring = IoUScoring(OFFICIAL, branch.feature_size)
            _load(scoring, "iou_scoring.", OFFICIAL, _rule)
            r.close(f"stage{stage}_iou_logits", scoring(output.features))


# ---- (l) evaluation from the picture to the scores


class Spy:
    """Keeps what the parts of a detector get and give during one call."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Any]] = {}
        self.entered: dict[str, list[Any]] = {}

    def watch(self, name: str, owner: nn.Module, method: str = "forward") -> None:
        inner = getattr(owner, method)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.entered.setdefault(name, []).append(args)
            self.seen.setdefault(name, []).append(inner(*args, **kwargs))
            return self.seen[name][-1]

        setattr(owner, method, wrapper)

    def one(self, name: str) -> Any:
        (value,) = self.seen[name]
        return value


def _watched(model: Detector) -> Spy:
    spy = Spy()
    spy.watch("prepare", model, "prepare")
    spy.watch("body", model.backbone, "body_maps")
    spy.watch("backbone", model.backbone)
    spy.watch("rpn", model.proposals.head)
    spy.watch("proposals", model.proposals)
    return spy


def _cpm_watched(model: Detector) -> Spy:
    spy = _watched(model)
    parts: Any = model
    spy.watch("classes", parts.classification.classifier)
    for name in ("detect", "train_step"):
        spy.watch(name, parts.classification, name)
    spy.watch("found", parts, "localise_and_score")
    spy.watch("cascade", parts.cascade, "train_step")
    spy.watch("select", parts.cascade, "select")
    for stage in parts.cascade.stages:
        spy.watch("stages", stage)
    spy.watch("ism", parts.iou_scoring)
    spy.watch("rsm", parts.resampling.classifier)
    return spy


@check("l1_e2e_eval_128x160")
@check("l2_e2e_eval_120x150_padded")
@torch.inference_mode()
def evaluation(r: Recording) -> None:
    image = r.tensor("image_bgr_uint8").flip(2).permute(2, 0, 1).float() / 255
    size = {"input.test_size": min(image.shape[1:]), "input.max_size": max(image.shape[1:])}
    model = filled_model(OFFICIAL.override(size | {"proposals.post_nms_test": len(r.arrays["proposals"])})).eval()
    spy = _cpm_watched(model)
    (answer,) = model([image])

    pixels = spy.one("prepare").pixels
    r.exact("padded_input_shape", torch.tensor(pixels.shape))
    r.close("padded_input_corner", pixels[0, :, -1, -1])
    for letter, first, maps in (("C", 2, spy.one("body")), ("P", 2, spy.one("backbone"))):
        for level, values in enumerate(maps, start=first):
            _map(r, f"{letter}{level}_ch", values[0, CHANNELS])
            r.close(f"{letter}{level}_stats", torch.stack((values.double().mean(), values.double().std())))
    for level, (logits, deltas) in enumerate(zip(*spy.one("rpn"), strict=True), start=2):
        _map(r, f"rpn_logits_p{level}", logits[0])
        _map(r, f"rpn_deltas_p{level}", deltas[0])
    proposals, _ = spy.one("proposals")
    r.within("proposals", proposals.boxes, PIXELS)
    r.within("proposal_objectness", proposals.scores, SCORES)
    _map(r, "cls_logits", spy.one("classes"))

    candidates, found = spy.one("detect"), spy.one("found")
    r.within("cls_boxes", candidates.regions.boxes, PIXELS)
    r.within("cls_scores", candidates.regions.scores, SCORES)
    r.exact("cls_labels", candidates.regions.labels)
    # The parts look once at a RoI that is a candidate for several classes; the authors' as often as it is one.
    which = candidates.roi.unique(return_inverse=True)[1]
    heatmaps = [output.heatmaps[which] for output in spy.seen["stages"]]
    _map(r, "stage1_heatmap_first2", heatmaps[0][:2])
    for stage, boxes in enumerate(found["stage_boxes"].unbind(dim=1), start=1):
        r.within(f"stage{stage}_boxes", boxes, PIXELS)
    best = torch.stack([maps.flatten(2).topk(2).values.diff().abs().min() for maps in heatmaps])
    r.within("min_heatmap_margin_per_stage", best.double(), 1e-4)
    _map(r, "ism_logits", spy.one("ism")[which])
    _map(r, "rsm_logits", spy.one("rsm")[which])
    r.within("merged_scores", fuse(found["cls_scores"], found["iou_scores"], None, 0.8, clamp=False), SCORES)
    r.within("final_boxes", found["boxes"], PIXELS)
    r.within("final_scores", found["scores"], SCORES)
    r.exact("final_labels", found["labels"])
    order = found["scores"].nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    same = all(torch.equal(answer[key].nan_to_num(), found[key][order].nan_to_num()) for key in found)
    r.require(same, "the detector's answer is not what its parts found, by falling score")


def _map(r: Recording, key: str, ours: Tensor) -> None:
    r.within(key, ours, MAPS * r.largest(key))


# ---- (m) one step of training


@check("m_train_step")
def training_step(r: Recording) -> None:
    unlimited = 10**6
    images = image_names(r)
    everything = sum(len(r.arrays[f"{im}_rpn_proposals_plus_gt"]) - len(r.arrays[f"{im}_gt"]) for im in images)
    config = OFFICIAL.override(
        {
            "proposals.anchors_per_image": unlimited, "classification.rois_per_image": unlimited,
            "grid.rois_per_image": unlimited, "proposals.post_nms_train": everything,
        }
    )  # fmt: skip
    model: Any = filled_model(config, shared=False).train()
    spy = _cpm_watched(model)
    pixels = [r.tensor(f"{im}_input_uint8").flip(2).permute(2, 0, 1).float() / 255 for im in images]
    targets = [{"boxes": r.tensor(f"{im}_gt"), "labels": r.tensor(f"{im}_gt_labels")} for im in images]
    losses = model(pixels, targets)

    def per_image(name: str, ours: Regions, labels: bool = False) -> None:
        for number, im in enumerate(images):
            own = ours[ours.of_image(number)]
            r.within(name.format(im=im) if "{im}" in name else f"{im}_{name}", own.boxes, PIXELS)
            if labels:
                r.exact(f"{im}_{name.removesuffix('rois')}labels", own.labels)

    per_image("rpn_proposals_plus_gt", spy.one("proposals")[0])
    per_image("cls_rois", spy.one("train_step")[0], labels=True)
    for stage, ((regions, gt_boxes), output) in enumerate(
        zip(spy.seen["select"], spy.seen["stages"], strict=True), start=1
    ):
        per_image(f"stage{stage}_{{im}}_rois", regions)
        r.exact(f"stage{stage}_matched_gt", gt_boxes)
        r.close(f"stage{stage}_heatmap_mean_std", torch.stack((output.heatmaps.mean(), output.heatmaps.std())), 1e-4)
    entering = spy.one("cascade")[0].entering
    per_image("cascade_output_rois", entering)
    goals = [
        iou_targets(entering.boxes[entering.of_image(n)], t["boxes"], plus_one=True) for n, t in enumerate(targets)
    ]
    r.within("iou_targets", torch.cat(goals), SCORES)
    per_image("rsm_rois", spy.entered["rsm"][0][1], labels=True)
    for name, loss in losses.items():
        r.close(f"loss/{name}", loss)
    total = sum(losses.values())
    r.close("loss_total", total)

    theirs = {official_name(name, config): parameter for name, parameter in model.named_parameters()}
    watched = [key.removeprefix("before/") for key in r.keys("before/")]
    for key in watched:
        r.exact(f"before/{key}", theirs[key].flatten()[:8])
    optimiser = optimisation.build_optimiser(model, config.solver)
    optimisation.set_learning_rate(optimiser, optimisation.learning_rate(config.solver, 1))
    total.backward()
    for key in watched:
        gradient = theirs[key].grad
        r.close(f"grad_norm/{key}", gradient.double().norm(), 1e-4)
        r.within(f"grad8/{key}", gradient.flatten()[:8], 1e-4 * float(gradient.norm()))
    optimiser.step()
    for key in watched:
        r.close(f"after/{key}", theirs[key].flatten()[:8])


# ---- (r) Cascade R-CNN


@check("r_cascade_rcnn")
@torch.inference_mode()
def cascade_rcnn(r: Recording) -> None:
    width, height = 160, 128
    config = presets.get("cascade-ism-rsm", "paper", "official")
    features = [rule(f"r_feat{i}", 1, config.backbone.fpn_channels, 32 >> i, 40 >> i) for i in range(4)]
    with torch.device("meta"):
        model: Any = build_model(config, NUM_CLASSES).eval()
    # Only the heads take part.
    heads = {k: v for k, v in model.state_dict().items() if not k.startswith(("backbone.", "proposals."))}
    filled, unread_rows = {}, []
    for name, like in heads.items():
        key = official_name(name, config)
        if name.startswith("regressors."):
            eight = fill(key, 8, *like.shape[1:]) * (0.2 if key.endswith("weight") else 1)
            unread_rows.append(eight[:4])
            filled[name] = eight[4:]
        else:
            filled[name] = fill(key, *like.shape) * (3 if key.endswith("cls_score.weight") else 1)
    model.load_state_dict(filled, strict=False, assign=True)
    spy = Spy()
    for stage in range(config.cascade.stages):
        spy.watch(f"hidden{stage}", model.classifier(stage), "hidden")
        spy.watch("logits", model.classifier(stage).predictor)
        spy.watch("deltas", model.regressors[stage])
    spy.watch("ism", model.iou_scoring)
    boxes = r.tensor("boxes")
    zeros = torch.zeros(len(boxes), dtype=torch.long)
    batch = Batch(torch.zeros(0), [(height, width)], [0], [], [])
    with mock.patch.object(cascade_module, "select_candidates", wraps=cascade_module.select_candidates) as select:
        (found,) = model.detect(features, Regions(boxes, zeros, zeros, torch.ones(len(boxes))), batch)

    for stage in range(config.cascade.stages):
        _map(r, f"stage{stage + 1}_cls_logits", spy.seen["logits"][stage])
        unread = nn.functional.linear(spy.one(f"hidden{stage}"), *unread_rows[2 * stage : 2 * stage + 2])
        _map(r, f"stage{stage + 1}_deltas", torch.cat((unread, spy.seen["deltas"][stage]), dim=1))
    _map(r, f"stage{config.cascade.stages}_iou_logits", spy.one("ism"))
    scores, regions = select.call_args.args[:2]
    r.within("raw_scores", scores.flatten(), SCORES)
    r.within("raw_boxes", regions.boxes.repeat_interleave(NUM_CLASSES, dim=0), PIXELS)
    r.within("final_boxes", found["boxes"], PIXELS)
    r.within("final_scores", found["scores"], SCORES)
    r.exact("final_labels", found["labels"])
