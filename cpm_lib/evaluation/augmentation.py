"""Test-time augmentation: several sizes and mirror images, merged by soft-NMS (Table 7, AP 49.9; facts 9)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cpm_lib import boxes as box_ops
from cpm_lib.config import Config
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.evaluation.inference import predict
from cpm_lib.model.fused_score import soft_nms as suppress

BASE_SIZE = 800
"""Test size of the authors' detector, to which the following numbers belong."""
SIZES = (400, 500, 600, 700, 900, 1000, 1100, 1200)
"""Short sides of the further passes, in pixels."""
MAX_SIZE = 2000
"""Most pixels of the long side in the further passes."""


class Augmented(nn.Module):
    """A detector that looks at every image several times; in evaluation mode used like the detector inside.

    The first pass runs at the detector's own size, one more at each of `sizes`; with `flip` each is repeated on
    the mirror image. Every pass is the complete detector with its threshold, NMS and scores.

    Args:
        model: a detector with a `config`; left as it was after every call.
        sizes: short sides of the further passes in pixels. None: the paper's, in proportion to the model's own
            test size (exactly `SIZES` at 800). Empty: only the mirror image is added.
        max_size: most pixels of the long side in the further passes. None: the paper's, in proportion.
        soft_nms: how overlapping detections of one class decay.
        score_threshold: detections must score higher before merging. None: the model's own threshold (the paper's
            row uses 0.03, which is also that of the CPM presets).
    """

    def __init__(
        self,
        model: nn.Module,
        sizes: Sequence[int] | None = None,
        flip: bool = True,
        max_size: int | None = None,
        soft_nms: Literal["linear", "gaussian"] = "linear",
        score_threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.model, self.flip, self.soft_nms = model, flip, soft_nms
        self.training = model.training
        self.config: Config = model.config  # type: ignore[assignment]
        own = self.config.input.test_size
        if sizes is None:
            sizes = [round(own * size / BASE_SIZE) for size in SIZES]
        limit = round(own * MAX_SIZE / BASE_SIZE) if max_size is None else max_size
        further = [{"input.test_size": int(size), "input.max_size": limit} for size in sizes]
        self.passes = [self.config, *(self.config.override(values) for values in further)]
        self.score_threshold = (
            self.config.classification.score_threshold if score_threshold is None else score_threshold
        )

    def forward(self, images: list[Tensor]) -> list[Detection]:
        """Merged detections per image on the CPU: boxes in pixels of the images given, by falling decayed score."""
        found: list[list[Detection]] = [[] for _ in images]
        for config in self.passes:
            with configured(self.model, config):
                outputs = [self.model(images)]
                if self.flip:
                    mirrored = self.model([image.flip(-1) for image in images])
                    plus_one = config.conventions.pixel_plus_one
                    outputs.append([mirror(d, i.shape[-1], plus_one) for d, i in zip(mirrored, images, strict=True)])
            for output in outputs:
                for detections, more in zip(found, output, strict=True):
                    detections.append(more)
        limit = self.config.classification.detections_per_image
        return [merge(detections, self.score_threshold, self.soft_nms, limit) for detections in found]


@contextlib.contextmanager
def configured(model: nn.Module, config: Config) -> Iterator[None]:
    """`model` with another configuration, of which it reads the input size only, for the time of a `with` block."""
    own = model.config
    model.config = config  # type: ignore[assignment]
    try:
        yield
    finally:
        model.config = own


def mirror(detection: Detection, width: int, plus_one: bool = False) -> Detection:
    """Detections of the mirror image as detections of the image, `width` pixels wide."""
    boxes = {key: detection[key] for key in ("boxes", "stage_boxes", "proposals") if key in detection}
    return {**detection, **{key: box_ops.flip(value, width, plus_one) for key, value in boxes.items()}}


def merge(
    detections: Sequence[Detection], score_threshold: float, soft_nms: Literal["linear", "gaussian"], limit: int
) -> Detection:
    """The detections of several passes over one image as one: threshold, soft-NMS within classes, best `limit`.

    A score that is not a number is below every threshold. Parts (`cls_scores`, `stage_boxes`, ...) stay with their
    box; only `scores` decays.
    """
    # Soft-NMS asks for the next best box after every step: a GPU would be waited for each time.
    found = {key: torch.cat([detection[key].cpu() for detection in detections]) for key in detections[0]}
    above = found["scores"] > score_threshold
    found = {key: value[above] for key, value in found.items()}
    keep, scores = suppress(found["boxes"], found["scores"], found["labels"], soft_nms)
    merged = {key: value[keep[:limit]] for key, value in found.items()}
    return {**merged, "scores": scores[:limit]}


def predict_augmented(
    model: nn.Module,
    dataset: Any,
    sizes: Sequence[int] | None = None,
    flip: bool = True,
    max_size: int | None = None,
    soft_nms: Literal["linear", "gaussian"] = "linear",
    score_threshold: float | None = None,
    **options: Any,
) -> list[Detection]:
    """`evaluation.predict` with test-time augmentation.

    Args:
        sizes, flip, max_size, soft_nms, score_threshold: see `Augmented`.
        options: `batch_size`, `device`, `workers` and `indices` of `predict`.
    """
    return predict(Augmented(model, sizes, flip, max_size, soft_nms, score_threshold), dataset, **options)
