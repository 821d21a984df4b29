"""Boxes, pictures and the learning rate: what goes into the detector and what drives its training."""

from __future__ import annotations

import torch
from torchvision.ops import nms

from cpm_lib import boxes as box_ops
from cpm_lib import presets
from cpm_lib.data.transforms import authors_training_size, training
from cpm_lib.model.detector import authors_factor, normalise, resize_unfiltered
from cpm_lib.model.grid_branch import GridBranch
from cpm_lib.training import optimisation
from tests.golden.harness import Recording, check

OFFICIAL = presets.get("cpm", "paper", "official")
SHORT, LONG = 48, 80
"""Sizes of the small picture of the recording."""


@check("k_lr")
def learning_rate(r: Recording) -> None:
    solver = OFFICIAL.solver
    branch = GridBranch(OFFICIAL.override({"grid.channels_per_point": 4, "grid.convs": 1}).grid, 1)
    optimiser = optimisation.build_optimiser(branch, solver)
    rates, group_rates = [], []
    for iteration in r.tensor("iteration").tolist():
        rates.append(optimisation.learning_rate(solver, iteration))
        optimisation.set_learning_rate(optimiser, rates[-1])
        group_rates.append([group["lr"] for group in optimiser.param_groups])
    r.close("lr", torch.tensor(rates, dtype=torch.float64), 1e-12)
    r.close("group_lr", torch.tensor(group_rates, dtype=torch.float64), 1e-12)
    decays = [group["weight_decay"] for group in optimiser.param_groups]
    r.exact("group_weight_decay", torch.tensor(decays, dtype=torch.float64))


@check("n_legacy_boxes")
def legacy_boxes(r: Recording) -> None:
    width, height = 100, 80
    xywh = r.tensor("xywh")
    xyxy = box_ops.to_last_pixel(torch.cat((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), dim=1))
    r.close("xyxy", xyxy)
    clipped = box_ops.clip(xyxy, (height, width), plus_one=True)
    real = (clipped[:, 2:] > clipped[:, :2]).all(dim=1)
    clipped = clipped[real]
    r.close("clipped_nonempty", clipped)
    r.exact("clipped_index", torch.nonzero(real).flatten())
    r.close("flipped", box_ops.flip(clipped, width, plus_one=True))
    for new_width, new_height in ((150, 120), (151, 120)):
        factors = torch.tensor([new_width / width, new_height / height] * 2)
        r.close(f"resized_{new_width}x{new_height}", clipped * factors)
    continuous = box_ops.from_last_pixel(clipped)
    r.close("back_to_xywh", torch.cat((clipped[:, :2], continuous[:, 2:] - continuous[:, :2]), dim=1))
    r.close("area", box_ops.area(clipped, plus_one=True))
    references = r.tensor("iou_a")
    r.close("iou_plus1", box_ops.iou(references, r.tensor("iou_b"), plus_one=True))
    for key in r.keys("coder_gt_w"):
        factor = float(key.removeprefix("coder_gt_w"))
        weights = (1.0,) * 4 if factor == 1 else (factor, factor, factor / 2, factor / 2)
        name = f"w{factor:.0f}"
        r.close(f"coder_targets_{name}", box_ops.encode(references, r.tensor(key), weights, plus_one=True))
        deltas = r.tensor(f"coder_deltas_{name}")
        r.close(f"coder_decoded_{name}", box_ops.decode(deltas, references, weights, plus_one=True))
    r.close("bbox_xform_clip", torch.tensor(box_ops.LOG_MAX_SCALE, dtype=torch.float64), 1e-12)
    boxes, scores = r.tensor("nms_boxes"), r.tensor("nms_scores")
    keep = nms(boxes, scores, 0.7)
    r.exact("nms07_boxes", boxes[keep])
    r.exact("nms07_scores", scores[keep])


@check("q_preprocess")
def pictures(r: Recording) -> None:
    trained, tested, factors = [], [], []
    for width, height in r.tensor("sizes_in_wh").tolist():
        new_width, new_height = authors_training_size((width, height), 800, 1333)
        trained.append((new_height, new_width))
        factors.append(authors_factor((height, width), 800, 1333))
        tested.append((round(height * factors[-1]), round(width * factors[-1])))
    r.exact("train_out_hw_800_1333", torch.tensor(trained))
    r.exact("test_out_hw_800_1333", torch.tensor(tested))
    r.close("test_scale", torch.tensor(factors, dtype=torch.float64), 1e-12)

    image = r.tensor("rgb_uint8").permute(2, 0, 1).float() / 255
    boxes = box_ops.from_last_pixel(r.tensor("boxes_in"))
    ones = torch.ones(len(boxes))
    for flip in (0, 1):
        config = OFFICIAL.override({"input.train_sizes": [SHORT], "input.max_size": LONG, "input.flip": float(flip)})
        target = {"boxes": boxes, "labels": ones.long(), "area": ones}
        new_image, new_target = training(config.input, config.conventions)(image, target)
        r.close(f"train_tensor_flip{flip}", normalise(new_image, caffe=True))
        r.close(f"train_boxes_flip{flip}", new_target["boxes"])
    factor = authors_factor(tuple(image.shape[1:]), SHORT, LONG)
    for name, picture in (("test_blob", image), ("test_blob_flip", image.flip(-1))):
        r.close(f"{name}_chw_bgr", resize_unfiltered(picture, factor).flip(0) * 255)
    for library in ("cv2", "pil"):
        r.not_compared[f"{library}_version"] = "says which library recorded the file"
