"""One pass of a detector over a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from cpm_lib import boxes as box_ops
from cpm_lib import environment
from cpm_lib.data.loading import evaluation_batches
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.progress import progress

_BOXES = ("boxes", "stage_boxes", "proposals")


def predict(
    model: nn.Module,
    dataset: Any,
    *,
    batch_size: int = 8,
    device: torch.device | str | None = None,
    workers: int = 0,
    indices: Sequence[int] | None = None,
    precision: Literal["fp32", "bf16"] | None = None,
) -> list[Detection]:
    """Detections of every image of a `DetectionDataset`, in its order, on the CPU.

    Args:
        model: a detector; it is put into eval mode for the pass and back into its mode afterwards.
        device: where to compute, e.g. "cuda"; the model is moved there. Default: where the model is.
        workers: processes that read images; 0 reads in this one.
        indices: positions of the images to look at, in this order; default: all.
        precision: compute in this one, "bf16" also where the device is not made for it and takes long; default: the
            model's solver precision as far as the device is made for it.

    Returns:
        Per image what the model returns (boxes [N,4] xyxy in original pixels, labels, scores and parts; floats as
        float32) and `image_id`.
    """
    if device is None:
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    device = torch.device(device)
    model.to(device)
    config = getattr(model, "config", None)
    solver = getattr(config, "solver", None)
    plus_one = getattr(getattr(config, "conventions", None), "pixel_plus_one", False)
    if precision is None:
        autocast = environment.autocast(device, getattr(solver, "precision", "fp32"))
    else:
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    training = model.training
    model.eval()
    detections: list[Detection] = []
    count, pin = len(dataset) if indices is None else len(indices), device.type == "cuda"
    try:
        with torch.inference_mode(), autocast, progress(total=count, desc="detect", unit="image") as bar:
            for images, targets in evaluation_batches(dataset, batch_size, workers=workers, indices=indices, pin=pin):
                outputs = model([image.to(device, non_blocking=True) for image in images])
                for output, target in zip(outputs, targets, strict=True):
                    found = _to_cpu(output)
                    if plus_one:
                        # Metrics and drawings take boxes x2 - x1 wide (facts 1.4).
                        found |= {key: box_ops.from_last_pixel(found[key]) for key in _BOXES if key in found}
                    detections.append({"image_id": int(target["image_id"]), **found})
                bar.update(len(images))
    finally:
        model.train(training)
    return detections


def _to_cpu(output: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # float32 in every case: bfloat16 scores would tie and numpy cannot hold them.
    # Cloned: an inference tensor must not leak into code that wants gradients or in-place changes.
    with torch.inference_mode(False):
        return {
            key: value.detach().to("cpu", torch.float32 if value.is_floating_point() else None, copy=True)
            for key, value in output.items()
        }
