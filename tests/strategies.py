"""Hypothesis strategies shared by the geometry tests."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor


@st.composite
def boxes(
    draw: st.DrawFn, min_count: int = 1, max_count: int = 6, side: float = 200.0, min_side: float = 4.0
) -> Tensor:
    """Proper boxes [N, 4] within a square of `side` pixels."""
    number = draw(st.integers(min_count, max_count))
    rows = []
    for _ in range(number):
        width = draw(st.floats(min_side, side, width=32))
        height = draw(st.floats(min_side, side, width=32))
        x = draw(st.floats(0, side, width=32))
        y = draw(st.floats(0, side, width=32))
        rows.append((x, y, x + width, y + height))
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
