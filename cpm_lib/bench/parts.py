"""Which calls make up the parts of a detector, for tables of where time and operations go."""

from __future__ import annotations

from typing import Any

from cpm_lib.bench.case import Running
from cpm_lib.bench.measuring import Call
from cpm_lib.model import CPMRCNN, CascadeRCNN, Detector


def calls(running: Running) -> list[Call]:
    """The calls of one pass by part, for `measuring.divided`; what is left over is the `measuring.REST`."""
    found = _ours(running.model) if isinstance(running.model, Detector) else _torchvision(running.model)
    if running.case.work == "training":
        found += [("backward", running, "backward"), ("update", running, "update")]
    return found


def _ours(model: Detector) -> list[Call]:
    classification: Any = model.classification
    found: list[Call] = [
        ("resizing and padding", model, "prepare"),
        ("backbone", model.backbone, "body_maps"),
        ("FPN", model.backbone.fpn, "forward"),
        ("RPN head", model.proposals.head, "forward"),
        ("proposal selection", model.proposals, "forward"),
        *_classifier("classification", classification.classifier),
        ("candidate selection", classification, "detect"),
    ]
    if isinstance(model, CPMRCNN):
        found.append(("grid RoIAlign", model.cascade.pool, "forward"))
        for number, stage in enumerate(model.cascade.stages, start=1):
            found.append((f"grid stage {number}", stage, "forward"))
            found.append(("heatmap targets", stage, "targets"))
            found.append(("decoding", stage, "decode"))
    if isinstance(model, CascadeRCNN):
        for number, classifier in enumerate(model.later, start=2):
            found += _classifier(f"box stage {number}", classifier)
    if getattr(model, "iou_scoring", None) is not None:
        found.append(("ISM", model.iou_scoring, "forward"))
    if getattr(model, "resampling", None) is not None:
        found += _classifier("RSM", model.resampling.classifier)  # type: ignore[union-attr]
    return found


def _classifier(part: str, classifier: Any) -> list[Call]:
    return [
        (f"{part} RoIAlign", classifier.pool, "forward"),
        (part, classifier.head, "forward"),
        (part, classifier.predictor, "forward"),
    ]


def _torchvision(model: Any) -> list[Call]:
    backbone, heads = model.backbone, model.roi_heads
    slim = getattr(backbone, "backbone", None)
    return [
        ("resizing and padding", model.transform, "forward"),
        ("backbone", slim, "body_maps") if slim is not None else ("backbone", backbone.body, "forward"),
        ("FPN", (slim or backbone).fpn, "forward"),
        ("RPN head", model.rpn.head, "forward"),
        ("proposal selection", model.rpn, "forward"),
        ("classification RoIAlign", heads.box_roi_pool, "forward"),
        ("classification", heads.box_head, "forward"),
        ("classification", heads.box_predictor, "forward"),
        ("candidate selection", heads, "postprocess_detections"),
    ]
