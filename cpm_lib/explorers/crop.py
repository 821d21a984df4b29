"""The part of an image that an explorer shows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cpm_lib.explorers.component import photo, plain


def crop(image: Tensor, boxes: Tensor, margin: float = 0.06) -> dict[str, Any]:
    """A square view of `boxes` [N,4], and the image under it.

    Args:
        image: float [3,H,W] in 0..1; boxes: xyxy in pixels, may leave the image.
        margin: around them, as a share of the view.

    Returns:
        ``view`` [x1, y1, x2, y2] in pixels, of equal sides; ``image`` the pixels under it, and ``at`` where they are.
    """
    low, high = boxes[:, :2].min(dim=0).values, boxes[:, 2:].max(dim=0).values
    centre, half = (low + high) / 2, float((high - low).max()) * (0.5 + margin)
    view = torch.cat((centre - half, centre + half))
    height, width = image.shape[-2:]
    # At least one pixel, also where the boxes are outside.
    x1, y1 = (int(view[axis].floor().clamp(0, size - 1)) for axis, size in enumerate((width, height)))
    x2, y2 = (int(view[axis + 2].ceil().clamp(low + 1, size)) for axis, low, size in ((0, x1, width), (1, y1, height)))
    return {"view": plain(view), "image": photo(image[:, y1:y2, x1:x2], 90), "at": [x1, y1, x2, y2]}
