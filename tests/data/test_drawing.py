"""Signed distances: the six classes are where they should be, boxes are tight."""

import numpy as np
import pytest

from cpm_lib.data import drawing

DISK, SQUARE, TRIANGLE, STAR, RING, CROSS = range(6)


def area(kind: int, aspect: float = 1.0, angle: float = 0.0) -> float:
    # Off the pixel grid, so that no edge runs through pixel centres.
    return float((drawing.distances(kind, 100.0, aspect, angle, (0.3, 0.2), 4.0) < 0).sum())


def test_areas_match_the_formulas() -> None:
    assert area(DISK) == pytest.approx(np.pi * 50**2, rel=0.01)
    assert area(SQUARE) == pytest.approx(100**2, rel=0.02)
    assert area(SQUARE, 2.0) == pytest.approx(100 * 50, rel=0.04)
    assert area(RING) == pytest.approx(np.pi * 50**2 * (1 - drawing.RING_HOLE**2), rel=0.02)
    assert area(CROSS) == pytest.approx(100**2 * drawing.CROSS_ARM * (2 - drawing.CROSS_ARM), rel=0.03)
    assert area(TRIANGLE) == pytest.approx(100**2 * np.sqrt(3) / 4, rel=0.03)
    radius = 100 / (2 * np.sin(0.4 * np.pi))
    assert area(STAR) == pytest.approx(1.123 * radius**2, rel=0.03)


@pytest.mark.parametrize("kind", range(6))
def test_distance_has_unit_slope_at_the_contour(kind: int) -> None:
    distance = drawing.distances(kind, 100.0, 1.5, 0.4, (0.3, 0.7), 6.0)
    down, across = np.gradient(distance)
    slope = np.hypot(down, across)[np.abs(distance) < 0.7]
    assert np.median(slope) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("kind", range(6))
@pytest.mark.parametrize("angle", [0.0, 0.3, 2.0])
def test_box_has_the_wanted_longest_side(kind: int, angle: float) -> None:
    box = drawing.tight_box(drawing.distances(kind, 60.0, 1.6, angle, (0.2, 0.9), 3.0))
    assert box is not None
    # Tips thinner than a pixel are not visible, so they do not count.
    tolerance = 3.0 if kind in (TRIANGLE, STAR) else 0.7
    assert max(box[2] - box[0], box[3] - box[1]) == pytest.approx(60, abs=tolerance)


def test_tight_box_is_exact_to_a_fraction_of_a_pixel() -> None:
    x = np.arange(40, dtype=np.float32) + 0.5
    across, down = x[None, :], x[:, None]
    distance = np.maximum(np.abs(across - 14.3) - 6.45, np.abs(down - 20.8) - 9.2).astype(np.float32)
    box = drawing.tight_box(distance)
    assert box == pytest.approx((14.3 - 6.45, 20.8 - 9.2, 14.3 + 6.45, 20.8 + 9.2), abs=1e-4)


def test_tight_box_ends_at_the_edge_of_the_array_and_can_be_empty() -> None:
    distance = drawing.distances(DISK, 40.0, 1.0, 0.0, (0.0, 0.0), 5.0)
    half = distance.shape[1] // 2
    box = drawing.tight_box(distance[:, half:])
    assert box is not None and box[0] == 0 and box[2] == pytest.approx(20, abs=0.1)
    assert drawing.tight_box(np.ones((4, 4), np.float32)) is None


def test_paint_covers_half_at_the_contour_and_nothing_far_away() -> None:
    region = np.zeros((3, 20, 20), np.float32)
    distance = np.broadcast_to(np.arange(20, dtype=np.float32)[None, :] - 10, (20, 20)).copy()
    drawing.paint(np.random.default_rng(3), region, distance, 2.0, 0.3, False, 1.0)
    assert (region[:, :, 12:] == 0).all()
    inside, contour = region[:, :, 8].mean(), region[:, :, 10].mean()
    assert contour == pytest.approx(inside / 2, rel=0.3)
    assert np.linalg.norm(region[:, :, :9].mean(axis=(1, 2))) > 0.2
