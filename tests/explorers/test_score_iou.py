"""The score explorer: its correlations are the library's, and each dot shows its own detection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cpm_lib import evaluation, explorers, shipped
from cpm_lib.errors import UserError
from cpm_lib.model.fused_score import fuse
from tests.explorers.conftest import Shown

DATA = shipped.validation("smoke")
NAMES = {"cls": "cls_scores", "ISM": "iou_scores", "RSM": "rsm_scores", "cls × ISM": "cls_ism", "fused": "fused"}


def found(seed: int = 0, jitter: float = 3.0, count: int = 3) -> list[dict[str, Any]]:
    """Boxes around the objects of every image, with random scores."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for number in range(len(DATA)):
        target = DATA.target(number)
        boxes = target["boxes"].repeat(count, 1)
        boxes = boxes + jitter * torch.randn(boxes.shape, generator=generator)
        parts = {key: torch.rand(len(boxes), generator=generator) for key in ("cls_scores", "iou_scores", "rsm_scores")}
        scores = fuse(parts["cls_scores"], parts["iou_scores"], parts["rsm_scores"], 0.8)
        labels = target["labels"].repeat(count)
        result.append({"image_id": target["image_id"], "boxes": boxes, "labels": labels, "scores": scores, **parts})
    return result


@pytest.fixture(scope="module")
def explorer() -> explorers.Explorer:
    return explorers.score_iou(found(), DATA)


@pytest.fixture
def shown(show: Callable[..., Shown], explorer: explorers.Explorer) -> Shown:
    return show(explorer)


def row(shown: Shown, name: str) -> list[float]:
    """This box, Pearson, Spearman, calibration error."""
    cells = shown.root.locator("tbody tr").filter(has=shown.page.get_by_role("rowheader", name=name, exact=True))
    return [float(text.replace("−", "-")) for text in cells.locator("td").all_inner_texts()]


def test_formulas_are_those_of_the_library(shown: Shown) -> None:
    generator = torch.Generator().manual_seed(1)
    for size in (2, 7, 60):
        scores, ious = torch.rand(2, size, generator=generator, dtype=torch.float64)
        # Ties, and values outside 0..1 as the raw ISM has them.
        scores = (scores * 12 - 0.5).round() / 10
        expected = evaluation.score_correlation(scores, ious)
        table = evaluation.calibration(scores, ious)
        given = (scores.tolist(), ious.tolist())
        for name in ("pearson", "spearman"):
            value = shown.formula(name, *given)
            assert (value is None) == (expected[name] is None)
            if value is not None:
                assert value == pytest.approx(expected[name], abs=1e-9)
        found = shown.formula("calibration", *given)
        assert found["error"] == pytest.approx(table["error"], abs=1e-9)
        full = [bin_ for bin_ in table["bins"] if bin_["n"]]
        assert [bin_["n"] for bin_ in found["means"]] == [bin_["n"] for bin_ in full]
        assert [bin_["iou"] for bin_ in found["means"]] == pytest.approx([bin_["iou"] for bin_ in full])


@pytest.mark.parametrize(
    ("scores", "ious"),
    [([], []), ([0.3], [0.5]), ([0.3, 0.3], [0.5, 0.7]), ([0.3, None, 0.9], [0.5, 0.6, 0.7]), ([1.0, 0.0], [1.0, 0.0])],
)
def test_undefined_is_undefined_on_both_sides(shown: Shown, scores: list[Any], ious: list[float]) -> None:
    values = torch.tensor([math.nan if value is None else value for value in scores])
    expected = evaluation.score_correlation(values, torch.tensor(ious))
    for name in ("pearson", "spearman"):
        assert shown.formula(name, scores, ious) == (expected[name] and pytest.approx(expected[name]))
    error = shown.formula("calibration", scores, ious)["error"]
    assert error == (None if expected["calibration_error"] is None else pytest.approx(expected["calibration_error"]))


def test_fused_score_is_that_of_the_library(shown: Shown) -> None:
    cls, iou, rsm = torch.tensor([[0.92], [0.81], [0.95]], dtype=torch.float64)
    assert shown.formula("fuse", 0.92, 0.81, 0.95) == pytest.approx(float(fuse(cls, iou, rsm, 0.8)))
    assert shown.formula("fuse", 0.92, 1.2) == pytest.approx(0.92)
    assert shown.formula("fuse", 0.92, -0.1) == 0


def test_the_table_is_score_quality(shown: Shown) -> None:
    expected = evaluation.score_quality(found(), DATA, min_iou=0.5, gamma=0.8)
    for name, key in NAMES.items():
        values = [expected[key][measure] for measure in ("pearson", "spearman", "calibration_error")]
        assert row(shown, name)[1:] == pytest.approx(values, abs=0.006)


def test_restricting_the_iou_changes_the_numbers(shown: Shown) -> None:
    shown.slide("least IoU", 0.8)
    expected = evaluation.score_quality(found(), DATA, min_iou=0.8, gamma=0.8)["cls_scores"]
    assert row(shown, "cls")[1] == pytest.approx(expected["pearson"], abs=0.006)
    assert shown.number(r"Box \d+ of (\d+)") == expected["n"]
    assert shown.number(r"True IoU ([\d.]+)") >= 0.8
    visible = shown.root.locator("g > .cpm-dot:not([hidden])").count()
    assert visible == expected["n"]


def test_keys_go_by_iou_and_the_mouse_picks(shown: Shown, explorer: explorers.Explorer) -> None:
    label = "detection, by true IoU"
    ious = explorer.data["iou"]
    shown.press(label, "Home")
    assert shown.number(r"True IoU ([\d.]+)") == pytest.approx(ious[0], abs=0.006)
    shown.press(label, "ArrowRight", 3)
    assert shown.number(r"Box (\d+) of") == 4
    assert shown.number(r"cls ([\d.]+)") == pytest.approx(explorer.data["scores"]["cls"][3], abs=0.006)
    shown.press(label, "ArrowDown")
    shown.press(label, "Shift+ArrowUp")
    assert shown.number(r"Box (\d+) of") == 13
    shown.press(label, "End")
    shown.press(label, "ArrowRight")
    assert shown.number(r"Box (\d+) of") == len(ious)
    target = shown.root.locator("g > .cpm-dot").nth(20).bounding_box()
    assert target
    shown.page.mouse.click(target["x"] + target["width"] / 2, target["y"] + target["height"] / 2)
    assert shown.number(r"Box (\d+) of") == 21
    value = shown.root.get_by_label(label, exact=True).get_attribute("aria-valuetext")
    assert value
    assert value.startswith("Box 21 of")
    frame = shown.root.locator("rect.cpm-prediction[x]").first
    assert float(frame.get_attribute("x") or "nan") == explorer.data["box"][20][0]


def test_another_score_moves_the_dots_and_shows_its_arithmetic(shown: Shown, explorer: explorers.Explorer) -> None:
    shown.root.get_by_label("fused", exact=True).check()
    shown.press("detection, by true IoU", "Home")
    parts = [explorer.data["scores"][name][0] for name in ("cls", "ISM", "RSM")]
    expected = (parts[0] * parts[1]) ** 0.8 * parts[2] ** 0.2
    assert shown.number(r"\^0\.20 = ([\d.]+)") == pytest.approx(expected, abs=0.006)
    assert row(shown, "fused")[0] == pytest.approx(expected, abs=0.006)
    shown.root.get_by_label("cls × ISM", exact=True).check()
    assert shown.number(r"× [\d.]+ = ([\d.]+)") == pytest.approx(parts[0] * parts[1], abs=0.006)


def test_whole_images_from_the_first_on() -> None:
    data = explorers.score_iou(found(), DATA, most=20).data
    assert len(data["iou"]) <= 20
    assert len(data["images"]) == len(set(data["image"]))
    ids = DATA.image_ids[: len(data["images"])]
    expected = evaluation.match(found(), DATA)
    assert len(data["iou"]) == sum(
        int((expected.ious[expected.image_ids == image_id] >= 0.5).sum()) for image_id in ids
    )
    assert data["iou"] == sorted(data["iou"])
    assert len(explorers.score_iou(found(), DATA, most=1).data["images"]) == 1


def test_raw_scores_that_are_no_numbers(show: Callable[..., Shown]) -> None:
    detections = found()
    for one in detections:
        one["iou_scores"][::2] = math.nan
    shown = show(explorers.score_iou(detections, DATA))
    expected = evaluation.score_quality(detections, DATA, min_iou=0.5)["iou_scores"]
    assert row(shown, "ISM")[1] == pytest.approx(expected["pearson"], abs=0.006)


def test_a_detector_with_one_score(show: Callable[..., Shown]) -> None:
    detections = [{key: one[key] for key in one if key not in ("iou_scores", "rsm_scores")} for one in found()]
    shown = show(explorers.score_iou(detections, DATA))
    assert shown.root.locator("tbody tr").count() == 1


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_detection(show: Callable[..., Shown], count: int) -> None:
    detections = found(count=1, jitter=0.1)
    for number, one in enumerate(detections):
        keep = count if number == 0 else 0
        one.update({key: value[:keep] for key, value in one.items() if key != "image_id"})
    shown = show(explorers.score_iou(detections, DATA))
    assert ("No box is left" in shown.numbers) == (count == 0)
    if count:
        assert shown.number(r"Box \d of (\d)") == 1
        assert "–" in shown.root.locator("tbody").inner_text()


def test_missing_scores_are_named() -> None:
    detections = found()
    del detections[3]["cls_scores"]
    with pytest.raises(UserError, match=f"image {DATA.image_ids[3]}: no 'cls_scores'"):
        explorers.score_iou(detections, DATA)


def test_without_scripts_a_picture_stays(show: Callable[..., Shown], explorer: explorers.Explorer) -> None:
    shown = show(explorer, java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()
