"""The number of processes changes nothing: not the losses, not the gradients, not the evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cpm_lib import presets
from cpm_lib.config import Config
from cpm_lib.data import open_source
from cpm_lib.data.loading import training_batches
from cpm_lib.model import build_model
from cpm_lib.model.losses import Mean, normalise
from cpm_lib.training import checkpoint, distributed, sharding, train
from tests.training import processes

TOLERANCE = 1e-4
SETTINGS = {
    "backbone.norm": "frozen",  # statistics of a batch would be those of each process's part
    "solver.images_per_batch": 4,
    "solver.iterations": 20,
    "solver.optimiser": "sgd",
    "solver.lr": 0.001,  # large steps let a rounding error grow until it decides about a sample
}


def config(**changes: Any) -> Config:
    return presets.get("cpm", "smoke").override(SETTINGS | changes)


def detector(settings: Config, classes: int) -> Any:
    """Fresh weights, but with proposals whose scores lie apart.

    A fresh RPN gives nearly equal ones: the least rounding changes their order, and with it which are sampled.
    """
    torch.manual_seed(0)
    model = build_model(settings, classes + 1)
    with torch.no_grad():
        model.proposals.head.cls_logits.weight.mul_(100)
    return model


def first_gradients(settings: Config) -> dict[str, torch.Tensor]:
    """Gradients of the first iteration, as the optimiser sees them."""
    data = open_source("shapes:smoke")
    model = detector(settings, len(data.classes)).train()
    network = distributed.wrap(model, torch.device("cpu"))
    rank, world = distributed.rank(), distributed.world()
    images, targets = next(training_batches(data, settings, seed=0, stop=1, rank=rank, world=world))
    model.sampling.set(0, 1)
    sum(network(images, targets).values()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def train_losses(settings: Config, out: Path) -> list[dict[str, float]]:
    data = open_source("shapes:smoke")
    train(settings, data, out, model=detector(settings, len(data.classes)), quiet=True, device="cpu")
    return [json.loads(line) for line in (out / "metrics.jsonl").open()]


@pytest.mark.parametrize("world", [2, 4])
def test_first_gradients(world: int) -> None:
    alone = processes.run(first_gradients, 0, config())[0]
    shared = processes.run(first_gradients, world, config())[0]
    assert alone.keys() == shared.keys()
    for name, gradient in alone.items():
        assert (shared[name] - gradient).norm() <= TOLERANCE * gradient.norm() + 1e-9, name


def test_losses_of_twenty_iterations(tmp_path: Path) -> None:
    runs = {world: processes.run(train_losses, world, config(), tmp_path / str(world))[0] for world in (1, 2, 4)}
    for world in (2, 4):
        assert len(runs[world]) == 20
        for alone, shared in zip(runs[1], runs[world], strict=True):
            assert shared == pytest.approx(alone, rel=TOLERANCE, abs=1e-6)


def test_the_authors_way_depends_on_the_processes(tmp_path: Path) -> None:
    """The check above can fail: with each process's own normalisers the gradients differ."""
    settings = config(**{"solver.normalise": "process"})
    alone = processes.run(first_gradients, 0, settings)[0]
    shared = processes.run(first_gradients, 2, settings)[0]
    assert any((shared[name] - value).norm() > 10 * TOLERANCE * value.norm() for name, value in alone.items())


def test_parts_of_a_batch_are_like_processes(tmp_path: Path) -> None:
    """With normalisers of their own, 2 parts in one process are what 2 processes are: one GPU repeats many."""
    settings = config(**{"solver.normalise": "process", "solver.iterations": 5})
    parts = settings.override({"solver.accumulate": 2})
    [alone], shared = (
        processes.run(train_losses, 0, parts, tmp_path / "parts"),
        processes.run(train_losses, 2, settings, tmp_path / "processes")[0],
    )
    for one, other in zip(alone, shared, strict=True):
        assert other == pytest.approx(one, rel=TOLERANCE, abs=1e-6)


def normalised(counts: list[int]) -> dict[str, float]:
    count = counts[distributed.rank()]
    losses = {"loss": Mean(torch.tensor(2.0 * count), count), "nothing": Mean(torch.tensor(0.0), 0)}
    return {name: float(value) for name, value in normalise(losses, "global").items()}


def test_normalisers() -> None:
    # 1 and 3 samples that each cost 2: 2 * 1 / 2 and 2 * 3 / 2, whose mean is 2.
    assert processes.run(normalised, 2, [1, 3]) == [{"loss": 1.0, "nothing": 0.0}, {"loss": 3.0, "nothing": 0.0}]
    assert normalise({"a": Mean(torch.tensor(6.0), 3), "b": Mean(torch.tensor(0.0), 0)}, "global") == {"a": 2, "b": 0}


class Echo(torch.nn.Module):
    """Detects one box per image, whose corner is the mean brightness of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.full((1,), float(distributed.rank())))

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        boxes = [
            torch.cat((image.mean().view(1), image.mean().view(1), torch.ones(2) + self.shift)) for image in images
        ]
        return [{"boxes": box[None], "scores": torch.ones(1), "labels": torch.ones(1).long()} for box in boxes]


class Few:
    """The first `count` images of a data set; reading image `bad` fails."""

    def __init__(self, count: int, bad: int = -1) -> None:
        self.data, self.count, self.bad = open_source("shapes:smoke:val"), count, bad

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        from cpm_lib.errors import UserError

        if index == self.bad:
            raise UserError(f"image {index} is broken")
        return self.data[index]


def sharded(count: int, bad: int = -1) -> Any:
    try:
        found = sharding.predict(Echo(), Few(count, bad), batch_size=2)
    except Exception as error:
        return repr(error)
    return [(detection["image_id"], detection["boxes"].tolist()) for detection in found]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_sharded_evaluation_loses_and_doubles_nothing(count: int) -> None:
    alone, (main, *others) = processes.run(sharded, 0, count)[0], processes.run(sharded, 3, count)
    assert main == alone and len(alone) == count
    assert others == [[], []]


def test_an_unreadable_image_is_told_to_all_processes() -> None:
    assert processes.run(sharded, 3, 7, 4) == ["UserError('image 4 is broken')"] * 3


def evaluated(out: Path) -> list[str]:
    settings = config(**{"solver.iterations": 2, "backbone.norm": "batch"})
    train(settings, open_source("shapes:smoke"), out, val=open_source("shapes:smoke:val"), quiet=True, device="cpu")
    return (out / "evaluations.jsonl").read_text().splitlines()


def test_evaluation_in_training_is_that_of_the_saved_weights(tmp_path: Path) -> None:
    """Also where each process has statistics of its own."""
    from cpm_lib import evaluation

    lines = processes.run(evaluated, 2, tmp_path / "run")[0]
    val = open_source("shapes:smoke:val")
    expected = evaluation.evaluate(evaluation.predict(checkpoint.load(tmp_path / "run"), val), val, val.area_limits)
    assert len(lines) == 1 and json.loads(lines[0])["AP"] == pytest.approx(expected["AP"], abs=1e-9)
