"""What is compared, file by file; every sub-structure here is the library's own."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import nms

from cpm_lib import boxes as box_ops
from cpm_lib import presets
from cpm_lib.model import grid_points
from cpm_lib.model.cascade_mapping import CascadeMapping, next_regions
from cpm_lib.model.classification import clip_regions, sample_regions, select_candidates
from cpm_lib.model.fused_score import fuse, soft_nms
from cpm_lib.model.iou_scoring import iou_loss, iou_targets
from cpm_lib.model.losses import cross_entropy, heatmap_loss
from cpm_lib.model.proposals import Proposals, cell_anchors
from cpm_lib.model.regions import Batch, Regions, RoIPooler, assign_levels, concatenate, match
from cpm_lib.model.sampling import Sampling
from tests.golden.harness import Recording, check, image_names, rule

OFFICIAL = presets.get("cpm", "paper", "official")
# The rules between the stages do not depend on the size of the heads.
NARROW = OFFICIAL.override({"grid.channels_per_point": 4, "grid.convs": 1})
RATIOS = {"m1.0": 2.0, "m0.5": 1.5, "m0.25": 1.25}


def _images(r: Recording) -> list[str]:
    """Prefixes im0_, im1_, ... of a file."""
    return [f"{name}_" for name in image_names(r)]


def _batch(r: Recording, labels: bool = True) -> Batch:
    images = _images(r)
    gt = [r.tensor(f"{image}gt") for image in images]
    gt_labels = [
        r.tensor(f"{image}gt_labels") if labels else torch.ones(len(boxes), dtype=torch.long)
        for image, boxes in zip(images, gt, strict=True)
    ]
    return Batch(torch.zeros(0), [(10**6, 10**6)] * len(images), list(range(len(images))), gt, gt_labels)


def _regions(boxes: torch.Tensor, image: int, labels: torch.Tensor | None = None) -> Regions:
    zeros = torch.zeros(len(boxes), dtype=torch.long)
    return Regions(boxes, zeros + image, zeros if labels is None else labels, torch.ones(len(boxes)))


@check("b_decode")
def decode(r: Recording) -> None:
    r.exact("sub_regions", grid_points.sub_regions())
    r.exact("grid4_sub_regions", grid_points.sub_regions(grid=2))
    logits, boxes = r.tensor("logits"), r.tensor("boxes")
    for name, ratio in RATIOS.items():
        r.exact(f"decoded_{name}", grid_points.decode(logits, boxes, ratio))
    tie = torch.zeros(1, *logits.shape[1:])
    r.exact("tie_decoded_m1.0", grid_points.decode(tie, r.tensor("tie_box"), 2.0))
    r.exact("grid4_decoded_m1.0", grid_points.decode(logits[:, :4], boxes, 2.0, grid=2))
    r.not_compared["image_size_wh"] = "decoding never clips, so it does not need the image"


@check("c_targets")
def targets(r: Recording) -> None:
    boxes, gt_boxes = r.tensor("boxes"), r.tensor("gt_boxes")
    logits = 2 * (rule("c_logits", len(boxes), 9, 28, 28) + 1) - 2
    for name, ratio in RATIOS.items():
        ours = grid_points.heatmap_targets(boxes, gt_boxes, ratio, rounding="trunc")
        bits = np.packbits(ours.numpy().reshape(len(boxes), -1).astype(bool), axis=1)
        r.exact(f"target_bits_{name}", torch.from_numpy(bits))
        r.exact(f"target_sum_{name}", ours.sum(dim=(2, 3)))
        r.close(f"loss_{name}", 15 * heatmap_loss(logits, ours).value)


@check("d_ism")
def iou_scoring(r: Recording) -> None:
    batch = _batch(r, labels=False)
    cascade = CascadeMapping(NARROW, Sampling())
    proposals = concatenate([_regions(r.tensor(f"{im}proposals"), k) for k, im in enumerate(_images(r))])
    kept, gt_boxes = cascade.select(proposals, batch, stage=2)
    for number, image in enumerate(_images(r)):
        r.exact(f"{image}kept", kept.boxes[kept.image == number])
    r.exact("matched_boxes", kept.boxes)
    r.exact("matched_gt", gt_boxes)
    ours = torch.cat(
        [iou_targets(kept.boxes[kept.image == k], gt, plus_one=True) for k, gt in enumerate(batch.gt_boxes)]
    )
    r.close("iou_targets", ours)
    r.exact("n_positive_entries", (ours > 0).sum())
    for prefix, wanted in (("", ours), ("case2_", r.tensor("case2_targets"))):
        logits = r.tensor("iou_logits" if not prefix else "case2_logits").requires_grad_()
        loss = iou_loss(logits, wanted, "l2", official=True)
        loss.backward()
        r.close(f"{prefix}l2_loss", loss)
        r.close(f"{prefix}l2_grad", logits.grad)


@check("e_fused_score")
def fused_score(r: Recording) -> None:
    cls, iou, labels = r.tensor("cls_scores"), r.tensor("iou_logits")[:, 1], r.tensor("labels")
    rsm = r.tensor("rsm_logits").softmax(dim=1)[torch.arange(len(labels)), labels]
    r.close("merged_scores", fuse(cls, iou, None, 0.8, clamp=False))
    r.close("fused_scores", fuse(cls, iou, rsm, 0.8, clamp=False))
    r.close("fused_scores_without_ism", fuse(cls, None, rsm, 0.8))


@check("f_rsm_samples")
def resampling(r: Recording) -> None:
    batch, config = _batch(r), OFFICIAL.classification
    parts = []
    for number, image in enumerate(_images(r)):
        samples = r.tensor(f"{image}cls_rois")
        negative = samples[r.tensor(f"{image}cls_labels") == 0]
        full = concatenate([_regions(negative, number), _regions(r.tensor(f"{image}grid_rois"), number)])
        r.exact(f"{image}full", full.boxes)
        parts.append(full)
    sampled = sample_regions(
        concatenate(parts),
        batch,
        config.rois_per_image,
        config.positive_fraction,
        config.positive_iou,
        Sampling(),
        True,
    )
    for number, image in enumerate(_images(r)):
        r.exact(f"{image}sampled", sampled.boxes[sampled.image == number])
        r.exact(f"{image}sampled_labels", sampled.labels[sampled.image == number])
    r.close("ce_loss", cross_entropy(r.tensor("logits"), sampled.labels).value)


@check("g_pool")
def pooling(r: Recording) -> None:
    images = [key for key in r.keys("boxes_im")]
    regions = concatenate([_regions(r.tensor(key), number) for number, key in enumerate(images)])
    features = [rule(f"g_feat{i}", len(images), 6, 64 >> i, 80 >> i) for i in range(4)]
    r.exact("levels", assign_levels(regions.boxes, 224.0, plus_one=True))
    for size in (7, 14):
        r.close(f"pooled_{size}", RoIPooler(size, 224.0, plus_one=True)(features, regions))


@check("h_anchors")
def anchors(r: Recording) -> None:
    width, height = 160, 128
    proposals = Proposals(OFFICIAL, Sampling())
    ours = []
    for level in range(2, 7):
        stride = 1 << level
        r.exact(f"cell_p{level}", cell_anchors(stride, 8.0, (0.5, 1.0, 2.0), plus_one=True))
        size = len(r.arrays[f"anchors_p{level}"]) // 3
        rows = round((size * height / width) ** 0.5)
        # P6 has every second pixel of P5, rounded up.
        columns = size // rows
        ours.append(proposals.anchors(torch.zeros(1, 1, rows, columns), stride))
        r.exact(f"anchors_p{level}", ours[-1])
        labels, _ = proposals.labels(ours[-1], torch.zeros(0, 4), (height, width))
        r.exact(f"visible_p{level}", (labels == 0).to(torch.uint8))
    everything, gt = torch.cat(ours), r.tensor("rpn_gt")
    labels, which = proposals.labels(everything, gt, (height, width))
    r.exact("rpn_labels", labels)
    positive = torch.nonzero(labels > 0).flatten()
    r.exact("rpn_pos_index", positive)
    wanted = box_ops.encode(everything[positive], gt[which[positive]], (1.0, 1.0, 1.0, 1.0), plus_one=True)
    r.close("rpn_pos_targets", wanted)


@check("i_cls_post")
def candidates(r: Recording) -> None:
    width, height = r.tensor("image_size_wh").tolist()
    batch = Batch(torch.zeros(0), [(height, width)], [0], [], [])
    regions = clip_regions(_regions(r.tensor("boxes"), 0), batch, plus_one=True)
    kept, _ = select_candidates(r.tensor("logits").softmax(dim=1), regions, 1, 0.03, 0.3, None)
    r.exact("out_boxes", kept.boxes)
    r.close("out_scores", kept.scores)
    r.exact("out_labels", kept.labels)


@check("j_next_stage")
def next_stage(r: Recording) -> None:
    batch, cascade = _batch(r), CascadeMapping(NARROW, Sampling())
    rois = []
    for number, image in enumerate(_images(r)):
        regions = _regions(r.tensor(f"{image}rois"), number, r.tensor(f"{image}labels"))
        regions.scores = r.tensor(f"{image}objectness")
        rois.append(regions)
    entered = concatenate(rois)
    decoded = entered.with_boxes(grid_points.decode(r.tensor("logits_fp16").float(), entered.boxes, 2.0))
    following = next_regions(entered, decoded, batch, NARROW.conventions, Sampling())
    selected, gt_boxes = cascade.select(following, batch, stage=1)
    for number, image in enumerate(_images(r)):
        own = following[following.of_image(number)]
        # Which rows stayed is seen by their decoded boxes.
        all_decoded = decoded.boxes[decoded.of_image(number)]
        stayed = (all_decoded[:, None] == own.boxes[None]).all(dim=2).any(dim=1)
        r.exact(f"{image}keep", torch.nonzero(stayed).flatten())
        r.exact(f"{image}next", own.boxes)
        r.exact(f"{image}next_labels", own.labels)
        r.close(f"{image}next_objectness", own.scores)
        chosen = selected[selected.of_image(number)]
        r.exact(f"{image}stage1_input", chosen.boxes)
        r.exact(f"{image}stage1_labels", chosen.labels)
    r.exact("stage1_matched_gt", gt_boxes)
    overlap, _, _ = match(selected, batch, plus_one=True)
    assert bool((overlap >= 0.6).all())


@check("o_soft_nms")
def soft_suppression(r: Recording) -> None:
    boxes, scores = r.tensor("boxes"), r.tensor("scores")
    labels = torch.zeros(len(boxes), dtype=torch.long)
    for method in ("linear", "gaussian"):
        keep, decayed = soft_nms(boxes, scores, labels, method)
        r.exact(f"{method}_boxes", boxes[keep])
        r.close(f"{method}_scores", decayed)
    keep = nms(boxes, scores, 0.5)
    r.exact("hard_boxes", boxes[keep])
    r.exact("hard_scores", scores[keep])
