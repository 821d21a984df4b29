"""Mapping ratio: which grid points a region reaches, and what its cells cost (Fig. 3, Eq. 2, Table 5)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cpm_lib import figures
from cpm_lib.explorers.component import Explorer, picture, plain
from cpm_lib.model.grid_points import sub_regions


def mapping_ratio(
    image: Tensor,
    proposal: Tensor,
    truth: Tensor,
    *,
    ratio: float = 2.0,
    ratios: Sequence[float] = (1.0, 1.25, 1.5, 2.0),
    grid: int = 3,
    map_size: int = 56,
    radius: int = 1,
) -> Explorer:
    """Drag a RoI and see the region of its heatmaps, which of the nine points it reaches, and the targets.

    Args:
        image: float [3,H,W] in 0..1; proposal, truth: [4] xyxy in pixels.
        ratio: at the start; ratios: to choose from.
        grid, map_size, radius: as for `heatmap_targets`.
    """
    window = int(sub_regions(grid, map_size)[0, 2])
    still = figures.stages(image, truth[None], truth, proposal, mapping_ratios=[ratio])
    return Explorer(
        "mapping_ratio",
        "Which grid points does the region reach?",
        f"A proposal beside its object, and the region that a mapping ratio of {ratio:g} makes of it. With scripts "
        "the proposal can be dragged and the ratio chosen.",
        {
            "image": picture(image),
            "size": [image.shape[-1], image.shape[-2]],
            "proposal": plain(proposal),
            "truth": plain(truth),
            "ratio": ratio,
            "ratios": list(ratios),
            "grid": grid,
            "map_size": map_size,
            "window": window,
            "radius": radius,
        },
        still,
    )
