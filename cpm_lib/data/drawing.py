"""How `shapes` makes pixels: signed distances of the six classes, backgrounds, clutter and colour.

Everything is drawn from analytic signed distances (pixels, negative inside) in a small window around
each object. No matrix product is used, so BLAS threads cannot slow the worker processes down.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
Box = tuple[float, float, float, float]
CLASSES = ("disk", "square", "triangle", "star", "ring", "cross")
RING_HOLE = 0.55
"""Inner over outer radius of a ring."""
GLOW = 5.0
"""Reach of a halo in pixels at 128 px."""
CROSS_ARM = 0.36
"""Half the width of a cross's arm over half its length."""


def _circle(corners: int, start: float = 0.0) -> NDArray[np.float64]:
    angle = start + np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


_SIGNS = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], float)
_AXES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], float)
_OUTLINES = (
    _circle(90),
    _SIGNS,
    _circle(3),
    _circle(5),
    _circle(90),
    np.concatenate([_SIGNS * [1, CROSS_ARM], _SIGNS * [CROSS_ARM, 1]]),
)
"""Outermost points of each class in its unit shape."""


def distances(kind: int, longest: float, aspect: float, angle: float, shift: Any, margin: float) -> Array:
    """Signed distances [H, W] to one shape in a square window around it.

    Args:
        kind: index into `CLASSES`.
        longest: longest side of the shape's box in pixels, after rotation.
        aspect: longest over shortest axis before rotation, >= 1.
        angle: rotation in radians.
        shift: position of the shape's centre within its pixel, two numbers in 0..1.
        margin: pixels left free around the shape.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    half = np.array([1.0, 1.0 / aspect])
    points = _OUTLINES[kind] * half
    turned = np.stack([points[:, 0] * cos - points[:, 1] * sin, points[:, 0] * sin + points[:, 1] * cos])
    grow = longest / (turned.max(axis=1) - turned.min(axis=1)).max()
    half = half * grow
    reach = int(np.ceil(np.abs(turned).max() * grow + margin))
    centres = np.arange(2 * reach + 1) + 0.5 - reach
    x = (centres - shift[0]).astype(np.float32)[None, :]
    y = (centres - shift[1]).astype(np.float32)[:, None]
    # Coordinates along the shape's own axes, in pixels.
    u, v = x * np.float32(cos) + y * np.float32(sin), y * np.float32(cos) - x * np.float32(sin)
    w, h = np.float32(half[0]), np.float32(half[1])
    name = CLASSES[kind]
    if name in ("disk", "ring"):
        # First-order distance k0 (k0 - 1) / k1 of an ellipse: exact on the contour, close to it near by.
        u, v = u / w, v / h
        k0 = np.sqrt(u * u + v * v)
        u, v = u / w, v / h
        k1 = np.sqrt(u * u + v * v)
        away = k0 - 1 if name == "disk" else np.maximum(k0 - 1, np.float32(RING_HOLE) - k0)
        return away * k0 / np.maximum(k1, np.float32(1e-6))
    if name in ("triangle", "star"):
        corners = 3 if name == "triangle" else 5
        sides = _lines(u, v, half, _circle(corners, np.pi / corners), 0.5 if corners == 3 else np.cos(0.4 * np.pi))
        # A five-pointed star is where at most one of its five lines has the point on the far side.
        return sides.max(axis=0) if corners == 3 else np.partition(sides, 3, axis=0)[3]
    u, v = np.abs(u), np.abs(v)
    if name == "square":
        return np.maximum(u - w, v - h)
    arm = np.float32(CROSS_ARM)
    return np.minimum(np.maximum(u - w, v - arm * h), np.maximum(u - arm * w, v - h))


def _lines(u: Array, v: Array, half: Any, normals: NDArray[np.float64], offset: float) -> Array:
    """Distances [K, H, W] to the lines n.p = offset of a unit shape stretched by `half`."""
    n = normals / half
    n, offsets = n / np.hypot(n[:, :1], n[:, 1:]), offset / np.hypot(n[:, 0], n[:, 1])
    a, b, c = (column.astype(np.float32)[:, None, None] for column in (n[:, 0], n[:, 1], offsets))
    return a * u + b * v - c


def tight_box(distance: Array) -> Box | None:
    """xyxy of the zero contour of signed distances [H, W], to a fraction of a pixel; None if empty.

    A pixel's sample is at its centre (x + 0.5). Where the object reaches the edge of the array the box
    ends at the edge, so a cropped array gives the box cut at the border.
    """
    x = _span(distance.min(axis=0))
    y = _span(distance.min(axis=1))
    return None if x is None or y is None else (x[0], y[0], x[1], y[1])


def _span(profile: Array) -> tuple[float, float] | None:
    hits = np.flatnonzero(profile < 0)
    if not len(hits):
        return None
    first, last = int(hits[0]), int(hits[-1])
    low, high = 0.0, float(len(profile))
    if first > 0:
        low = first + 0.5 - profile[first] / (profile[first] - profile[first - 1])
    if last < len(profile) - 1:
        high = last + 0.5 + profile[last] / (profile[last] - profile[last + 1])
    return float(low), float(high)


def background(rng: np.random.Generator, side: int, strength: float) -> Array:
    """A textured background [3, side, side], colours in 0..1: a coarse tinted and a fine grey pattern."""
    canvas = np.empty((3, side, side), np.float32)
    coarse = rng.uniform(-1, 1, (5, 5)) + 0.6 * rng.uniform(-1, 1, (3, 5, 5))
    fine = _enlarge(0.6 * strength * rng.uniform(-1, 1, (20, 20)), side)
    for plane, grid, colour in zip(canvas, coarse, rng.uniform(0.15, 0.85, 3), strict=True):
        np.add(_enlarge(strength * grid + colour, side), fine, out=plane)
    return canvas


def _enlarge(grid: NDArray[np.float64], side: int) -> Array:
    image = Image.fromarray(grid.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def distractor(rng: np.random.Generator, canvas: Array) -> None:
    """Draw one thing that belongs to no class onto canvas [3, S, S]: a thin line or a faint blob."""
    side = canvas.shape[1]
    colour = rng.uniform(0, 1, 3).astype(np.float32)
    cx, cy = rng.uniform(0, side, 2)
    line = bool(rng.random() < 0.5)
    reach = side * rng.uniform(0.05, 0.25)
    x0, x1 = max(int(cx - reach), 0), min(int(cx + reach) + 2, side)
    y0, y1 = max(int(cy - reach), 0), min(int(cy + reach) + 2, side)
    x = (np.arange(x0, x1) + 0.5 - cx).astype(np.float32)[None, :]
    y = (np.arange(y0, y1) + 0.5 - cy).astype(np.float32)[:, None]
    angle, strength = rng.uniform(0, np.pi), rng.uniform(0.25, 0.7)
    if line:
        along = np.abs(x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)))
        across = np.abs(y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle)))
        width = side / 128 * rng.uniform(0.5, 1.5)
        away = np.maximum(across - np.float32(width), along - np.float32(reach * 0.9))
        alpha = _unit(0.5 - away) * np.float32(strength)
    else:
        alpha = np.exp(-np.float32(5 / reach**2) * (x * x + y * y)) * np.float32(strength)
    _blend(canvas[:, y0:y1, x0:x1], alpha, colour[:, None, None])


def paint(
    rng: np.random.Generator, region: Array, distance: Array, edge: float, contrast: float, halo: bool, scale: float
) -> None:
    """Draw an object onto region [3, H, W] in place.

    Args:
        distance: signed distances [H, W] to the object in pixels.
        edge: width of its soft edge in pixels; half covered exactly on the contour.
        contrast: least RGB distance between its colour and the mean of what it covers, if that exists.
        halo: add a glow outside the contour.
        scale: image side over 128.
    """
    below = np.compress((distance < 0).ravel(), region.reshape(3, -1), axis=1).mean(axis=1)
    colours = 0.02 + np.float32(0.96) * rng.random((24, 3), np.float32)
    gaps = np.sqrt(((colours - below) ** 2).sum(axis=1))
    colour = colours[np.argmax(np.minimum(gaps, contrast))][:, None, None]
    height, width = distance.shape
    x = ((np.arange(width, dtype=np.float32) * 2 + 1) / width - 1)[None, :]
    y = ((np.arange(height, dtype=np.float32) * 2 + 1) / height - 1)[:, None]
    angle = 2 * np.pi * rng.random()
    along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    fill = along * np.float32(0.1 * rng.random())
    if rng.random() < 0.4:
        waves, strength = 4 + 10 * rng.random(), 0.03 + 0.07 * rng.random()
        fill += np.float32(strength) * np.sin(along * np.float32(waves))
    if halo:
        glow = _unit(1 - distance / np.float32(GLOW * scale)) ** 2 * np.float32(0.2 + 0.3 * rng.random())
        _blend(region, glow, colour)
    _blend(region, _unit(0.5 - distance / np.float32(edge)), colour + fill)


def _unit(values: Array) -> Array:
    """Cut off at 0 and 1, in place; np.clip costs three times as much on small windows."""
    np.maximum(values, 0, out=values)
    return np.minimum(values, 1, out=values)


def _blend(region: Array, alpha: Array, colour: Array) -> None:
    change = colour - region
    change *= alpha
    region += change
