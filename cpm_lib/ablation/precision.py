"""What bfloat16 costs in accuracy: one set of weights, evaluated in float32 and under autocast to bfloat16."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from cpm_lib import evaluation, ledger, shipped
from cpm_lib.ablation.joint import METRICS
from cpm_lib.ablation.setting import Setting, digest, place
from cpm_lib.evaluation import Resampling, summary
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.training import checkpoint

CLAIM = "bfloat16 instead of float32 moves neither AP nor boxes by more than rounding"
NOTES = (
    "The shipped CPM R-CNN, evaluated twice. Last layers and all arithmetic on boxes and scores stay in float32. "
    "Where the processor has no bfloat16, torch computes the same roundings slowly. Distances: largest difference of "
    "the four coordinates between a detection and the nearest one of its class, detections above the score alone. "
    "Interval: paired bootstrap over the evaluation images."
)
MIN_SCORE = 0.05
"""Detections that count for the distances of boxes."""


def record(setting: Setting) -> ledger.Record:
    """The record of this setting: read if it is there, else made and written.

    Raises:
        UserError: the data cannot be used, or the shipped model knows other classes.
        Interrupted: Ctrl-C; the evaluation begins again.
    """
    id, weights = setting.record_id("precision"), digest(shipped.checkpoint())
    known = setting.current(id)
    if known is not None and known.metrics["weights"] == weights:
        return known
    setting.check(id)
    began, cpu = time.perf_counter(), time.process_time()
    device = place()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    model = checkpoint.load(shipped.checkpoint(), num_classes=len(setting.val.classes) + 1, device=device)
    found = {
        "float32": evaluation.predict(model, setting.val, device=device, precision="fp32"),
        "bfloat16": evaluation.predict(model, setting.val, device=device, precision="bf16"),
    }
    rows = {}
    for row, detections in found.items():
        values = evaluation.evaluate(detections, setting.val)
        rows[row] = {metric: values[metric] for metric in METRICS}
    drawn = Resampling(setting.val, found)
    differences = {
        metric: summary(drawn.ap("bfloat16", metric) - drawn.ap("float32", metric)) for metric in ("AP", "AP50", "AP75")
    }
    made = ledger.make(
        id, CLAIM, setting.level, config=model.config, dataset=setting.val, inputs=setting.inputs(), notes=NOTES,
        device=name, differences={"precision": {"bfloat16": differences}},
        metrics={
            "weights": weights, "rows": rows, "n_images": len(setting.val),
            "boxes": box_distances(found["float32"], found["bfloat16"]),
        },
        wall_s=time.perf_counter() - began, cpu_s=time.process_time() - cpu,
    )  # fmt: skip
    ledger.write(made)
    return made


def box_distances(ones: Sequence[Detection], others: Sequence[Detection]) -> dict[str, float | int | None]:
    """How far the boxes of `ones` are from the nearest ones of the same image and class of `others`.

    Returns:
        median_px and p90_px of the largest difference of the four coordinates; unpaired: how many have none within
        their own shorter side, they count as far; detections: how many there are. None without any.
    """
    found, sides = [], []
    for one, other in zip(ones, others, strict=True):
        sure = one["scores"] > MIN_SCORE
        boxes, labels = one["boxes"][sure], one["labels"][sure]
        apart = torch.cdist(boxes, other["boxes"], p=float("inf"))
        apart[labels[:, None] != other["labels"]] = float("inf")
        nearest = torch.cat([apart, torch.full((len(boxes), 1), float("inf"))], dim=1)
        found.append(nearest.amin(dim=1))
        sides.append((boxes[:, 2:] - boxes[:, :2]).amin(dim=1))
    distances, side = torch.cat(found), torch.cat(sides)
    if not len(distances):
        return {"median_px": None, "p90_px": None, "unpaired": 0, "detections": 0}
    middle, most = torch.quantile(distances, distances.new_tensor([0.5, 0.9]), interpolation="lower").tolist()
    return {
        "median_px": middle if middle < float("inf") else None,
        "p90_px": most if most < float("inf") else None,
        "unpaired": int((distances > side).sum()),
        "detections": len(distances),
    }
