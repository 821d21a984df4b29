"""Augmentation keeps image, boxes and fields together."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cpm_lib.config import InputConfig
from cpm_lib.data.transforms import training


def sample(height: int = 40, width: int = 60) -> tuple[Tensor, dict[str, Any]]:
    boxes = torch.tensor([[0.0, 0, 60, 40], [3.5, 4, 20, 9], [30, 10, 31, 12]])
    target = {
        "boxes": boxes * torch.tensor([width / 60, height / 40] * 2),
        "labels": torch.tensor([3, 1, 2]),
        "image_id": 11,
        "iscrowd": torch.zeros(3, dtype=torch.int64),
        "area": torch.tensor([2400.0, 82.5, 2.0]),
    }
    return torch.rand(3, height, width), target


def test_resize_scales_boxes_exactly() -> None:
    image, target = sample()
    new_image, new = training(InputConfig(train_sizes=(80,), max_size=500, flip=0))(image, target)
    assert new_image.shape == (3, 80, 120)
    assert torch.allclose(new["boxes"], 2 * target["boxes"], atol=1e-5)
    assert torch.allclose(new["area"], 4 * target["area"])
    assert new["labels"].tolist() == [3, 1, 2] and new["image_id"] == 11
    assert type(new_image) is Tensor and type(new["boxes"]) is Tensor


def test_long_side_is_capped_and_each_axis_has_its_own_scale() -> None:
    image, target = sample(33, 61)
    new_image, new = training(InputConfig(train_sizes=(80,), max_size=100, flip=0))(image, target)
    height, width = new_image.shape[-2:]
    assert max(height, width) == 100
    scale = torch.tensor([width / 61, height / 33] * 2)
    assert torch.allclose(new["boxes"], target["boxes"] * scale, atol=1e-4)
    assert (new["boxes"][:, 2] <= width).all() and (new["boxes"][:, 3] <= height).all()


def test_flip_twice_is_identity() -> None:
    flip = training(InputConfig(train_sizes=(40,), max_size=60, flip=1))
    image, target = sample()
    once_image, once = flip(image, target)
    assert torch.equal(once_image, image.flip(-1)) and not torch.equal(once["boxes"], target["boxes"])
    assert once["boxes"][1].tolist() == [40, 4, 56.5, 9]
    twice_image, twice = flip(once_image, once)
    assert torch.equal(twice_image, image)
    assert torch.equal(twice["boxes"], target["boxes"])


def test_box_moves_with_its_pixels() -> None:
    image = torch.zeros(3, 40, 60)
    image[:, 10:20, 5:25] = 1
    _, target = sample()
    target["boxes"][1] = torch.tensor([5.0, 10, 25, 20])
    new_image, new = training(InputConfig(train_sizes=(80,), max_size=500, flip=1))(image, target)
    rows, columns = torch.nonzero(new_image[0] > 0.5, as_tuple=True)
    seen = [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]
    assert new["boxes"][1].tolist() == seen


def test_random_choice_follows_the_global_seed() -> None:
    transform = training(InputConfig(train_sizes=(32, 40, 48, 56), max_size=500))
    image, target = sample()
    results = []
    for seed in (*range(12), 0):
        torch.manual_seed(seed)
        results.append(transform(image, target))
    assert len({result[0].shape[-1] for result in results}) == 4
    assert torch.equal(results[0][0], results[-1][0])


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_no_object_and_unchanged_input(flip: float) -> None:
    image, target = sample()
    empty = {**target, "boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "area": torch.zeros(0)}
    before = image.clone()
    new_image, new = training(InputConfig(train_sizes=(20,), max_size=500, flip=flip))(image, empty)
    assert new_image.shape == (3, 20, 30) and new["boxes"].shape == (0, 4)
    assert torch.equal(image, before) and empty["boxes"].shape == (0, 4)
