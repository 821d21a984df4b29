"""Statistics from sums: the same numbers as computed directly, and undefined where they are."""

from __future__ import annotations

import pytest
import torch

from cpm_lib.ablation.joint import t_interval, t_quantile
from cpm_lib.ablation.paired_rois import entropy_gain
from cpm_lib.ablation.statistics import Images
from cpm_lib.evaluation import calibration


def sample() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    ious = torch.rand(300, generator=generator)
    image = torch.randint(0, 20, (300,), generator=generator)
    noise = torch.rand(2, 300, generator=generator)
    return image, ious, *(0.5 * ious + 0.5 * noise).unbind()


def test_correlations_and_means() -> None:
    image, ious, one, other = sample()
    images = Images(20, samples=50)
    pearson = [float(torch.corrcoef(torch.stack([score, ious]))[0, 1]) for score in (one, other)]
    assert images.pearson(image, one, ious)["difference"] == pytest.approx(pearson[0], abs=1e-6)
    found = images.pearson_difference(image, one, other, ious)
    assert found["difference"] == pytest.approx(pearson[0] - pearson[1], abs=1e-6)
    assert found["low"] < found["difference"] < found["high"] and found["samples"] == 50  # type: ignore[operator]
    assert images.mean(image, ious)["difference"] == pytest.approx(float(ious.mean()), abs=1e-6)
    high = ious > 0.5
    difference = images.mean_difference(image, one, high, ~high)["difference"]
    assert difference == pytest.approx(float(one[high].mean() - one[~high].mean()), abs=1e-6)


def test_calibration() -> None:
    image, ious, one, other = sample()
    found = Images(20, samples=20).calibration_difference(image, one, other, ious)
    expected = calibration(one, ious)["error"] - calibration(other, ious)["error"]
    assert found["difference"] == pytest.approx(expected, abs=1e-6)


def test_nothing_to_say() -> None:
    image, ious, one, _ = sample()
    images = Images(20, samples=10)
    assert images.pearson(image, torch.ones(300), ious)["difference"] is None
    none = torch.zeros(300, dtype=torch.bool)
    assert images.mean_difference(image, one, none, ~none) == {
        "difference": None, "low": None, "high": None, "sd": None, "samples": 10,
    }  # fmt: skip


def test_entropy_of_more_kinds_is_larger() -> None:
    counts = torch.zeros(5, 3, 10, dtype=torch.float64)
    counts[:, 0, 2] = 4
    assert entropy_gain(counts)["difference"] == 0
    counts[:, 1, 3] = 4
    assert entropy_gain(counts)["difference"] == pytest.approx(0.6931, abs=1e-4)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262)])
def test_student(freedom: int, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, abs=1e-3)


def test_interval_over_seeds() -> None:
    found = t_interval([1.0, 2.0, 3.0])
    assert found["difference"] == 2 and found["sd"] == 1 and found["samples"] == 3
    assert found["high"] == pytest.approx(2 + 4.303 / 3**0.5, abs=1e-3)
    assert t_interval([1.0])["low"] is None and t_interval([float("nan"), 1.0])["samples"] == 1
    assert t_interval([])["difference"] is None
