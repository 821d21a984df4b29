"""Grid points: targets against the definition, and decoding as their inverse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cpm_lib.boxes import extend_regions
from cpm_lib.model import grid_points
from tests import reference_targets
from tests.strategies import boxes

RATIOS = st.sampled_from([1.25, 1.5, 2.0])


def sharp(targets: Tensor) -> Tensor:
    """Logits of a network that is sure of every target; the centre of a cross is its strongest cell."""
    neighbours = torch.nn.functional.avg_pool2d(targets, 3, stride=1, padding=1, divisor_override=1)
    return torch.where(targets > 0, neighbours, torch.full_like(targets, -30.0))


@st.composite
def near(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """RoIs and ground truth whose grid points fall well inside the region extended by 1.25."""
    rois = draw(boxes(min_side=16))
    shift = torch.tensor(
        [[draw(st.floats(-0.078125, 0.078125, width=32)) for _ in range(4)] for _ in range(len(rois))],
        dtype=torch.float32,
    )
    side = (rois[:, 2:] - rois[:, :2]).repeat(1, 2)
    return rois, rois + shift * side


@given(near(), RATIOS)
def test_a_perfect_heatmap_decodes_to_the_ground_truth_within_half_a_cell(
    pair: tuple[Tensor, Tensor], ratio: float
) -> None:
    rois, truth = pair
    targets = grid_points.heatmap_targets(rois, truth, ratio)
    decoded = grid_points.decode(sharp(targets), rois, ratio)
    region = extend_regions(rois, ratio)
    cell = ((region[:, 2:] - region[:, :2]) / 56).repeat(1, 2)
    assert ((decoded - truth).abs() <= 0.5 * cell + 1e-3).all()


@settings(max_examples=15)
@given(boxes(max_count=3, min_side=0.5), boxes(min_count=3, max_count=3), RATIOS, st.sampled_from(["floor", "trunc"]))
def test_targets_are_those_of_the_definition(rois: Tensor, truth: Tensor, ratio: float, rounding: str) -> None:
    truth = truth[: len(rois)]
    region = extend_regions(rois, ratio)
    share = torch.stack([truth[:, :2], (truth[:, :2] + truth[:, 2:]) / 2, truth[:, 2:]])
    cells = (share - region[:, :2]) / (region[:, 2:] - region[:, :2]) * 56
    # float32 and float64 may disagree on a point that lies on the border of two cells
    assume(bool(((cells - cells.round()).abs() > 1e-3).all()))
    ours = grid_points.heatmap_targets(rois, truth, ratio, rounding="floor" if rounding == "floor" else "trunc")
    assert torch.equal(ours, reference_targets.heatmap_targets(rois, truth, ratio, rounding=rounding))


@given(near(), RATIOS)
def test_flipping_commutes_with_decoding(pair: tuple[Tensor, Tensor], ratio: float) -> None:
    rois, _ = pair

    def flip(b: Tensor) -> Tensor:
        return torch.stack((400 - b[:, 2], b[:, 1], 400 - b[:, 0], b[:, 3]), dim=1)

    logits = torch.randn(len(rois), 9, 28, 28, generator=torch.Generator().manual_seed(0))
    # The image mirrored: points change columns, cells change sides.
    mirrored = logits.view(-1, 3, 3, 28, 28).flip(1).flip(-1).reshape(-1, 9, 28, 28)
    straight = flip(grid_points.decode(logits, rois, ratio))
    torch.testing.assert_close(grid_points.decode(mirrored, flip(rois), ratio), straight, rtol=1e-4, atol=2e-2)


@given(near(), RATIOS, st.randoms(use_true_random=False))
def test_the_order_of_rois_does_not_matter(pair: tuple[Tensor, Tensor], ratio: float, random) -> None:
    rois, truth = pair
    order = list(range(len(rois)))
    random.shuffle(order)
    targets = grid_points.heatmap_targets(rois, truth, ratio)
    assert torch.equal(grid_points.heatmap_targets(rois[order], truth[order], ratio), targets[order])
    decoded = grid_points.decode(targets, rois, ratio)
    assert torch.equal(grid_points.decode(targets[order], rois[order], ratio), decoded[order])


def test_a_point_worked_out_by_hand() -> None:
    """RoI 0..56 by 0..112, ratio 2: the region is -28..84 by -56..168, one cell is 2 by 4 pixels."""
    roi, truth = torch.tensor([[0.0, 0.0, 56.0, 112.0]]), torch.tensor([[10.0, 20.0, 50.0, 100.0]])
    targets = grid_points.heatmap_targets(roi, truth, 2.0)
    # Top left point (10, 20): cell ((10 + 28) / 2, (20 + 56) / 4) = (19, 19), window origin (0, 0).
    assert targets[0, 0].nonzero().tolist() == [[18, 19], [19, 18], [19, 19], [19, 20], [20, 19]]
    # Bottom right point (50, 100): cell (39, 39), window origin (28, 28).
    assert targets[0, 8].nonzero().tolist() == [[10, 11], [11, 10], [11, 11], [11, 12], [12, 11]]


def test_a_point_just_outside_is_rounded_by_convention() -> None:
    roi, truth = torch.tensor([[0.0, 0.0, 56.0, 56.0]]), torch.tensor([[-28.5, -28.5, 40.0, 40.0]])
    floor = grid_points.heatmap_targets(roi, truth, 2.0)
    trunc = grid_points.heatmap_targets(roi, truth, 2.0, rounding="trunc")
    # floor: the cell is (-1, -1) and none of its cross is inside; trunc: the cell is (0, 0).
    assert floor[0, 0].sum() == 0
    assert trunc[0, 0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize("box", [[5.0, 5.0, 5.0, 20.0], [20.0, 5.0, 5.0, 20.0], [5.0, 5.0, 6.4, 30.0]])
def test_rois_too_small_have_empty_targets(box: list[float]) -> None:
    truth = torch.tensor([[4.0, 4.0, 30.0, 30.0]])
    targets = grid_points.heatmap_targets(torch.tensor([box]), truth, 2.0)
    assert targets.sum() == 0


def test_no_rois() -> None:
    none = torch.zeros(0, 4)
    assert grid_points.heatmap_targets(none, none, 2.0).shape == (0, 9, 28, 28)
    assert grid_points.decode(torch.zeros(0, 9, 28, 28), none, 2.0).shape == (0, 4)


@pytest.mark.parametrize(("grid", "origins"), [(2, [0, 28]), (3, [0, 14, 28])])
def test_windows(grid: int, origins: list[int]) -> None:
    windows = grid_points.sub_regions(grid)
    assert windows[:, 0].tolist() == [x for x in origins for _ in range(grid)]
    assert windows[:, 1].tolist() == origins * grid
    assert ((windows[:, 2:] - windows[:, :2]) == 28).all()


def test_whole_maps_of_the_original_grid_rcnn() -> None:
    roi = torch.tensor([[0.0, 0.0, 56.0, 56.0]])
    targets = grid_points.heatmap_targets(roi, roi, 2.0, window=56)
    assert targets.shape == (1, 9, 56, 56)
    decoded = grid_points.decode(sharp(targets), roi, 2.0)
    assert (decoded - roi).abs().max() <= 1
