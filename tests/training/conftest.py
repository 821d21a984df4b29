"""A data set and configurations of seconds, shared by the training tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cpm_lib import presets
from cpm_lib.config import Config
from cpm_lib.data.dataset import DetectionDataset
from cpm_lib.data.shape_files import read_shapes, write_shapes


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DetectionDataset]:
    """The smoke shapes, `train` and `val`."""
    folder = write_shapes("smoke", tmp_path_factory.mktemp("shapes"), workers=0)
    return {split: read_shapes(folder, split, name=f"shapes:smoke:{split}") for split in ("train", "val")}


@pytest.fixture
def smoke() -> Callable[..., Config]:
    """`smoke(**{"solver.lr": 1.0})`: the smoke profile of Faster R-CNN, the smallest, with changes."""

    def config(preset: str = "faster", **changes: Any) -> Config:
        return presets.get(preset, "smoke").override(changes)

    return config


class Hooked:
    """A data set that calls `hook(number of images read, sample)` and returns what that returns."""

    def __init__(self, dataset: DetectionDataset, hook: Callable[[int, Any], Any]) -> None:
        self._dataset, self._hook, self._read = dataset, hook, 0

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __getitem__(self, index: int) -> Any:
        self._read += 1
        return self._hook(self._read, self._dataset[index])


@pytest.fixture(scope="session")
def hooked() -> type[Hooked]:
    return Hooked
