"""The truncation explorer: frames are the model's, formulas the library's, and it answers mouse and keyboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchvision.ops import box_iou

from cpm_lib import evaluation, explorers, shipped
from cpm_lib.errors import UserError
from cpm_lib.explorers.truncation import MIN_IOU, follow, scene
from cpm_lib.model.fused_score import fuse
from tests.explorers.conftest import Shown

SHARES = (0.0, 0.2, 0.4)


@pytest.fixture(scope="module")
def explorer() -> explorers.Explorer:
    return explorers.truncation(classes=("ring", "disk"), shares=SHARES)


@pytest.fixture
def shown(show: Callable[..., Shown], explorer: explorers.Explorer) -> Shown:
    return show(explorer)


class Fixed(torch.nn.Module):
    """Finds the same boxes in every image."""

    def __init__(self, boxes: list[list[float]], labels: list[int], scores: list[float]) -> None:
        super().__init__()
        values = torch.tensor(scores)
        self.found = {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}
        self.found |= {"scores": values, "cls_scores": values}
        self.config = shipped.model().config

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return [dict(self.found) for _ in images]


def test_the_scene_holds_the_object_where_it_says() -> None:
    view = scene("square", 40)
    assert view.canvas.shape == (3, 128, 168)
    assert view.label == 2
    x1, y1, x2, y2 = view.box.tolist()
    assert max(x2 - x1, y2 - y1) == pytest.approx(40, abs=1)
    assert x1 == pytest.approx(20, abs=0.6)
    assert (y1 + y2) / 2 == pytest.approx(64, abs=0.6)
    inside = view.canvas[:, int(y1) + 15 : int(y2) - 15, int(x1) + 15 : int(x2) - 15].mean(dim=(1, 2))
    around = view.canvas[:, int(y1) : int(y2), int(x2) + 2 : int(x2) + 6].mean(dim=(1, 2))
    assert float((inside - around).norm()) > 0.1


def test_frames_are_what_the_model_says(explorer: explorers.Explorer) -> None:
    view, frames = scene("ring", 60), explorer.data["objects"][0]["frames"]
    assert [frame["share"] for frame in frames] == list(SHARES)
    for frame in frames:
        left = frame["left"]
        found = evaluation.predict(shipped.model(), [(view.canvas[:, :, left : left + 128], {"image_id": 0})])[0]
        box = torch.tensor(frame["box"]) - torch.tensor([left, 0.0, left, 0.0])
        row = int((found["boxes"] - box).abs().sum(dim=1).argmin())
        torch.testing.assert_close(found["boxes"][row], box, rtol=0, atol=0.06)
        assert found["labels"][row] == view.label
        visible = (view.box - torch.tensor([left, 0.0, left, 0.0])).clamp(min=0)
        iou = float(box_iou(found["boxes"][row][None], visible[None]))
        assert frame["iou"] == pytest.approx(iou, abs=1e-3)
        assert iou >= MIN_IOU
        for name, key in (("cls", "cls_scores"), ("ISM", "iou_scores"), ("RSM", "rsm_scores"), ("fused", "scores")):
            assert frame["scores"][name] == pytest.approx(float(found[key][row]), abs=1e-3)
    cut = [(frame["left"] - float(view.box[0])) / float(view.box[2] - view.box[0]) for frame in frames]
    assert cut == pytest.approx(SHARES, abs=0.5 / 58)


def test_the_box_of_its_class_that_fits_best_is_taken() -> None:
    view = scene("disk", 40)
    x1, y1, x2, y2 = view.box.tolist()
    left = round(x1)
    exact, wide = [x1 - left, y1, x2 - left, y2], [x1 - left, y1, x2 - left + 10, y2]
    model: Any = Fixed([wide, exact, exact], [1, 1, 2], [0.5, 0.2, 0.9])
    frame = follow(model, view, [0.0])[0]
    assert frame["iou"] == pytest.approx(1, abs=1e-3)
    assert frame["scores"] == {"cls": 0.2, "fused": 0.2}
    assert frame["called"] == ["square", 0.9]


def test_formulas_are_those_of_the_library(shown: Shown, explorer: explorers.Explorer) -> None:
    gamma = shipped.model().config.scoring.gamma
    for frame in explorer.data["objects"][1]["frames"]:
        scores = frame["scores"]
        cls, ism, rsm = torch.tensor([scores[name] for name in ("cls", "ISM", "RSM")], dtype=torch.float64)
        expected = float(fuse(cls, ism, rsm, gamma))
        assert shown.formula("fuse", scores) == pytest.approx(expected, abs=1e-12)
        assert scores["fused"] == pytest.approx(expected, abs=1e-3)
    assert shown.formula("fuse", {"cls": 0.5, "ISM": 1.3}) == 0.5
    assert shown.formula("fuse", {"cls": 0.5, "RSM": 0.5}) == pytest.approx(0.5)
    box = explorer.data["objects"][0]["box"]
    assert shown.formula("visible", box, 50) == [50, *box[1:]]


def test_slider_mouse_and_keys_shift_the_image(shown: Shown, explorer: explorers.Explorer) -> None:
    frames = explorer.data["objects"][0]["frames"]
    outside = r"pixels, (\d+) %"
    assert shown.number(outside) == 20
    shown.slide("outside the image", 2)
    assert shown.number(outside) == 40
    assert shown.number(r"True IoU of the box: ([\d.]+)") == pytest.approx(frames[2]["iou"], abs=0.006)
    assert shown.number(r"RSM ([\d.]+)") == pytest.approx(frames[2]["scores"]["RSM"], abs=0.006)
    assert shown.number(r"= ([\d.]+)") == pytest.approx(frames[2]["scores"]["fused"], abs=0.006)
    shown.press("image: move it over the scene", "ArrowLeft")
    assert shown.number(outside) == 20
    shown.drag("image: move it over the scene", -60, 0)
    assert shown.number(outside) == 0
    chart = shown.root.locator(".cpm-touch").bounding_box()
    assert chart
    shown.page.mouse.click(chart["x"] + chart["width"] - 8, chart["y"] + 20)
    assert shown.number(outside) == 40
    assert shown.root.get_by_label("outside the image", exact=True).input_value() == "2"


def test_another_object_has_its_own_numbers(shown: Shown, explorer: explorers.Explorer) -> None:
    shown.root.get_by_label("disk", exact=True).check()
    frame = explorer.data["objects"][1]["frames"][1]
    assert shown.number(r"cls ([\d.]+)") == pytest.approx(frame["scores"]["cls"], abs=0.006)
    assert "says disk" in shown.numbers


def test_a_model_that_finds_nothing(show: Callable[..., Shown]) -> None:
    model: Any = Fixed([], [], [])
    shown = show(explorers.truncation(model, classes=("star",), shares=(0.0, 0.5)))
    assert "No box of the class star" in shown.numbers
    assert "No box of any class" in shown.numbers


def test_one_share_is_enough(show: Callable[..., Shown]) -> None:
    model: Any = Fixed([[0, 40, 60, 90]], [4], [0.5])
    shown = show(explorers.truncation(model, classes=("star",), shares=(0.0,)))
    assert shown.number(r"cls ([\d.]+)") == 0.5


def test_bad_settings_are_named() -> None:
    with pytest.raises(UserError, match=r"'stra'.*star"):
        scene("stra", 40)
    with pytest.raises(UserError, match="longest is 125"):
        scene("star", 125)
    with pytest.raises(UserError, match="rising list"):
        explorers.truncation(shares=(0.5, 0.1))
    with pytest.raises(UserError, match="no class"):
        explorers.truncation(classes=())


def test_without_scripts_a_picture_stays(show: Callable[..., Shown], explorer: explorers.Explorer) -> None:
    shown = show(explorer, java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()


def test_it_is_light_enough_for_a_page() -> None:
    assert len(explorers.truncation().page()) < 400_000
