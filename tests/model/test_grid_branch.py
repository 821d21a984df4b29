"""The grid branch in pieces: chunks and recomputation change memory and time, not the result."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cpm_lib.config import GridConfig
from cpm_lib.model.grid_branch import POOL_SIZE, GridBranch


def outcome(rois: int, **changes: Any) -> tuple[torch.Tensor, ...]:
    """Outputs of a training pass, and gradients of everything."""
    config = GridConfig(channels_per_point=4, convs=2, norm_groups=9, fusion=True, **changes)
    torch.manual_seed(0)
    branch = GridBranch(config, 8).train()
    pooled = torch.randn(rois, 8, POOL_SIZE, POOL_SIZE, requires_grad=True)
    output = branch(pooled)
    assert output.unfused is not None
    (output.heatmaps.square().mean() + output.unfused.sum() + output.features.square().sum()).backward()
    gradients = [pooled.grad, *(p.grad for p in branch.parameters())]
    assert all(gradient is not None for gradient in gradients)
    return (*output, *gradients)  # type: ignore[arg-type]


@pytest.mark.parametrize("rois", [0, 1, 7])
def test_recomputation_changes_nothing(rois: int) -> None:
    torch.testing.assert_close(outcome(rois, recompute=True), outcome(rois), rtol=0, atol=0, equal_nan=rois == 0)


@pytest.mark.parametrize("rois", [0, 1, 7])
@pytest.mark.parametrize("recompute", [False, True])
def test_chunks_change_only_the_order_of_sums(rois: int, recompute: bool) -> None:
    for piece, whole in zip(outcome(rois, chunk=3, recompute=recompute), outcome(rois), strict=True):
        assert piece.shape == whole.shape
        assert (piece - whole).norm() <= 1e-5 * whole.norm() or rois == 0


def test_recomputation_keeps_only_the_inputs() -> None:
    """What autograd holds between the passes does not grow with the depth of the branch."""

    def held(convs: int, recompute: bool) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        branch = GridBranch(GridConfig(channels_per_point=4, convs=convs, norm_groups=9, recompute=recompute), 8)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            branch(torch.randn(5, 8, POOL_SIZE, POOL_SIZE, requires_grad=True))
        return sum(sizes.values())

    assert held(6, False) > held(2, False)
    assert held(6, True) == held(2, True) < held(2, False)
