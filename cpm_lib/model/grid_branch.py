"""Grid branch g_j: pooled RoI features to one heatmap per grid point (Sec. 3.1, facts 6.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cpm_lib.config import GridConfig
from cpm_lib.model import grid_points
from cpm_lib.model.fast_convs import SmallMapConv

POOL_SIZE = 14

CHANNELS_FIRST = True
"""Whether the CPU upsamples channels first and in float32: its fast transposed convolution knows nothing else."""


class GridOutput(NamedTuple):
    heatmaps: Tensor
    """Logits [R, points^2, w, w]; with fusion those of the fused features."""
    unfused: Tensor | None
    """Logits of the features before fusion, a second target in training; None without fusion."""
    features: Tensor
    """[R, C, 7, 7] before the upsampling, g' of Eq. 3; the ISM reads them."""


class GridBranch(nn.Module):
    """Convolutions with GroupNorm, optional fusion of neighbouring points, and a 4x up-sampler.

    Each of the points^2 grid points owns `channels_per_point` neighbouring channels. Two forms:
    `plus` halves the resolution first and predicts half-size windows of 28x28 cells; `original`
    (Grid R-CNN, CVPR 2019) keeps 14x14 features with dilated convolutions and predicts whole
    maps of 56x56.
    """

    def __init__(self, config: GridConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        points = config.points**2
        channels = points * config.channels_per_point
        original = config.head == "original"
        blocks = []
        for number in range(config.convs):
            first = number == 0
            conv = SmallMapConv(
                in_channels if first else channels,
                channels,
                3,
                stride=2 if first and not original else 1,
                padding=2 if original else 1,
                dilation=2 if original else 1,
            )
            blocks.append(nn.Sequential(conv, nn.GroupNorm(config.norm_groups, channels), nn.ReLU(inplace=True)))
        self.convs = nn.Sequential(*blocks)
        self.fusion = Fusion(config.points, config.channels_per_point, original) if config.fusion else None
        self.upsample = Upsampler(points, config.channels_per_point)
        if config.start_bias is not None and self.upsample.deconv2.bias is not None:
            nn.init.constant_(self.upsample.deconv2.bias, config.start_bias)

    @property
    def feature_size(self) -> int:
        """Values per RoI of `GridOutput.features`."""
        side = POOL_SIZE if self.config.head == "original" else POOL_SIZE // 2
        return self.config.points**2 * self.config.channels_per_point * side * side

    @property
    def window(self) -> int:
        """Cells per side of a heatmap."""
        return self.config.map_size if self.config.head == "original" else self.config.map_size // 2

    def forward(self, pooled: Tensor) -> GridOutput:
        """[R, C, 14, 14] -> `GridOutput`, chunk by chunk if `config.chunk` says so"""
        parts = [self._whole_or_recomputed(part) for part in pooled.split(self.config.chunk or max(len(pooled), 1))]
        if len(parts) == 1:
            return parts[0]
        heatmaps, unfused, features = zip(*parts, strict=True)
        return GridOutput(torch.cat(heatmaps), None if unfused[0] is None else torch.cat(unfused), torch.cat(features))

    def _whole_or_recomputed(self, pooled: Tensor) -> GridOutput:
        if not (self.config.recompute and torch.is_grad_enabled()):
            return self._whole(pooled)
        # Nothing in the branch is random, so there is no random state to keep.
        return checkpoint(self._whole, pooled, use_reentrant=False, preserve_rng_state=False)

    def _whole(self, pooled: Tensor) -> GridOutput:
        features = self.convs(pooled)
        if self.fusion is None:
            return GridOutput(self.upsample(features), None, features)
        unfused = self.upsample(features) if self.training else None
        return GridOutput(self.upsample(self.fusion(features)), unfused, features)

    def targets(self, boxes: Tensor, gt_boxes: Tensor, mapping_ratio: float, rounding: str) -> Tensor:
        """`grid_points.heatmap_targets` in the form of this branch."""
        config = self.config
        return grid_points.heatmap_targets(
            boxes, gt_boxes, mapping_ratio, grid=config.points, map_size=config.map_size,
            radius=config.radius, rounding="trunc" if rounding == "trunc" else "floor", window=self.window,
        )  # fmt: skip

    def decode(self, heatmaps: Tensor, boxes: Tensor, mapping_ratio: float) -> Tensor:
        """`grid_points.decode` in the form of this branch."""
        config = self.config
        return grid_points.decode(heatmaps, boxes, mapping_ratio, grid=config.points, map_size=config.map_size)


class Fusion(nn.Module):
    """Adds transformed features of the 4-connected neighbour points to each point, in two rounds (facts 6.1)."""

    def __init__(self, points: int, channels: int, original: bool) -> None:
        super().__init__()
        self.points, self.channels = points, channels
        self.neighbours = [_neighbours(point, points) for point in range(points * points)]
        self.first, self.second = self._transforms(original), self._transforms(original)

    def _transforms(self, original: bool) -> nn.ModuleList:
        build = _three_convs if original else _separable_conv
        return nn.ModuleList(nn.ModuleList(build(self.channels) for _ in around) for around in self.neighbours)

    def forward(self, features: Tensor) -> Tensor:
        """[R, points^2 * c, s, s] -> the same shape"""
        own = features.split(self.channels, dim=1)
        first = self._round(own, own, self.first)
        return torch.cat(self._round(own, first, self.second), dim=1)

    def _round(
        self, own: tuple[Tensor, ...] | list[Tensor], sources: tuple[Tensor, ...] | list[Tensor], layers: nn.ModuleList
    ) -> list[Tensor]:
        fused = []
        for point, around in enumerate(self.neighbours):
            total = own[point]
            for number, neighbour in enumerate(around):
                total = total + layers[point][number](sources[neighbour])  # type: ignore[index]
            fused.append(total)
        return fused


def _neighbours(point: int, points: int) -> list[int]:
    """4-connected neighbours in the order left, up, down, right; points are numbered column by column."""
    column, row = divmod(point, points)
    around = [(column - 1, row), (column, row - 1), (column, row + 1), (column + 1, row)]
    return [c * points + r for c, r in around if 0 <= c < points and 0 <= r < points]


def _separable_conv(channels: int) -> nn.Sequential:
    """Depth-wise 5x5 and 1x1 (Grid R-CNN Plus)."""
    return nn.Sequential(nn.Conv2d(channels, channels, 5, padding=2, groups=channels), nn.Conv2d(channels, channels, 1))


def _three_convs(channels: int) -> nn.Sequential:
    """Three 5x5 convolutions (Grid R-CNN, CVPR 2019)."""
    return nn.Sequential(*(nn.Conv2d(channels, channels, 5, padding=2) for _ in range(3)))


class Upsampler(nn.Module):
    """Two grouped transposed convolutions: features to logits at four times the resolution (facts 6.1).

    Each point reads its own channels only.
    """

    def __init__(self, points: int, channels: int) -> None:
        super().__init__()
        width = points * channels
        self.deconv1 = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, groups=points)
        self.norm = nn.GroupNorm(points, width)
        self.deconv2 = nn.ConvTranspose2d(width, points, 4, stride=2, padding=1, groups=points)

    def forward(self, features: Tensor) -> Tensor:
        """[R, points * c, s, s] -> [R, points, 4s, 4s]"""
        if features.is_cuda or not CHANNELS_FIRST:
            return self.deconv2(F.relu(self.norm(self.deconv1(features)))).float()
        with torch.autocast("cpu", enabled=False):
            return self.deconv2(F.relu(self.norm(self.deconv1(features.float().contiguous()))))
