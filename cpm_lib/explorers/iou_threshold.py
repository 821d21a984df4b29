"""IoU threshold: what still counts as a hit when boxes have to fit better (Fig. 8a, Table 4)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.ops import box_convert

from cpm_lib import figure_style as draw
from cpm_lib.claims import read_claims
from cpm_lib.errors import UserError
from cpm_lib.evaluation.average_precision import judge
from cpm_lib.evaluation.coco import IOU_THRESHOLDS, threshold_index
from cpm_lib.evaluation.ground_truth import COCO_AREA_LIMITS, Detection, GroundTruth
from cpm_lib.explorers.component import Explorer, picture, plain
from cpm_lib.ledger import Record, read_current

THRESHOLDS = [round(float(threshold), 2) for threshold in IOU_THRESHOLDS]
SIZES = ("all", "small", "medium", "large")
ROWS: Mapping[str, str] = {
    "proposals": "proposal-cls",
    "offsets (Faster R-CNN)": "offset-cls",
    "stage 1": "falling1-cls",
    "stage 2": "falling2-cls",
    "stage 3": "falling3-cls",
    "stage 3, fused score": "falling3-fused",
}
"""Name -> row of the paired record: all on the same RoIs, and all heads trained for the same iterations."""

Curves = Mapping[str, Mapping[str, Sequence[float | None]]]
"""Row -> size of the objects -> AP (0..100) at each of `THRESHOLDS`; None where there is no object."""

_COLOURS: Mapping[str, str] = {
    "proposals": "proposal",
    "offsets (Faster R-CNN)": "offsets",
    "stage 1": "stage1",
    "stage 2": "stage2",
    "stage 3": "stage3",
    "stage 3, fused score": "fused",
}
_INKS: Mapping[str, str] = {
    "proposal": draw.PROPOSAL,
    "offsets": draw.INK,
    **{f"stage{number}": colour for number, colour in enumerate(draw.STAGES, 1)},
    "fused": draw.STAGES[2],
}
_GAINS: Mapping[str, str] = {"Faster R-CNN": "fig8.a-over-faster", "Grid R-CNN": "fig8.a-over-grid"}


def iou_threshold(
    image: Tensor,
    found: Detection,
    truth: Mapping[str, Tensor],
    curves: Curves,
    *,
    threshold: float = 0.85,
    min_score: float = 0.3,
    seeds: int = 1,
) -> Explorer:
    """Raise the IoU of a hit, and see AP fall and the boxes of one picture turn from hits to misses.

    Args:
        image: float [3,H,W] in 0..1.
        found: detections of this image with `boxes` [N,4] xyxy in pixels, `labels`, `scores` and, as far as there
            are, `proposals` [N,4] and `stage_boxes` [N,S,4].
        truth: `boxes` [M,4] and `labels` [M] of its objects.
        curves: as `recorded_curves` returns them.
        threshold: at the start, one of 0.5, 0.55, ..., 0.95.
        min_score: detections below are not shown. No better one loses its object to them, so hits stay hits.
        seeds: of which `curves` are means.

    Raises:
        UserError: another threshold, no curve, or a curve of another length.
    """
    if threshold not in THRESHOLDS:
        raise UserError(f"iou_threshold: {threshold} is not one of 0.5, 0.55, ..., 0.95; choose one of these")
    if not curves:
        raise UserError("iou_threshold: no curve; give at least one row")
    for name, by_size in curves.items():
        if set(by_size) != set(SIZES) or any(len(values) != len(THRESHOLDS) for values in by_size.values()):
            raise UserError(f"iou_threshold: '{name}' needs {len(THRESHOLDS)} values for each of {', '.join(SIZES)}")
    shown = _ranked(found, min_score)
    boxes = _boxes(shown)
    return Explorer(
        "iou_threshold",
        "How well must a box fit to count?",
        f"One picture with its boxes, hits and misses at an IoU of {threshold:g}, and AP against the IoU threshold. "
        "With scripts the threshold, the boxes and the size of the objects can be chosen.",
        {
            "image": picture(image),
            "size": [image.shape[-1], image.shape[-2]],
            "truth": plain(truth["boxes"]),
            "truth_labels": truth["labels"].tolist(),
            "labels": shown["labels"].tolist(),
            "boxes": {name: plain(value) for name, value in boxes.items()},
            "thresholds": THRESHOLDS,
            "start": THRESHOLDS.index(threshold),
            "rows": [
                {"name": name, "colour": _colour(name, number), "ap": {size: _rounded(by_size[size]) for size in SIZES}}
                for number, (name, by_size) in enumerate(curves.items())
            ],
            "seeds": seeds,
            "paper": _paper(),
        },
        _still(image, boxes, shown, truth, curves, threshold),
    )


def recorded_curves(rows: Mapping[str, str] = ROWS, records: Sequence[Record] | None = None) -> tuple[Curves, int]:
    """Curves of the paired records at `quick` on shapes, each the mean over the seeds, and the number of seeds.

    Args:
        rows: name -> row of a paired record that has curves.
        records: default: those in ``data/results``.

    Raises:
        UserError: there is no such record.
    """
    known = read_current() if records is None else records
    used = [r for r in known if r.id.startswith("paired-") and (r.profile, r.level) == ("quick", "E1")]
    if not used:
        raise UserError("no paired record: make it with `cpm ablate table4`")

    def mean(row: str, size: str, place: int) -> float | None:
        values = [record.metrics["rows"][row]["curves"][size][place] for record in used]
        defined = [value for value in values if value is not None]
        return statistics.fmean(defined) if defined else None

    places = range(len(THRESHOLDS))
    curves = {name: {size: [mean(row, size, at) for at in places] for size in SIZES} for name, row in rows.items()}
    return curves, len(used)


def turning_image(
    detections: Sequence[Detection], ground_truth: Any, *, min_score: float = 0.3, most_objects: int = 6
) -> int:
    """Position of the image whose hits turn to misses at the most different thresholds, with the fewest false boxes.

    Args:
        detections: as for `evaluate`, one per image in the order of the data; ground_truth: also.
        most_objects: images with more are crowded on a page; left out, unless all have more.
    """
    truth = GroundTruth.of(ground_truth)
    judged = judge([_ranked(found, min_score) for found in detections], truth)
    order = sorted(truth.image_ids)
    objects = torch.stack([*judged.objects.values()]).sum(dim=0)
    lost = judged.hit[:-1] & ~judged.hit[1:]
    turning = torch.stack([(lost & (judged.image == place)).any(dim=1).sum() for place in range(len(order))])
    false = torch.bincount(judged.image[judged.false[0]], minlength=len(order))
    value = turning - false - len(THRESHOLDS) * 2 * (objects > most_objects)
    return truth.image_ids.index(order[int(value.argmax())])


def hits(found: Detection, truth: Mapping[str, Tensor]) -> Tensor:
    """Which boxes of one picture find an object, at each of `THRESHOLDS`, by COCO's matching.

    Args:
        found: `boxes` [N,4] xyxy in pixels, `labels` and `scores` [N].
        truth: `boxes` [M,4] and `labels` [M].

    Returns:
        bool [T,N].
    """
    labels = sorted({*truth["labels"].tolist(), *found["labels"].tolist()})
    objects = zip(truth["labels"].tolist(), box_convert(truth["boxes"], "xyxy", "xywh").tolist(), strict=True)
    annotations = [{"image_id": 0, "category_id": label, "bbox": box} for label, box in objects]
    own = GroundTruth([0], annotations, [{"id": label} for label in labels], {n: n for n in labels}, COCO_AREA_LIMITS)
    whole = {key: found[key] for key in ("boxes", "labels", "scores")}
    return judge([whole], own).hit


def _ranked(found: Detection, min_score: float) -> Detection:
    """The detections with at least this score, best first; only what has a value for each of them."""
    scores = torch.as_tensor(found["scores"]).nan_to_num(nan=-1.0)
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= min_score]
    kept = {key: found[key][order] for key in ("boxes", "labels", "scores", "proposals", "stage_boxes") if key in found}
    return kept | ({"image_id": found["image_id"]} if "image_id" in found else {})


def _boxes(shown: Detection) -> dict[str, Tensor]:
    """What there is of one detector's boxes, [N,4] each, in the order in which they are made."""
    boxes = {"proposals": shown["proposals"]} if "proposals" in shown else {}
    if "stage_boxes" not in shown:
        return boxes | {"final boxes": shown["boxes"]}
    stages = shown["stage_boxes"]
    return boxes | {f"stage {number + 1}": stages[:, number] for number in range(stages.shape[1])}


def _colour(name: str, number: int) -> str:
    return _COLOURS.get(name, f"series{number % 4 + 1}")


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 2) for value in values]


def _paper() -> list[dict[str, Any]]:
    """What the paper prints of Fig. 8a: the gain of CPM R-CNN at single thresholds, on COCO."""
    claims = {claim.id: claim for claim in read_claims()}
    gains: list[dict[str, Any]] = []
    for percent in (80, 90):
        over = {name: claims[id].values[f"AP{percent}"] for name, id in _GAINS.items()}
        gains.append({"at": threshold_index(percent), "over": over})
    return gains


def _still(
    image: Tensor,
    boxes: Mapping[str, Tensor],
    shown: Detection,
    truth: Mapping[str, Tensor],
    curves: Curves,
    threshold: float,
) -> Figure:
    name = [*boxes][-1]
    with draw.style():
        figure = draw.card(9.0, 4.2)
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
        _scene(left, image, boxes[name], shown, truth, threshold)
        left.set_title(f"{name}, IoU threshold {threshold:g}")
        for number, (row, by_size) in enumerate(curves.items()):
            values = [float("nan") if value is None else value for value in by_size["all"]]
            right.plot(THRESHOLDS, values, label=row, color=_ink(row, number), linestyle=_dashes(row))
        right.axvline(threshold, color=draw.INK, linewidth=1)
        right.set_xlabel("IoU threshold")
        right.set_ylabel("AP (%)")
        right.set_ylim(bottom=0)
        right.legend(loc="lower left")
        draw.key(figure, [("object", draw.GROUND_TRUTH, True), ("hit", draw.PREDICTION, False),
                          ("no hit", draw.QUIET, True)])  # fmt: skip
    return figure


def _scene(
    axes: Axes, image: Tensor, boxes: Tensor, shown: Detection, truth: Mapping[str, Tensor], threshold: float
) -> None:
    hit = hits({**shown, "boxes": boxes}, truth)[THRESHOLDS.index(threshold)]
    draw.picture(axes, image, "")
    draw.boxes(axes, truth["boxes"], draw.GROUND_TRUTH, dashed=True)
    draw.boxes(axes, boxes[hit], draw.PREDICTION)
    draw.boxes(axes, boxes[~hit], draw.QUIET, dashed=True)


def _ink(row: str, number: int) -> str:
    return _INKS.get(_COLOURS.get(row, ""), draw.SERIES[number % 4])


def _dashes(row: str) -> str:
    return {"fused": "--", "offsets": ":"}.get(_COLOURS.get(row, ""), "-")
