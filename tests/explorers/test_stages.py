"""The stages explorer: its formulas are the library's, its choice is spread over gains and losses, and it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchvision.ops import box_iou

from cpm_lib import explorers
from cpm_lib.boxes import extend_regions
from cpm_lib.data import DetectionDataset, open_source
from cpm_lib.explorers.stages import by_gain
from tests.explorers.conftest import Shown


@pytest.fixture(scope="module")
def dataset() -> DetectionDataset:
    return open_source("shapes:smoke:val")


@pytest.fixture(scope="module")
def detections(dataset: DetectionDataset) -> list[dict[str, Any]]:
    """One for each object: every second one improves with the stages, the others get worse."""
    found = []
    for number in range(len(dataset)):
        target = dataset[number][1]
        boxes = target["boxes"].float()
        side = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        near, far = boxes + 0.02 * side, boxes + 0.2 * side
        path = torch.stack([far, boxes + 0.1 * side, boxes + 0.05 * side, near], dim=1)
        path[1::2] = path[1::2].flip(1)
        scores = torch.linspace(0.9, 0.5, len(boxes)) if len(boxes) else torch.zeros(0)
        one = {"boxes": path[:, -1], "labels": target["labels"], "scores": scores, "proposals": path[:, 0]}
        found.append({"image_id": dataset.image_ids[number], "stage_boxes": path[:, 1:], **one})
    return found


@pytest.fixture
def shown(show: Callable[..., Shown], dataset: DetectionDataset, detections: list[dict[str, Any]]) -> Shown:
    return show(explorers.stages(dataset, detections))


def test_formulas_are_those_of_the_library(shown: Shown) -> None:
    generator = torch.Generator().manual_seed(0)
    for ratio in (2.0, 1.5, 1.25):
        corners = 60 * torch.rand(2, 2, generator=generator)
        one, other = torch.cat((corners, corners + 5 + 40 * torch.rand(2, 2, generator=generator)), dim=1)
        region = extend_regions(one[None], ratio)[0]
        found = shown.formula("extend", one.tolist(), ratio)
        torch.testing.assert_close(torch.tensor(found), region, rtol=0, atol=1e-4)
        assert shown.formula("cell", one.tolist(), ratio) == pytest.approx(float(region[2] - region[0]) / 56, abs=1e-5)
        iou = float(box_iou(one[None], other[None]))
        assert shown.formula("iou", one.tolist(), other.tolist()) == pytest.approx(iou, abs=1e-5)


def test_choice_goes_from_the_largest_gain_to_the_largest_loss(
    dataset: DetectionDataset, detections: list[dict[str, Any]]
) -> None:
    gains = []
    for image, found, row, truth in by_gain(dataset, detections, 6):
        assert image.shape[0] == 3
        path = torch.stack((found["proposals"][row], found["stage_boxes"][row, -1]))
        start, end = box_iou(path, truth[None].float())[:, 0].tolist()
        gains.append(end - start)
    assert len(gains) == 6
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0 > gains[-1]


def test_stages_and_detections_by_slider_key_and_button(shown: Shown) -> None:
    whole = shown.number(r"Stage 3: IoU = .* = ([\d.]+),")
    shown.slide("stage", 1)
    assert shown.number(r"Stage 1: IoU = .* = ([\d.]+),") < whole
    wide, region = shown.number(r"2\.00 × ([\d.]+) ="), shown.number(r"2\.00 × [\d.]+ = ([\d.]+) pixels wide")
    assert region == pytest.approx(2 * wide, abs=0.11)
    shown.press("stage", "ArrowLeft")
    assert "No heatmap yet" in shown.numbers
    for _ in range(4):
        shown.root.get_by_role("button", name="next").click()
    assert "No heatmap yet" in shown.numbers
    shown.slide("stage", 3)
    shown.root.get_by_role("radio").last.check()
    assert shown.number(r"Stage 3: IoU = .*, (−[\d.]+) over") < 0
    assert shown.root.locator("tr.cpm-now th").inner_text() == "stage 3"


def test_one_and_no_detection(
    show: Callable[..., Shown], dataset: DetectionDataset, detections: list[dict[str, Any]]
) -> None:
    empty = [{key: value[:0] if key != "image_id" else value for key, value in one.items()} for one in detections]
    assert "No detection" in show(explorers.stages(dataset, empty)).root.inner_text()
    first = {key: value[:1] if key != "image_id" else value for key, value in detections[0].items()}
    shown = show(explorers.stages(dataset, [first, *empty[1:]]))
    assert shown.root.get_by_role("radio").count() == 1
    shown.slide("stage", 2)
    assert "Stage 2" in shown.numbers


def test_without_scripts_a_picture_stays(
    show: Callable[..., Shown], dataset: DetectionDataset, detections: list[dict[str, Any]]
) -> None:
    shown = show(explorers.stages(dataset, detections), java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()
