"""What the resampling scoring module trains on (Fig. 4, Sec. 3.3.2)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.ops import box_iou

from cpm_lib import presets
from cpm_lib.model import build_model
from cpm_lib.model.regions import Regions

ALL = {
    "classification.rois_per_image": 4000, "grid.rois_per_image": 4000, "cascade.iou_thresholds": (0.5, 0.01, 0.01)
}  # fmt: skip
"""So many RoIs that none is left out at random, and thresholds that boxes of untrained stages reach."""
SIDE = 64


def trained_on(positives: str | None) -> dict[str, Any]:
    """One training pass: the samples of the classification branch, what entered and left the last stage of the grid
    branch, what the RSM saw with its labels, and the boxes of the objects."""
    change = ALL if positives is None else ALL | {"conventions.rsm_positives": positives}
    torch.manual_seed(0)
    model: Any = build_model(presets.get("cpm", "smoke").override(change), num_classes=4).train()
    seen: dict[str, Any] = {}

    def note(name: str, step: Any) -> Any:
        def noted(*arguments: Any) -> Any:
            result = step(*arguments)
            seen[name] = result[0]
            return result

        return noted

    model.classification.train_step = note("samples", model.classification.train_step)
    model.cascade.train_step = note("final", model.cascade.train_step)
    model.resampling.classifier.register_forward_pre_hook(lambda _, inputs: seen.update(rsm=inputs[1]))
    objects = torch.tensor([[4.0, 6.0, 40.0, 44.0], [20.0, 18.0, 60.0, 56.0]])
    seen["objects"] = objects
    model([torch.rand(3, SIDE, SIDE)], [{"boxes": objects, "labels": torch.tensor([1, 3]), "image_id": 0}])
    return seen


def listed(*boxes: torch.Tensor) -> list[list[float]]:
    """Boxes in an order that does not depend on where they came from."""
    return sorted(torch.cat(boxes).tolist())


def test_positives_are_all_boxes_that_leave_the_last_stage() -> None:
    seen = trained_on(None)
    samples, final, rsm = seen["samples"], seen["final"], seen["rsm"]
    negatives = samples.boxes[samples.labels == 0]
    assert len(negatives) and len(final.leaving)
    assert listed(rsm.boxes) == listed(negatives, final.leaving.boxes)
    assert not torch.equal(final.leaving.boxes, final.entering.boxes)
    assert (samples.labels > 0).any(), "the positive samples themselves are left out"


def test_the_authors_take_the_boxes_that_enter_it() -> None:
    seen = trained_on("input")
    samples, final, rsm = seen["samples"], seen["final"], seen["rsm"]
    assert listed(rsm.boxes) == listed(samples.boxes[samples.labels == 0], final.entering.boxes)


@pytest.mark.parametrize("positives", ["output", "input"])
def test_labels_are_given_anew_by_the_boxes_themselves(positives: str) -> None:
    seen = trained_on(positives)
    rsm: Regions = seen["rsm"]
    overlap, nearest = box_iou(rsm.boxes, seen["objects"]).max(dim=1)
    expected = torch.where(overlap >= 0.5, torch.tensor([1, 3])[nearest], 0)
    assert torch.equal(rsm.labels, expected)
