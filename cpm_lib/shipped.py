"""What comes with the library: two checkpoints, and the detections of one of them, which most chapters look at."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import cpm_lib
from cpm_lib import evaluation
from cpm_lib.data import DetectionDataset, open_source
from cpm_lib.errors import UserError
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.files import write_atomic
from cpm_lib.ledger import find_data
from cpm_lib.model import Detector


def checkpoint(name: str = "cpm") -> Path:
    """File of the shipped model: ``cpm`` (three stages, ISM, RSM) or ``trunk`` (Faster R-CNN it started from)."""
    return find_data("checkpoints") / f"{name}.safetensors"


def model() -> Detector:
    """The shipped CPM R-CNN in eval mode."""
    return cpm_lib.load(checkpoint())


def validation(profile: str = "quick") -> DetectionDataset:
    """The images that the shipped model never saw: 500 at ``quick``, a handful at ``smoke``."""
    return open_source(f"shapes:{profile}:val")


def detections(profile: str = "quick") -> list[Detection]:
    """Detections of `model` on `validation`, as `evaluation.predict` returns them.

    Computed once and kept in ``data/cache``, until the weights, the images or the library change.
    """
    path = find_data("cache") / f"detections-{profile}-{_key(profile)}.pt"
    if path.exists():
        try:
            kept: list[Detection] = torch.load(path, weights_only=True)
            return kept
        except Exception:
            path.unlink(missing_ok=True)  # half a copy, or of another version of torch: made again below
    found = evaluation.predict(model(), validation(profile))
    for old in path.parent.glob(f"detections-{profile}-*.pt"):
        if old != path:  # which another process may have made meanwhile
            old.unlink(missing_ok=True)
    write_atomic(path, lambda place: torch.save(found, place))
    return found


class Example(NamedTuple):
    """One detection, to show on a page.

    Attributes:
        image: float [3,H,W] in 0..1; found: all detections of that image; row: this one's place among them.
        truth: the box of its object, [4] xyxy in pixels.
    """

    image: Tensor
    found: Detection
    row: int
    truth: Tensor


def example(profile: str = "quick", *, min_proposal_iou: float = 0.4) -> Example:
    """The detection that the cascade improves most, of those whose proposal has at least this IoU with its object.

    Raises:
        UserError: the model found nothing.
    """
    dataset, found = validation(profile), detections(profile)
    final = evaluation.match(found, dataset)
    if not len(final):
        raise UserError(f"{dataset.name}: the shipped model finds nothing there; use another profile")
    start = evaluation.match(found, dataset, boxes="proposals")
    gain = (final.ious - start.ious).where(start.ious >= min_proposal_iou, -1.0)
    best = int(gain.argmax())
    place = dataset.image_ids.index(int(final.image_ids[best]))
    return Example(dataset[place][0], found[place], int(final.rows[best]), final.gt_boxes[best])


def _key(profile: str) -> str:
    digest = hashlib.sha256(f"{torch.__version__} {validation(profile).fingerprint()}".encode())
    digest.update(checkpoint().read_bytes())
    # What an inference runs through, and no more: an edit of a figure must not cost a minute.
    library = Path(__file__).parent
    for pattern in ("model/*.py", "evaluation/inference.py", "data/*.py", "boxes.py", "config.py", "_torchvision.py"):
        for path in sorted(library.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
