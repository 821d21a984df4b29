"""The gamma explorer: its AP is that of `evaluate`, crowds, limits, inverted boxes and equal scores included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cpm_lib import evaluation, explorers
from cpm_lib.data import DetectionDataset
from cpm_lib.errors import UserError
from cpm_lib.evaluation.coco import ALL_AREAS, IOU_THRESHOLDS, evaluator_for
from cpm_lib.model.fused_score import fuse
from tests.evaluation.samples import make
from tests.explorers.conftest import Shown

GAMMAS = (0.0, 0.3, 0.8, 1.0)


def opened(folder: Path, coco: dict[str, Any]) -> DetectionDataset:
    for image in coco["images"]:
        Image.new("RGB", (image["width"], image["height"]), (90, 120, 150)).save(folder / image["file_name"])
    return DetectionDataset("made up", coco, folder, where="test")


def scored(detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the parts of a fused score, some of them equal or out of range, in single precision as detectors give."""
    generator = torch.Generator().manual_seed(1)
    result = []
    for found in detections:
        iou, rsm = torch.rand(2, len(found["scores"]), generator=generator)
        parts = {"cls_scores": found["scores"].round(decimals=1), "iou_scores": 1.2 * iou - 0.1, "rsm_scores": rsm}
        result.append({**found, **parts})
    return result


def exact(detections: list[dict[str, Any]], gamma: float | None) -> list[dict[str, Any]]:
    """Scored in double precision, as the page computes: single precision would make some scores equal."""
    rows = []
    for found in detections:
        cls, iou, rsm = (found[f"{part}_scores"].double() for part in ("cls", "iou", "rsm"))
        rows.append({**found, "scores": cls if gamma is None else fuse(cls, iou, rsm, gamma)})
    return rows


@pytest.fixture
def material(tmp_path: Path) -> tuple[DetectionDataset, list[dict[str, Any]]]:
    coco, detections = make(images=24, noise=6.0)
    crowded = detections[0]
    copies = 130 * 4 // len(crowded["scores"])  # more than COCO judges of one class and image
    for key in ("boxes", "scores", "labels"):
        crowded[key] = torch.cat([crowded[key]] * copies)
    return opened(tmp_path, coco), scored(detections)


@pytest.fixture
def shown(material: tuple[DetectionDataset, list[dict[str, Any]]], show: Callable[..., Shown]) -> Shown:
    dataset, detections = material
    return show(explorers.gamma(detections, dataset))


def test_ap_and_curve_are_those_of_cocos_evaluation(
    shown: Shown, material: tuple[DetectionDataset, list[dict[str, Any]]]
) -> None:
    dataset, detections = material
    for gamma in (*GAMMAS, None):
        rows = exact(detections, gamma)
        expected = evaluation.evaluate(rows, dataset)
        for name, threshold in (("AP", "all"), ("AP50", 0.5), ("AP75", 0.75), ("AP90", 0.9)):
            assert shown.formula("ap", gamma, threshold) == pytest.approx(expected[name], abs=1e-6)
        evaluator = evaluator_for(rows, evaluation.GroundTruth.of(dataset), [ALL_AREAS], [1, 10, 100])
        evaluator.accumulate()
        precision = evaluator.eval["precision"][5, :, :, 0, -1]
        curve = precision[:, precision[0] > -1].mean(axis=1)
        np.testing.assert_allclose(shown.formula("curve", gamma, float(IOU_THRESHOLDS[5])), curve, atol=1e-9)


def test_shipped_detections_differ_only_by_single_precision(show: Callable[..., Shown]) -> None:
    from cpm_lib import shipped

    dataset, detections = shipped.validation("smoke"), shipped.detections("smoke")
    shown = show(explorers.gamma(detections, dataset))
    for gamma in GAMMAS:
        expected = evaluation.evaluate(evaluation.rescore(detections, "fused", gamma), dataset)
        assert shown.formula("ap", gamma, "all") == pytest.approx(expected["AP"], abs=0.01)


def test_order_and_arithmetic_follow_the_slider(
    shown: Shown, material: tuple[DetectionDataset, list[dict[str, Any]]]
) -> None:
    dataset, detections = material
    orders = set()
    for gamma in (0.0, 0.5, 1.0):
        shown.slide("gamma", gamma)
        order = shown.formula("order", gamma)
        orders.add(tuple(order))
        scores = [float(text) for text in shown.root.locator(".cpm-row > span:nth-child(4)").all_inner_texts()]
        assert scores == sorted(scores, reverse=True)
        cls, iou, rsm, fused = (
            shown.number(pattern)
            for pattern in (r": \(([\d.]+) ×", r"× ([\d.]+)\)\^", r"\^[\d.]+ × ([\d.]+)\^", r" = ([\d.]+)\.\n")
        )
        assert (cls * iou) ** gamma * rsm ** (1 - gamma) == pytest.approx(fused, abs=2e-3)
        expected = evaluation.evaluate(exact(detections, gamma), dataset)["AP"]
        assert shown.number(r"AP ([\d.]+), by") == pytest.approx(expected, abs=0.006)
    assert len(orders) > 1


def test_keyboard_and_choice_of_a_detection(shown: Shown) -> None:
    before = shown.number(r"AP ([\d.]+), by")
    shown.press("gamma", "ArrowLeft", 4)
    assert shown.number(r"γ = ([\d.]+): AP") == 0.6
    assert shown.number(r"AP ([\d.]+), by") != before
    assert shown.number(r"Values tried: (\d+)") == 5
    last = shown.root.locator(".cpm-row").last
    last.press("Enter")
    assert last.get_attribute("aria-pressed") == "true"
    assert shown.number(r"Number (\d+),") == shown.root.locator(".cpm-row").count()
    shown.root.get_by_label("0.75", exact=True).check()
    assert shown.number(r"AP75 ([\d.]+), by") == pytest.approx(shown.formula("ap", 0.6, 0.75), abs=0.006)


def test_the_curve_fills_in(shown: Shown) -> None:
    points = shown.root.get_by_role("group", name="AP over gamma, for the values tried").locator("circle.cpm-dot")
    assert points.count() == 2  # the value tried, and the present one around it
    shown.root.get_by_role("button", name="try every gamma").click()
    shown.page.wait_for_function("document.querySelector('.cpm-explorer').innerText.includes('Values tried: 21')")
    best = max(shown.formula("ap", value / 20, "all") for value in range(21))
    assert shown.number(r"best at γ = [\d.]+ with ([\d.]+)") == pytest.approx(best, abs=0.006)
    shown.root.get_by_role("button", name="start again").click()
    assert shown.number(r"Values tried: (\d+)") == 1


@pytest.mark.parametrize("number", [0, 1])
def test_hardly_any_detection(tmp_path: Path, show: Callable[..., Shown], number: int) -> None:
    coco, detections = make(images=3)
    few = [{key: value[: number * (k == 0)] if key != "image_id" else value for key, value in found.items()}
           for k, found in enumerate(scored(detections))]  # fmt: skip
    dataset = opened(tmp_path, coco)
    shown = show(explorers.gamma(few, dataset))
    assert shown.number(r"AP ([\d.]+), by") == pytest.approx(evaluation.evaluate(few, dataset)["AP"], abs=0.006)
    assert shown.root.locator(".cpm-row").count() == number


def test_a_detector_without_ism_and_a_choice_of_images(
    material: tuple[DetectionDataset, list[dict[str, Any]]], show: Callable[..., Shown]
) -> None:
    dataset, detections = material
    without = [{key: value for key, value in found.items() if key != "iou_scores"} for found in detections]
    shown = show(explorers.gamma(without, dataset, most=40))
    judged = int(shown.number(r"on (\d+) of 24 images"))
    assert 0 < judged < 24
    assert shown.number(r"(\d+) detections") <= 40
    everything = show(explorers.gamma(without, dataset))
    rows = [
        {**found, "scores": fuse(found["cls_scores"].double(), None, found["rsm_scores"].double(), 0.8)}
        for found in without
    ]
    assert everything.formula("ap", 0.8, "all") == pytest.approx(evaluation.evaluate(rows, dataset)["AP"], abs=1e-6)


def test_without_scripts_a_picture_stays(
    material: tuple[DetectionDataset, list[dict[str, Any]]], show: Callable[..., Shown]
) -> None:
    dataset, detections = material
    shown = show(explorers.gamma(detections, dataset), java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()


def test_bad_input_is_one_line(material: tuple[DetectionDataset, list[dict[str, Any]]]) -> None:
    dataset, detections = material
    bare = [{key: value for key, value in found.items() if key != "rsm_scores"} for found in detections]
    with pytest.raises(UserError, match="no RSM score"):
        explorers.gamma(bare, dataset)
    with pytest.raises(UserError, match="image 3 has no detections"):
        explorers.gamma(detections, dataset, image_id=3)
    with pytest.raises(UserError, match="no detections"):
        explorers.gamma([], dataset)
    nowhere = next(found for found in detections if len(found["scores"]) == 0)
    with pytest.raises(UserError, match="no object on the 1 images"):
        explorers.gamma(detections, dataset, image_id=nowhere["image_id"], most=0)
