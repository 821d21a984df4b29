"""Batches are a function of (seed, iteration), for any start, worker and process count."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from cpm_lib.config import Config
from cpm_lib.data import DetectionDataset
from cpm_lib.data.loading import Batch, BatchPlan, evaluation_batches, training_batches
from cpm_lib.errors import UserError

CONFIG = Config().override({"input.train_sizes": [24, 30], "input.max_size": 60, "solver.images_per_batch": 4})


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True)) and all(
        x["image_id"] == y["image_id"] and torch.equal(x["boxes"], y["boxes"]) for x, y in zip(a[1], b[1], strict=True)
    )


def ids(batch: Batch) -> list[int]:
    return [target["image_id"] for target in batch[1]]


def batches(dataset: DetectionDataset, **options: Any) -> list[Batch]:
    return list(training_batches(dataset, CONFIG, **{"seed": 0, "stop": 9, **options}))


def test_seek_equals_continue(mixed: DetectionDataset) -> None:
    whole = batches(mixed)
    assert len(whole) == 9
    for start in (1, 5, 8):
        assert all(same(a, b) for a, b in zip(whole[start:], batches(mixed, start=start), strict=True))
    assert batches(mixed, start=9) == []


def test_workers_and_global_state_change_nothing(mixed: DetectionDataset) -> None:
    torch.manual_seed(1)
    alone = batches(mixed)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    together = batches(mixed, workers=2)
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    batches(mixed)
    assert torch.equal(state, torch.get_rng_state())


def test_seed_changes_order_and_augmentation(mixed: DetectionDataset) -> None:
    first, second = batches(mixed), batches(mixed, seed=1)
    assert [ids(batch) for batch in first] != [ids(batch) for batch in second]
    shapes = {image.shape for batch in first for image in batch[0]}
    assert len(shapes) == 4  # two sizes, portrait and landscape


def test_processes_cut_the_batch_in_order(mixed: DetectionDataset) -> None:
    whole = batches(mixed)
    parts = [batches(mixed, rank=rank, world=2) for rank in range(2)]
    for i, batch in enumerate(whole):
        joined = (parts[0][i][0] + parts[1][i][0], parts[0][i][1] + parts[1][i][1])
        assert len(parts[0][i][0]) == 2 and same(batch, joined)
    with pytest.raises(UserError, match="images_per_batch is 4: not a multiple of the 3 processes"):
        batches(mixed, world=3)


def test_an_epoch_shows_each_image_at_most_once_and_keeps_aspects_apart() -> None:
    portrait = [index % 5 in (0, 3) for index in range(23)]  # 10 portrait, 13 landscape
    plan = BatchPlan(portrait, 4, 0)
    assert plan.batches_per_epoch == 5
    orders = set()
    for epoch in range(6):
        cut = [plan.batch(epoch * 5 + position) for position in range(5)]
        flat = [index for batch in cut for index in batch]
        assert len(flat) == 20 and len(set(flat)) == 20
        assert sum(len({portrait[index] for index in batch}) > 1 for batch in cut) <= 1
        orders.add(tuple(flat))
    assert len(orders) == 6
    seen = {index for iteration in range(40) for index in plan.batch(iteration)}
    assert seen == set(range(23))


def test_plan_is_pure_in_any_order_of_asking() -> None:
    forward = BatchPlan([False] * 10, 3, 7)
    expected = [forward.batch(iteration) for iteration in range(9)]
    backward = BatchPlan([False] * 10, 3, 7)
    assert [backward.batch(iteration) for iteration in reversed(range(9))] == expected[::-1]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_fewer_images_than_a_batch(count: int) -> None:
    plan = BatchPlan([False] * count, 5, 0)
    batch = plan.batch(4)
    assert len(batch) == 5 and set(batch) == set(range(count))


def test_images_without_objects_are_trained_on(mixed: DetectionDataset) -> None:
    empty = [target for batch in batches(mixed) for target in batch[1] if not len(target["boxes"])]
    assert empty and all(target["boxes"].shape == (0, 4) for target in empty)


def test_images_without_objects_can_be_left_out(mixed: DetectionDataset) -> None:
    config = CONFIG.override({"input.skip_empty": True})
    shown = [target for batch in training_batches(mixed, config, seed=0, stop=12) for target in batch[1]]
    # Every third image has no box (see the fixture).
    assert {target["image_id"] for target in shown} == {index + 1 for index in range(23) if index % 3}
    mixed._boxes[:, 2] = mixed._boxes[:, 0] + 1  # one pixel wide
    with pytest.raises(UserError, match="mixed: no image with an object"):
        next(training_batches(mixed, config, seed=0, stop=1))


def test_batch_size_must_be_positive(mixed: DetectionDataset) -> None:
    config = dataclasses.replace(CONFIG, solver=dataclasses.replace(CONFIG.solver, images_per_batch=0))
    with pytest.raises(UserError, match="must be at least 1"):
        list(training_batches(mixed, config, seed=0, stop=1))


def test_evaluation_keeps_order_and_pixels(mixed: DetectionDataset) -> None:
    found = list(evaluation_batches(mixed, 5))
    assert [len(batch[0]) for batch in found] == [5, 5, 5, 5, 3]
    assert [i for batch in found for i in ids(batch)] == mixed.image_ids
    assert torch.equal(found[1][0][2], mixed[7][0])
    (chosen,) = evaluation_batches(mixed, 5, indices=[4, 0])
    assert ids(chosen) == [5, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_stops_with_one_line(workers: int, mixed: DetectionDataset) -> None:
    path = Path(mixed.file(2))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"2\.png: cannot be decoded .*\(image 3 of mixed\)") as caught:
        list(evaluation_batches(mixed, 4, workers=workers))
    assert "\n" not in str(caught.value)
