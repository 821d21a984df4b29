"""Test-time augmentation: every pass at its size, boxes back where they belong, one merged answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cpm_lib import presets
from cpm_lib.cli import main
from cpm_lib.evaluation import augmentation, predict, predict_augmented
from cpm_lib.evaluation.augmentation import Augmented, configured, merge, mirror
from cpm_lib.model import build_model
from cpm_lib.model.fused_score import soft_nms


class BoxFinder(nn.Module):
    """Stands for a detector: finds the bright rectangle of an image, exactly, and remembers what it was asked."""

    def __init__(self, **overrides: Any) -> None:
        super().__init__()
        self.config = presets.get("cpm").override(overrides)
        self.seen: list[tuple[int, int, bool]] = []
        self.scores: dict[int, float] = {}

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        assert not self.training
        found = []
        for image in images:
            size = self.config.input
            self.seen.append((size.test_size, size.max_size, bool(image[1, 0, 0] > 0)))
            y, x = torch.nonzero(image[0] > 0.5, as_tuple=True)
            none = not len(y)
            box = torch.zeros(0, 4) if none else torch.tensor([[x.min(), y.min(), x.max() + 1, y.max() + 1]]).float()
            score = torch.full((len(box),), self.scores.get(size.test_size, 0.9))
            found.append(
                {
                    "boxes": box,
                    "labels": torch.ones(len(box), dtype=torch.long),
                    "scores": score,
                    "cls_scores": score,
                    "stage_boxes": box[:, None].repeat(1, 3, 1),
                    "proposals": box,
                }
            )
        return found


class Pictures(torch.utils.data.Dataset[Any]):
    """Images with one bright rectangle, or none; a mark in the left corner tells which way round they are."""

    name = "made up"
    rectangles = ((2, 3, 9, 8), None, (0, 0, 20, 16), (17, 5, 20, 9))

    def __len__(self) -> int:
        return len(self.rectangles)

    def size(self, index: int) -> tuple[int, int]:
        return 20, 16

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        image = torch.zeros(3, 16, 20)
        image[1, 0, 0] = 1
        if rectangle := self.rectangles[index]:
            x1, y1, x2, y2 = rectangle
            image[0, y1:y2, x1:x2] = 1
        return image, {"image_id": 10 + index}


def test_passes_of_the_paper() -> None:
    model = BoxFinder().eval()
    Augmented(model)([Pictures()[0][0]])
    further = [(size, 2000) for size in (400, 500, 600, 700, 900, 1000, 1100, 1200)]
    expected = [(*size, straight) for size in [(800, 1333), *further] for straight in (True, False)]
    assert model.seen == expected
    assert model.config == presets.get("cpm")


def test_passes_of_a_small_model_are_in_proportion() -> None:
    model = BoxFinder(**{"input.test_size": 64, "input.max_size": 96}).eval()
    Augmented(model, flip=False)([Pictures()[0][0]])
    assert model.seen == [(64, 96, True)] + [(size, 160, True) for size in (32, 40, 48, 56, 72, 80, 88, 96)]


def test_every_pass_is_mapped_back_exactly() -> None:
    found = predict_augmented(BoxFinder(), Pictures(), sizes=(400, 1200))
    assert [detection["image_id"] for detection in found] == [10, 11, 12, 13]
    for detection, rectangle in zip(found, Pictures.rectangles, strict=True):
        # Six equal boxes: the first keeps its score, the others decay to nothing.
        boxes = [list(map(float, rectangle))] if rectangle else []
        assert detection["boxes"].tolist() == boxes
        assert detection["stage_boxes"].tolist() == [[box] * 3 for box in boxes]
        assert detection["proposals"].tolist() == boxes
        assert detection["scores"].tolist() == pytest.approx([0.9] * len(boxes))


def test_mirror_with_and_without_the_last_pixel() -> None:
    boxes = torch.tensor([[2.0, 3.0, 9.0, 8.0]])
    assert mirror({"boxes": boxes}, 20)["boxes"].tolist() == [[11, 3, 18, 8]]
    twice = mirror(mirror({"boxes": boxes, "scores": boxes[:, 0]}, 20), 20)
    assert torch.equal(twice["boxes"], boxes) and torch.equal(twice["scores"], boxes[:, 0])

    class LastPixel(BoxFinder):
        def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            return [{**d, "boxes": d["boxes"] - torch.tensor([0, 0, 1, 1])} for d in super().forward(images)]

    model = LastPixel(**{"conventions.pixel_plus_one": True})
    image = Pictures()[3][0]
    assert Augmented(model.eval(), sizes=())([image])[0]["boxes"].tolist() == [[17, 5, 19, 8]]
    # Boxes for metrics and drawings are x2 - x1 wide.
    assert predict_augmented(model, Pictures(), sizes=())[3]["boxes"].tolist() == [[17, 5, 20, 9]]


def test_flip_of_a_symmetric_image_changes_nothing() -> None:
    """Both passes see the same pixels, so a real detector's mirrored boxes are its boxes mirrored."""
    torch.manual_seed(0)
    model = build_model(presets.get("cpm", "smoke").override({"classification.score_threshold": 0.0}), 4).eval()
    half = torch.rand(3, 64, 32)
    image = torch.cat((half, half.flip(-1)), dim=-1)
    with torch.inference_mode():
        alone = model([image])[0]
        merged = Augmented(model, sizes=(), soft_nms="linear")([image])[0]
        both = {key: torch.cat((alone[key], mirror(alone, 64)[key])) for key in ("boxes", "labels", "scores")}
        keep, scores = soft_nms(both["boxes"], both["scores"], both["labels"])
    assert merged.keys() == alone.keys() and len(alone["boxes"])
    torch.testing.assert_close(merged["boxes"], both["boxes"][keep[:100]])
    torch.testing.assert_close(merged["scores"], scores[:100])
    # As many and as good to the left as to the right.
    torch.testing.assert_close(both["scores"][: len(alone["scores"])], both["scores"][len(alone["scores"]) :])


def test_no_pass_but_the_first_is_the_detector_with_soft_nms() -> None:
    torch.manual_seed(0)
    model = build_model(presets.get("cpm", "smoke"), 4).train()
    image = torch.rand(3, 64, 64)
    data = [(image, {"image_id": 1})]

    class One(Pictures):
        rectangles = (None,)

        def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
            return data[index]

    plain = predict(model, One())[0]
    merged = predict_augmented(model, One(), sizes=(), flip=False, score_threshold=0.0)[0]
    keep, scores = soft_nms(plain["boxes"], plain["scores"], plain["labels"])
    assert torch.equal(merged["boxes"], plain["boxes"][keep]) and torch.equal(merged["scores"], scores)
    assert merged["image_id"] == 1 and model.training


def test_scores_threshold_classes_and_limit() -> None:
    one = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    far = one + 50

    def detection(boxes: Tensor, labels: list[int], scores: list[float]) -> dict[str, Tensor]:
        return {"boxes": boxes, "labels": torch.tensor(labels), "scores": torch.tensor(scores)}

    passes = [
        detection(torch.cat((one, far)), [1, 2], [0.5, float("nan")]),
        detection(torch.cat((one, one, far)), [2, 1, 2], [0.3, 0.05, 0.4]),
        detection(torch.zeros(0, 4), [], []),
    ]
    merged = merge(passes, 0.05, "linear", 100)
    assert merged["labels"].tolist() == [1, 2, 2]
    assert merged["scores"].tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert merge(passes, 0.05, "linear", 1)["labels"].tolist() == [1]
    assert len(merge(passes, 0.6, "gaussian", 100)["scores"]) == 0
    # A pass may be surer than the first one: its box comes first and the scores decay from it.
    model = BoxFinder()
    model.scores = {400: 0.95, 800: 0.02}
    found = predict_augmented(model, Pictures(), sizes=(400,), flip=False)
    assert found[0]["scores"].tolist() == pytest.approx([0.95])
    assert len(predict_augmented(model, Pictures(), sizes=(), score_threshold=0.03)[0]["scores"]) == 0


def test_configuration_comes_back_after_an_error() -> None:
    model = BoxFinder()
    own = model.config
    with pytest.raises(RuntimeError, match="stop"), configured(model, own.override({"input.test_size": 7})):
        assert model.config.input.test_size == 7
        raise RuntimeError("stop")
    assert model.config is own


def test_through_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CPM_CACHE", str(tmp_path / "cache"))
    run = str(tmp_path / "run")
    train = ["train", "--preset", "cpm", "--profile", "smoke", "--data", "shapes:smoke", "--iterations", "2"]
    assert main([*train, "--out", run]) == 0
    capsys.readouterr()
    command = ["eval", run, "--data", "shapes:smoke:val", "--tta"]
    sizes = []
    forward = augmentation.Augmented.forward

    def spy(self: Augmented, images: list[Tensor]) -> Any:
        sizes.append([config.input.test_size for config in self.passes])
        return forward(self, images)

    monkeypatch.setattr(augmentation.Augmented, "forward", spy)
    assert main([*command, "--json", "-", "--gamma", "0.5", "--soft-nms", "gaussian"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [(row["stage"], row["score"]) for row in content["rows"]] == [(3, "fused")]
    assert content["gamma"] == 0.5 and sizes[0] == [64, 32, 40, 48, 56, 72, 80, 88, 96]
    assert main([*command, "--stages", "all"]) == 2
    assert "--tta merges" in capsys.readouterr().err
