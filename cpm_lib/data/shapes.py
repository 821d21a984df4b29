"""`shapes`: procedural images with exact boxes, deterministic from a seed.

Six classes of flat shapes over a textured background, with truncation by the border, occlusion,
soft edges, glow, clutter and noise. Colour never tells the class. `drawing` makes the pixels,
`shape_files` writes data sets.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpm_lib.data import drawing
from cpm_lib.errors import UserError
from cpm_lib.typed import nearest

CLASSES = drawing.CLASSES
SPLITS = ("train", "val", "test")
VERSION = 2
"""Raised when the same knobs and seed give other images; part of the cache key."""


@dataclass(frozen=True)
class ShapesConfig:
    """Knobs of the generator. Lengths in pixels hold at 128 px and grow with the side."""

    side: int = 128
    """Width and height of the images in pixels."""
    counts: tuple[int, int, int] = (2000, 500, 500)
    """Images in train, val and test."""
    objects: tuple[int, int] = (3, 9)
    """Least and most objects drawn per image."""
    sizes: tuple[float, float] = (0.08, 0.85)
    """Longest side of an object as a share of the image side, log-uniform."""
    aspect: float = 1.8
    """Longest side over shortest side before rotation, at most."""
    truncation: float = 0.25
    """Share of the draws that are placed across the border."""
    min_visible: float = 0.35
    """An object must keep this share of its full area in sight, inside the image and unoccluded."""
    noise: tuple[float, float] = (0.01, 0.04)
    """Standard deviation of the pixel noise, uniform per image; colours are in 0..1."""
    background: float = 0.12
    """Strength of the background texture."""
    contrast: float = 0.28
    """Least distance in RGB between an object and what it covers."""
    blur: tuple[float, float] = (0.5, 2.0)
    """Width of the soft edge, uniform per object."""
    halo: float = 0.2
    """Share of the objects with a glow around them, which blurs the border but is not in the box."""
    clutter: int = 3
    """Most distractors (lines and blobs) per image, drawn below the objects."""
    area_limits: tuple[float, float] = (0.15, 0.35)
    """Sides that part small, medium and large, as a share of the image side."""


PROFILES: Mapping[str, ShapesConfig] = {
    "smoke": ShapesConfig(side=64, counts=(24, 12, 12), objects=(2, 5), sizes=(0.16, 0.85)),
    "quick": ShapesConfig(),
    "gpu": ShapesConfig(side=320, counts=(8000, 2000, 2000)),
}


def profile_config(profile: str) -> ShapesConfig:
    """The knobs of a profile.

    Raises:
        UserError: unknown profile; the nearest one is suggested.
    """
    if profile not in PROFILES:
        raise UserError(f"shapes: unknown profile '{profile}'{nearest(profile, list(PROFILES))}")
    return PROFILES[profile]


def knobs_hash(config: ShapesConfig, seed: int) -> str:
    """Eight hexadecimal digits that change with any knob, the seed or the generator."""
    text = json.dumps({"knobs": dataclasses.asdict(config), "seed": seed, "version": VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass
class _Placed:
    """One object in its own window; `distance` is signed, in pixels, negative inside."""

    distance: drawing.Array
    edge: float
    halo: bool
    area: int
    extent: drawing.Box
    """Tight box in window coordinates."""
    left: int = 0
    top: int = 0

    def inside(self, side: int) -> tuple[slice, slice, slice, slice]:
        """Rows and columns of the image, then of the window, where both overlap."""
        height, width = self.distance.shape
        y0, y1 = max(self.top, 0), min(self.top + height, side)
        x0, x1 = max(self.left, 0), min(self.left + width, side)
        y1, x1 = max(y0, y1), max(x0, x1)
        return (
            slice(y0, y1),
            slice(x0, x1),
            slice(y0 - self.top, y1 - self.top),
            slice(x0 - self.left, x1 - self.left),
        )


def generate(config: ShapesConfig, seed: int, split: str, index: int) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """Image `index` of a split: uint8 [side, side, 3] and its objects, back to front.

    A pure function of its arguments. Each object is a dict with ``category_id`` (1-based), ``bbox``
    (xywh, pixels, cut at the border), ``area`` (of the box), ``truncation`` (share of the object's area
    outside the image), ``occlusion`` (share of its area inside the image that later objects cover)
    and ``full_bbox`` (xywh before truncation and occlusion).
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    side = config.side
    canvas = drawing.background(rng, side, config.background)
    for _ in range(rng.integers(0, config.clutter + 1)):
        drawing.distractor(rng, canvas)
    owner = np.full((side, side), -1, np.int16)
    placed: list[_Placed] = []
    kinds: list[int] = []
    visible = np.zeros(0, np.int64)
    for _ in range(rng.integers(config.objects[0], config.objects[1] + 1)):
        kind = int(rng.integers(len(CLASSES)))
        shape = _random_shape(rng, kind, config)
        cover = _place(rng, shape, owner, visible, placed, config)
        if cover is None:
            continue
        rows, columns, window_rows, window_columns = shape.inside(side)
        distance = shape.distance[window_rows, window_columns]
        region = canvas[:, rows, columns]
        drawing.paint(rng, region, distance, shape.edge, config.contrast, shape.halo, side / 128)
        inside = distance < 0
        visible = np.append(visible - cover, np.count_nonzero(inside))
        owner[rows, columns][inside] = len(placed)
        placed.append(shape)
        kinds.append(kind)
    sigma = rng.uniform(*config.noise)
    noise = rng.standard_normal(canvas.shape, np.float32)
    noise *= np.float32(sigma)
    canvas += noise
    pixels = (np.clip(canvas, 0, 1, out=canvas) * 255 + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0)
    annotations = [_describe(s, kind, int(seen), side) for s, kind, seen in zip(placed, kinds, visible, strict=True)]
    return np.ascontiguousarray(pixels), annotations


def _describe(shape: _Placed, kind: int, visible: int, side: int) -> dict[str, Any]:
    full = _xywh(shape.extent, shape.left, shape.top)
    bbox, area_inside = full, shape.area
    if min(full[:2]) < 0 or max(full[0] + full[2], full[1] + full[3]) > side:
        _, _, rows, columns = shape.inside(side)
        inside = shape.distance[rows, columns]
        box = drawing.tight_box(inside)
        assert box is not None  # _place keeps only objects that are in sight
        area_inside = int(np.count_nonzero(inside < 0))
        # Within half a pixel of the border the crop knows the border, the whole shape its own edge.
        x, y = max(shape.left, 0), max(shape.top, 0)
        left, top = shape.left - x, shape.top - y
        x1, y1, x2, y2 = shape.extent
        cut = (max(box[0], x1 + left), max(box[1], y1 + top), min(box[2], x2 + left), min(box[3], y2 + top))
        bbox = _xywh(cut, x, y)
    return {
        "category_id": kind + 1,
        "bbox": bbox,
        "area": round(bbox[2] * bbox[3], 2),
        "truncation": round(1 - area_inside / shape.area, 4),
        "occlusion": round(1 - visible / area_inside, 4),
        "full_bbox": full,
    }


def _xywh(box: drawing.Box, left: int, top: int) -> list[float]:
    # Rounding the corners, not the size, keeps a box that is cut at the border inside the image.
    x1, y1, x2, y2 = (round(value + offset, 2) for value, offset in zip(box, (left, top) * 2, strict=True))
    return [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]


def _place(
    rng: np.random.Generator,
    shape: _Placed,
    owner: NDArray[np.int16],
    visible: NDArray[np.int64],
    placed: list[_Placed],
    config: ShapesConfig,
) -> NDArray[np.int64] | None:
    """Move `shape` to where it and all earlier objects stay visible enough.

    Returns:
        How many visible pixels each earlier object loses, or None if ten tries found no place.
    """
    side = config.side
    cut = rng.random() < config.truncation
    needed = np.array([config.min_visible * earlier.area for earlier in placed])
    x1, y1, x2, y2 = shape.extent
    for _ in range(10):
        left, top = (_offset(rng, low, high, side) for low, high in ((x1, x2), (y1, y2)))
        if cut:
            share = rng.uniform(0.1, 0.6)
            border = rng.integers(4)
            if border == 0:
                left = -x1 - share * (x2 - x1)
            elif border == 1:
                left = side - x2 + share * (x2 - x1)
            elif border == 2:
                top = -y1 - share * (y2 - y1)
            else:
                top = side - y2 + share * (y2 - y1)
        shape.left, shape.top = round(left), round(top)
        rows, columns, window_rows, window_columns = shape.inside(side)
        inside = shape.distance[window_rows, window_columns] < 0
        if np.count_nonzero(inside) < max(config.min_visible * shape.area, 4):
            continue
        below = owner[rows, columns][inside]
        cover = np.bincount(below[below >= 0], minlength=len(placed))
        if (visible - cover >= needed).all():
            return cover
    return None


def _offset(rng: np.random.Generator, low: float, high: float, side: int) -> float:
    """A window offset that puts the extent [low, high] inside [0, side]."""
    return float(rng.uniform(-low, max(side - high, -low)))


def _random_shape(rng: np.random.Generator, kind: int, config: ShapesConfig) -> _Placed:
    scale = config.side / 128
    low, high = config.sizes
    longest = config.side * low * (high / low) ** rng.random()
    aspect = config.aspect ** rng.random()
    edge = rng.uniform(*config.blur) * scale
    halo = bool(rng.random() < config.halo)
    margin = 1 + (drawing.GLOW * scale if halo else edge / 2)
    distance = drawing.distances(kind, longest, aspect, 2 * np.pi * rng.random(), rng.random(2), margin)
    extent = drawing.tight_box(distance)
    assert extent is not None  # the smallest shape of the smallest profile covers several pixels
    return _Placed(distance, edge, halo, int(np.count_nonzero(distance < 0)), extent)
