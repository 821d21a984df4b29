"""Every preset at smoke size: losses, gradients, detections, and the cases that break other detectors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cpm_lib import presets
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model import build_model
from cpm_lib.model.detector import Detector

SIDE = 64
MAIN = ("cpm", "grid", "grid-fused", "grid-original", "faster", "cascade", "cascade-ism-rsm")


def images(number: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, SIDE, SIDE, generator=generator) for _ in range(number)]


def targets(*counts: int) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for number, count in enumerate(counts):
        corner = torch.rand(count, 2, generator=generator) * SIDE / 2
        side = 8 + torch.rand(count, 2, generator=generator) * SIDE / 3
        labels = torch.randint(1, 4, (count,), generator=generator)
        made.append({"boxes": torch.cat((corner, corner + side), dim=1), "labels": labels, "image_id": number})
    return made


def detector(preset: str, **overrides) -> Detector:
    torch.manual_seed(0)
    return build_model(presets.get(preset, "smoke").override(overrides), num_classes=4)


@pytest.mark.parametrize("preset", sorted(presets.PRESETS))
def test_every_preset_trains_and_detects(preset: str) -> None:
    model = detector(preset).train()
    losses = model(images(2), targets(3, 1))
    assert all(name.startswith("loss_") and value.isfinite() for name, value in losses.items())
    model.eval()
    with torch.inference_mode():
        found = model(images(2))
    assert len(found) == 2
    assert {"boxes", "labels", "scores", "cls_scores", "stage_boxes", "proposals"} <= found[0].keys()
    scoring = model.config.scoring
    assert ("iou_scores" in found[0]) == scoring.ism
    assert ("rsm_scores" in found[0]) == scoring.rsm


@pytest.mark.parametrize("preset", MAIN)
@pytest.mark.parametrize("counts", [(2, 3), (0, 2), (0, 0), (1, 0)], ids=str)
def test_every_parameter_gets_a_gradient(preset: str, counts: tuple[int, ...]) -> None:
    model = detector(preset).train()
    sum(model(images(2), targets(*counts)).values()).backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("preset", MAIN)
def test_one_image_and_no_detection(preset: str) -> None:
    model = detector(preset, **{"classification.score_threshold": 0.999}).eval()
    with torch.inference_mode():
        found = model(images(1))[0]
    stages = 1 if model.config.detector == "faster" else model.config.cascade.stages
    assert found["boxes"].shape == (0, 4)
    assert found["stage_boxes"].shape == (0, stages, 4)


@pytest.mark.parametrize("preset", ["cpm", "faster", "cascade-ism-rsm"])
def test_batched_equals_single(preset: str) -> None:
    model = detector(preset, **{"classification.score_threshold": 0.0}).eval()
    several = images(3)
    with torch.inference_mode():
        together = model(several)
        alone = [model([image])[0] for image in several]
    for first, second in zip(together, alone, strict=True):
        assert first.keys() == second.keys()
        assert len(first["boxes"])
        for key in first:
            torch.testing.assert_close(first[key], second[key], rtol=1e-4, atol=1e-3)


def test_fused_score_and_final_boxes_are_what_the_parts_say() -> None:
    model = detector("cpm").eval()
    with torch.inference_mode():
        found = model(images(1))[0]
    parts = (found["cls_scores"] * found["iou_scores"]) ** 0.8 * found["rsm_scores"] ** 0.2
    torch.testing.assert_close(found["scores"], parts)
    assert torch.equal(found["boxes"], found["stage_boxes"][:, -1])
    assert (found["scores"].diff() <= 0).all()
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"] <= SIDE).all()


def test_boxes_come_back_in_pixels_of_the_image_given() -> None:
    model = detector("cpm").eval()
    image = images(1)[0]
    large = torch.nn.functional.interpolate(image[None], scale_factor=2, mode="nearest")[0]
    with torch.inference_mode():
        small_found, large_found = model([image])[0], model([large])[0]
    assert large_found["boxes"].max() <= 2 * SIDE
    # Shrinking the doubled image gives the image back, up to the filter at its edges.
    assert abs(len(large_found["boxes"]) - len(small_found["boxes"])) <= 8


def test_sampling_depends_on_seed_iteration_and_image_only() -> None:
    def losses(seed: int, iteration: int, disturb: bool = False) -> list[float]:
        model = detector("cpm").train()
        if disturb:
            torch.rand(7)
        model.sampling.set(seed, iteration)
        return [value.item() for value in model(images(2), targets(3, 2)).values()]

    assert losses(0, 5) == losses(0, 5, disturb=True)
    assert losses(0, 5) != losses(1, 5)
    assert losses(0, 5) != losses(0, 6)


@pytest.mark.parametrize(
    "switch",
    [
        {"pixel_plus_one": True}, {"clip_boxes": False}, {"ism_target": "input"}, {"ism_index_slip": True},
        {"ism_clamp": False}, {"rsm_positives": "input"}, {"rois_at_test": None}, {"heatmap_rounding": "trunc"},
        {"joint_proposals": True}, {"gt_copies": "elements"}, {"gt_append": 1.0}, {"pad_before_normalise": True},
    ],
    ids=lambda switch: next(iter(switch)),
)  # fmt: skip
def test_each_single_switch_runs(switch: dict) -> None:
    model = detector("cpm", **{f"conventions.{key}": value for key, value in switch.items()}).train()
    sum(model(images(2), targets(3, 1)).values()).backward()
    with torch.inference_mode():
        model.eval()(images(1))


def test_official_conventions_run() -> None:
    config = presets.get("cpm", "smoke", "official")
    model = build_model(config, 4).train()
    sum(model(images(2), targets(3, 1)).values()).backward()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"boxes": torch.tensor([[5.0, 5.0, 5.0, 9.0]]), "labels": torch.tensor([1])}, "no positive width"),
        ({"boxes": torch.tensor([[9.0, 5.0, 5.0, 9.0]]), "labels": torch.tensor([1])}, "no positive width"),
        ({"boxes": torch.tensor([[1.0, 1.0, 5.0, 9.0]]), "labels": torch.tensor([4])}, "label 4"),
        ({"boxes": torch.tensor([[1.0, 1.0, 5.0, 9.0]]), "labels": torch.tensor([0])}, "label 0"),
        ({"boxes": torch.tensor([[1.0, float("nan"), 5.0, 9.0]]), "labels": torch.tensor([1])}, "no positive width"),
        ({"boxes": torch.zeros(1, 3), "labels": torch.tensor([1])}, r"\[N, 4\]"),
        ({"boxes": torch.zeros(0, 4)}, "labels"),
    ],
)
def test_malformed_targets_are_refused_with_the_image_id(target: dict, words: str) -> None:
    with pytest.raises(UserError, match=f"image 17.*{words}"):
        detector("cpm").train()(images(1), [target | {"image_id": 17}])


def test_malformed_images_are_refused() -> None:
    model = detector("cpm").eval()
    as_bytes = torch.zeros(3, 8, 8, dtype=torch.uint8)
    for bad in ([], [torch.zeros(1, 8, 8)], [torch.zeros(3, 0, 8)], [as_bytes]):
        with pytest.raises(UserError):
            model(bad)


def test_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'cascade-ism'"):
        build_model("cascade-imm", 4)


def test_overfits_two_images() -> None:
    """The whole detector learns two images by heart: the loss falls tenfold."""
    torch.manual_seed(0)
    config: Config = presets.get("cpm", "smoke").override(
        {
            "grid.channels_per_point": 8,
            "grid.start_bias": None,
            "proposals.post_nms_train": 30,
            "cascade.stage_weights": [1.0, 1.0, 1.0],
        }
    )
    model = build_model(config, 4).train()
    pixels, truth = images(2), targets(2, 1)
    for image, target in zip(pixels, truth, strict=True):
        for box, label in zip(target["boxes"].int().tolist(), target["labels"].tolist(), strict=True):
            image[:, box[1] : box[3], box[0] : box[2]] = torch.eye(3)[label - 1][:, None, None]
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    totals = []
    for iteration in range(100):
        model.sampling.set(0, iteration)
        loss = sum(model(pixels, truth).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(loss.item())
    assert sum(totals[-5:]) / 5 < totals[0] / 10
