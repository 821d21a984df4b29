"""The generator: pure function of its arguments, honest annotations."""

import dataclasses

import numpy as np
import pytest

from cpm_lib.data import drawing, shapes
from cpm_lib.errors import UserError

QUICK = shapes.PROFILES["quick"]


def test_pure_function_of_seed_split_and_index() -> None:
    first, objects = shapes.generate(QUICK, 3, "val", 5)
    again, same = shapes.generate(QUICK, 3, "val", 5)
    assert np.array_equal(first, again) and objects == same
    for other in (
        shapes.generate(QUICK, 4, "val", 5),
        shapes.generate(QUICK, 3, "train", 5),
        shapes.generate(QUICK, 3, "val", 6),
    ):
        assert not np.array_equal(first, other[0])


def test_annotations_obey_the_knobs() -> None:
    objects = [entry for index in range(80) for entry in shapes.generate(QUICK, 0, "train", index)[1]]
    boxes = np.array([entry["bbox"] for entry in objects])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 128 + 1e-9).all() and (boxes[:, 2:] > 0).all()
    cut = np.array([entry["truncation"] for entry in objects])
    hidden = np.array([entry["occlusion"] for entry in objects])
    assert ((1 - cut) * (1 - hidden) >= QUICK.min_visible - 2e-4).all()
    assert 0.12 < (cut > 0.05).mean() < 0.35 and 0.1 < (hidden > 0.1).mean() < 0.4
    low, high = (share * 128 for share in QUICK.area_limits)
    area = np.array([entry["area"] for entry in objects])
    groups = ((area < low**2).mean(), (area >= high**2).mean())
    assert all(0.2 < share < 0.5 for share in groups)
    assert set(np.bincount([entry["category_id"] for entry in objects]).nonzero()[0]) == set(range(1, 7))


def test_full_box_is_larger_only_where_the_border_cuts() -> None:
    for index in range(60):
        for entry in shapes.generate(QUICK, 1, "train", index)[1]:
            x, y, w, h = entry["bbox"]
            fx, fy, fw, fh = entry["full_bbox"]
            if entry["truncation"] == 0:
                assert entry["bbox"] == pytest.approx(entry["full_bbox"], abs=0.3)
            assert fx <= x + 0.02 and fy <= y + 0.02
            assert fx + fw >= x + w - 0.02 and fy + fh >= y + h - 0.02
            if fx < -1:
                assert x < 1.5 or entry["truncation"] > 0


def disk_at(left: int, top: int) -> shapes._Placed:
    """A disk of diameter 40 whose box starts at (left, top)."""
    distance = drawing.distances(0, 40.0, 1.0, 0.0, (0.5, 0.5), 4.0)
    extent = drawing.tight_box(distance)
    assert extent is not None
    placed = shapes._Placed(distance, 1.0, False, int((distance < 0).sum()), extent)
    placed.left, placed.top = left - round(extent[0]), top - round(extent[1])
    return placed


def test_truncation_of_a_half_disk() -> None:
    entry = shapes._describe(disk_at(-20, 30), 0, 0, 128)
    assert entry["truncation"] == pytest.approx(0.5, abs=0.03)
    assert entry["bbox"] == pytest.approx([0, 30, 20, 40], abs=0.6)
    assert entry["full_bbox"] == pytest.approx([-20, 30, 40, 40], abs=0.6)
    assert entry["occlusion"] == 1.0  # no pixel was reported as visible


def test_box_of_a_truncated_disk_is_that_of_its_visible_part() -> None:
    # Only the lowest quarter of the disk is inside: the visible part is narrower than the disk.
    entry = shapes._describe(disk_at(40, -30), 0, 1, 128)
    chord = 2 * np.sqrt(20**2 - 10**2)
    assert entry["bbox"][2] == pytest.approx(chord, abs=0.8)
    assert entry["bbox"][1] == 0 and entry["bbox"][3] == pytest.approx(10, abs=0.6)


def test_occlusion_is_the_covered_share_of_what_the_border_left() -> None:
    shape = disk_at(60, 60)
    entry = shapes._describe(shape, 0, shape.area // 4, 128)
    assert entry["truncation"] == 0 and entry["occlusion"] == pytest.approx(0.75, abs=0.01)


def test_place_refuses_to_hide_an_earlier_object() -> None:
    config = dataclasses.replace(QUICK, side=44, truncation=0.0)
    below, above = disk_at(2, 2), disk_at(2, 2)
    owner = np.full((44, 44), -1, np.int16)
    rows, columns, window_rows, window_columns = below.inside(44)
    owner[rows, columns][below.distance[window_rows, window_columns] < 0] = 0
    visible = np.array([below.area])
    assert shapes._place(np.random.default_rng(0), above, owner, visible, [below], config) is None
    willing = dataclasses.replace(config, min_visible=0.0)
    cover = shapes._place(np.random.default_rng(0), above, owner, visible, [below], willing)
    assert cover is not None and cover[0] > 0.5 * below.area


def test_colour_does_not_tell_the_class() -> None:
    """Mean colours of the classes differ by less than their spread over images."""
    colours: dict[int, list[np.ndarray]] = {kind: [] for kind in range(1, 7)}
    for index in range(60):
        pixels, objects = shapes.generate(QUICK, 2, "train", index)
        for entry in objects:
            x, y, w, h = (int(value) for value in entry["bbox"])
            colours[entry["category_id"]].append(pixels[y + h // 2, x + w // 2] / 255)
    means = np.array([np.mean(values, axis=0) for values in colours.values()])
    assert np.abs(means - means.mean(axis=0)).max() < 0.15


def test_unknown_profile_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'quick'"):
        shapes.profile_config("quik")


def test_hash_follows_every_knob_and_the_seed() -> None:
    other = dataclasses.replace(QUICK, clutter=QUICK.clutter + 1)
    assert len({shapes.knobs_hash(QUICK, 0), shapes.knobs_hash(QUICK, 1), shapes.knobs_hash(other, 0)}) == 3
