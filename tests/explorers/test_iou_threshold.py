"""The IoU explorer: hits are COCO's, AP is that of the rows, and both answer to slider, mouse and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from cpm_lib import evaluation, explorers
from cpm_lib.errors import UserError
from cpm_lib.explorers.iou_threshold import SIZES, THRESHOLDS, hits, recorded_curves, turning_image
from cpm_lib.ledger import make
from tests.explorers.conftest import Shown

Truth = Mapping[str, Tensor]
IMAGE = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0))


def sample(number: int, seed: int = 0, objects: int = 4) -> tuple[dict[str, Any], Truth]:
    """Boxes scattered about some objects of two classes, in whole hundredths as the page has them."""
    generator = torch.Generator().manual_seed(seed)
    corners = 60 * torch.rand(objects, 2, generator=generator)
    truth = torch.cat([corners, corners + 10 + 30 * torch.rand(objects, 2, generator=generator)], 1).round(decimals=2)
    which = torch.randint(max(objects, 1), (number,), generator=generator)
    labels = torch.randint(1, 3, (objects,), generator=generator)

    def near(spread: float) -> Tensor:
        moved = truth[which] + spread * torch.randn(number, 4, generator=generator)
        return torch.cat([moved[:, :2], torch.maximum(moved[:, 2:], moved[:, :2] + 1)], 1).round(decimals=2)

    stages = torch.stack([near(2.0), near(1.0)], 1)
    scores = torch.linspace(0.9, 0.35, number)[torch.randperm(number, generator=generator)]
    found = {"boxes": stages[:, -1], "stage_boxes": stages, "proposals": near(4.0), "labels": labels[which]}
    return found | {"scores": scores}, {"boxes": truth, "labels": labels}


def curves() -> dict[str, dict[str, list[float | None]]]:
    values: list[float | None] = [60.0 - 5 * step for step in range(10)]
    less: list[float | None] = [value - 3 for value in values if value is not None]
    return {
        "offsets (Faster R-CNN)": dict.fromkeys(SIZES, less),
        "stage 1": {**dict.fromkeys(SIZES, values), "small": [None] * 10},
    }


@pytest.fixture
def shown(show: Callable[..., Shown]) -> Shown:
    return show(explorers.iou_threshold(IMAGE, *sample(6), curves()))


def test_matching_is_that_of_coco(shown: Shown) -> None:
    for seed in range(8):
        found, truth = sample(9, seed)
        order = found["scores"].argsort(descending=True)
        boxes, labels = found["boxes"][order], found["labels"][order]
        expected = hits({"boxes": boxes, "labels": labels, "scores": found["scores"][order]}, truth)
        for row, threshold in enumerate(THRESHOLDS):
            given = [boxes.tolist(), labels.tolist(), truth["boxes"].tolist(), truth["labels"].tolist(), threshold]
            objects = shown.formula("matches", *given)
            assert [place >= 0 for place in objects] == expected[row].tolist()
            taken = [place for place in objects if place >= 0]
            assert len(set(taken)) == len(taken)


def test_best_iou_is_within_the_class(shown: Shown) -> None:
    found, truth = sample(7, 3)
    for box, label in zip(found["boxes"], found["labels"].tolist(), strict=True):
        same = truth["labels"] == label
        expected = float(box_iou(box[None].double(), truth["boxes"][same].double()).max()) if same.any() else 0.0
        value = shown.formula("bestIou", box.tolist(), label, truth["boxes"].tolist(), truth["labels"].tolist())
        assert value == pytest.approx(expected, abs=1e-4)


def test_slider_keys_and_mouse_move_one_threshold(shown: Shown) -> None:
    found, truth = sample(6)
    expected = hits(found, truth).sum(dim=1).tolist()
    for threshold, count in zip(THRESHOLDS, expected, strict=True):
        shown.slide("IoU threshold", threshold)
        assert shown.number(r"^(\d+) of 6 boxes are hits") == count
        assert shown.number(r"are hits at IoU ([\d.]+)") == threshold
    shown.press("IoU threshold on the axis", "ArrowLeft", 2)
    assert shown.number(r"are hits at IoU ([\d.]+)") == 0.85
    # 0.05 of the axis are about 34 units of a drawing 400 wide; whatever the scale, far left is the first one.
    shown.drag("IoU threshold on the axis", -600, 0)
    assert shown.number(r"are hits at IoU ([\d.]+)") == 0.5


def test_ap_is_that_of_the_row_and_size(shown: Shown) -> None:
    rows = curves()
    shown.slide("IoU threshold", 0.7)
    cells = shown.root.locator("table.cpm-rows tbody tr").all_inner_texts()
    assert [row.split("\t")[1:] for row in cells] == [["37.0", "34.5"], ["40.0", "37.5"]]
    assert shown.number(r"minus offsets: ([+−\d.]+)") == 3
    assert shown.formula("ap", 1, "large", 4) == rows["stage 1"]["large"][4]
    shown.root.get_by_label("small", exact=True).check()
    assert shown.root.locator("table.cpm-rows tbody tr").all_inner_texts()[1].split("\t")[1:] == ["–", "–"]


def test_boxes_of_every_stage_can_be_seen(shown: Shown) -> None:
    found, truth = sample(6)
    shown.slide("IoU threshold", 0.75)
    places = {"proposals": found["proposals"], "stage 1": found["stage_boxes"][:, 0], "stage 2": found["boxes"]}
    for name, boxes in places.items():
        expected = int(hits({**found, "boxes": boxes}, truth)[THRESHOLDS.index(0.75)].sum())
        shown.root.get_by_label(name, exact=True).check()
        assert shown.number(r"^(\d+) of 6 boxes are hits") == expected
        assert shown.number(rf"{name}: (\d+)") == expected


def test_the_papers_gains_are_marked_at_their_thresholds(shown: Shown) -> None:
    for threshold, marked in ((0.75, []), (0.8, ["+6.1", "+2.8"]), (0.9, ["+13.4", "+3.5"])):
        shown.slide("IoU threshold", threshold)
        assert shown.root.locator(".cpm-paper .cpm-here").all_inner_texts() == marked


@pytest.mark.parametrize(("number", "objects"), [(0, 3), (1, 1), (0, 0)])
def test_few_boxes(show: Callable[..., Shown], number: int, objects: int) -> None:
    shown = show(explorers.iou_threshold(IMAGE, *sample(number, 1, objects), curves()))
    shown.slide("IoU threshold", 0.5)
    assert shown.number(rf"of {number} boxes are hits at IoU ([\d.]+)") == 0.5
    assert f"of {objects} objects" in shown.numbers


def test_a_detector_without_stages(show: Callable[..., Shown]) -> None:
    found, truth = sample(3)
    plain = {key: found[key] for key in ("boxes", "labels", "scores")}
    shown = show(explorers.iou_threshold(IMAGE, plain, truth, curves()))
    assert shown.root.get_by_label("final boxes", exact=True).is_checked()


def test_without_scripts_a_picture_stays(show: Callable[..., Shown]) -> None:
    shown = show(explorers.iou_threshold(IMAGE, *sample(4), curves()), java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match=r"0\.77 is not one of"):
        explorers.iou_threshold(IMAGE, *sample(1), curves(), threshold=0.77)
    with pytest.raises(UserError, match="no curve"):
        explorers.iou_threshold(IMAGE, *sample(1), {})
    with pytest.raises(UserError, match="'short' needs 10 values"):
        explorers.iou_threshold(IMAGE, *sample(1), {"short": {size: [1.0] for size in SIZES}})
    with pytest.raises(UserError, match="cpm ablate table4"):
        recorded_curves(records=[])


def test_curves_of_records_are_means_over_seeds() -> None:
    def record(name: str, value: float | None) -> Any:
        row = {"curves": dict.fromkeys(SIZES, [value] * 10)}
        return make(name, "claim", "E1", profile="quick", metrics={"rows": {"a-cls": row}})

    found, seeds = recorded_curves({"a": "a-cls"}, [record("paired-quick", 2.0), record("paired-quick-s1", 4.0)])
    assert seeds == 2
    assert found["a"]["all"] == [3.0] * 10
    assert recorded_curves({"a": "a-cls"}, [record("paired-quick", None)])[0]["a"]["small"] == [None] * 10


def test_recorded_curves_have_the_recorded_ap() -> None:
    found, _ = recorded_curves({"stage 3": "falling3-cls"})
    assert len(found["stage 3"]["all"]) == len(THRESHOLDS)
    values = [value for value in found["stage 3"]["all"] if value is not None]
    assert values == sorted(values, reverse=True)


def test_the_image_with_the_most_turns() -> None:
    truth = torch.tensor([[10.0, 10, 50, 50], [60, 10, 100, 50]])
    ids = [7, 3]
    coco = {
        "images": [{"id": number} for number in ids],
        "categories": [{"id": 1}],
        "annotations": [
            {"image_id": image, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": 1600.0}
            for image in ids
            for x1, y1, x2, y2 in truth.tolist()
        ],
    }
    shift = torch.tensor([[0.0, 0, 0, 6], [0, 0, 0, 16]])
    found = [{"boxes": truth + move, "labels": torch.ones(2).long(), "scores": torch.ones(2)} for move in (0, shift)]
    assert turning_image(found, coco) == 1
    assert evaluation.evaluate(found, coco)["AP"] > 0
    nothing = [{"boxes": truth[:0], "labels": torch.ones(0).long(), "scores": torch.ones(0)}] * 2
    assert turning_image(nothing, coco) in (0, 1)
