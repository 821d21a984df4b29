"""The NMS stepper: it keeps what torchvision and the library's soft-NMS keep, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from cpm_lib import explorers
from cpm_lib.errors import UserError
from cpm_lib.model.fused_score import soft_nms
from tests.explorers.conftest import Shown

CLASSES = ("disk", "star")


def boxes(number: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Around a few places, with some equal scores and equal boxes, in the page's digits."""
    generator = torch.Generator().manual_seed(seed)
    corner = 20.0 * torch.randint(0, 3, (number, 2), generator=generator)
    corner += 12 * torch.rand(number, 2, generator=generator)
    found = torch.cat([corner, corner + 16 + 8 * torch.rand(number, 2, generator=generator)], dim=1)
    found[number // 2] = found[number // 3]
    scores = torch.rand(number, generator=generator).round(decimals=2)
    labels = torch.randint(1, 3, (number,), generator=generator)
    return found.double().round(decimals=2), scores.double().round(decimals=2), labels


def opened(show: Callable[..., Shown], number: int = 24, seed: int = 0, **options: object) -> Shown:
    found, scores, labels = (
        boxes(number, seed) if number else (torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    )
    image = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0))
    options = {"objects": found[:1], **options}
    return show(explorers.nms(image, found, scores, labels, CLASSES, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_hard_nms_is_torchvisions(show: Callable[..., Shown], seed: int) -> None:
    shown = opened(show)
    found, scores, labels = boxes(24, seed)
    for threshold in (0.1, 0.3, 0.5, 0.8):
        expected = batched_nms(found, scores, labels, threshold).tolist()
        kept = shown.formula("keep", found.tolist(), scores.tolist(), labels.tolist(), "hard", threshold, 0.5, 0)
        assert [k for k, _ in kept] == expected


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_nms_is_the_librarys(show: Callable[..., Shown], method: str) -> None:
    shown = opened(show)
    for seed in range(4):
        found, scores, labels = boxes(24, seed)
        for threshold, sigma, least in ((0.3, 0.5, 1e-4), (0.5, 0.2, 0.05)):
            expected, decayed = soft_nms(found, scores, labels, method, threshold, sigma, least)  # type: ignore[arg-type]
            kept = shown.formula(
                "keep", found.tolist(), scores.tolist(), labels.tolist(), method, threshold, sigma, least
            )
            assert [k for k, _ in kept] == expected.tolist()
            assert [score for _, score in kept] == pytest.approx(decayed.tolist(), abs=1e-9)


def test_stepping_by_buttons_slider_and_keys(show: Callable[..., Shown]) -> None:
    shown = opened(show, method="hard", iou_threshold=0.3)
    found, scores, labels = boxes(24)
    best = scores.argsort(descending=True, stable=True)
    found, labels = found[best], labels[best]
    total = len(batched_nms(found, scores[best], labels, 0.3))
    assert shown.number(r"Step (\d+) of") == 0
    assert shown.root.get_by_role("button", name="back").is_disabled()
    shown.root.get_by_role("button", name="forward").click()
    overlap = box_iou(found[:1], found)[0]
    removed = ((labels == labels[0]) & (overlap > 0.3)).nonzero()[1:, 0].tolist()
    rows = shown.root.locator(".cpm-queue li")
    assert "kept as number 1" in rows.nth(0).inner_text()
    for k in range(1, 24):
        assert (f"removed by 1, IoU {overlap[k]:.2f}" in rows.nth(k).inner_text()) == (k in removed)
    assert shown.number(r"kept, (\d+) waiting") == 23 - len(removed)
    shown.press("step", "ArrowRight", 30)
    assert shown.number(r"Step (\d+) of") == total
    assert shown.root.get_by_role("button", name="forward").is_disabled()
    assert shown.root.locator(".cpm-queue .cpm-gone").count() == 24 - total
    shown.press("step", "ArrowLeft")
    shown.root.get_by_role("button", name="back").click()
    assert shown.number(r"Step (\d+) of") == total - 2


def test_threshold_and_kind_change_the_outcome(show: Callable[..., Shown]) -> None:
    shown = opened(show)
    found, scores, labels = boxes(24)
    for threshold in (0.1, 0.9):
        shown.slide("IoU threshold", threshold)
        assert shown.number(r"Step \d+ of (\d+)") == len(batched_nms(found, scores, labels, threshold))
    shown.slide("IoU threshold", 0.3)
    shown.root.get_by_label("soft, linear").check()
    shown.slide("step", 1)
    before, overlap, after = (
        shown.number(pattern) for pattern in (r"box \d+: ([\d.]+) × \(", r"× \(1 − ([\d.]+)\)", r"\) = ([\d.]+)\.")
    )
    assert before * (1 - overlap) == pytest.approx(after, abs=6e-3)
    shown.root.get_by_label("soft, Gaussian").check()
    assert not shown.root.get_by_label("IoU threshold").is_visible()
    shown.slide("sigma", 0.3)
    before, overlap, after = (
        shown.number(pattern) for pattern in (r"box \d+: ([\d.]+) × e", r"exp\(−([\d.]+)²", r"\) = ([\d.]+)\.")
    )
    assert before * math.exp(-(overlap**2) / 0.3) == pytest.approx(after, abs=2e-2)


@pytest.mark.parametrize("number", [0, 1])
def test_hardly_any_box(show: Callable[..., Shown], number: int) -> None:
    shown = opened(show, number)
    assert shown.number(r"Step 0 of (\d+)") == number
    assert shown.root.get_by_role("button", name="forward").is_enabled() == bool(number)


def test_only_the_best_boxes_are_shown(show: Callable[..., Shown]) -> None:
    found, scores, labels = boxes(24)
    shown = opened(show, most=5)
    assert shown.root.locator(".cpm-queue li").count() == 5
    best = scores.argsort(descending=True, stable=True)[:5]
    everything = [k for k in batched_nms(found, scores, labels, 0.3).tolist() if k in best.tolist()]
    assert shown.number(r"Step 0 of (\d+)") == len(everything)


def test_without_scripts_a_picture_stays(show: Callable[..., Shown]) -> None:
    shown = show(explorers.nms(torch.zeros(3, 96, 128), *boxes(5), CLASSES), java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()


def test_bad_input_is_one_line() -> None:
    found, scores, labels = boxes(5)
    with pytest.raises(UserError, match="5 boxes, 4 scores"):
        explorers.nms(torch.zeros(3, 8, 8), found, scores[:4], labels, CLASSES)
    with pytest.raises(UserError, match="for 1 classes"):
        explorers.nms(torch.zeros(3, 8, 8), found, scores, torch.full((5,), 2), ("disk",))
