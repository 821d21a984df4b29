"""Cleaning of annotations, targets, and images of every kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cpm_lib.data import DetectionDataset, read_image
from cpm_lib.data.dataset import clip_box
from cpm_lib.errors import UserError


def open_dict(coco: dict[str, Any], tmp_path: Path, **options: Any) -> DetectionDataset:
    for image in coco["images"]:
        Image.new("RGB", (30, 40)).save(tmp_path / image["file_name"])
    return DetectionDataset("name", coco, tmp_path, where="ann.json", **options)


def test_targets_follow_the_contract(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    dataset = open_dict(coco_dict, tmp_path)
    assert dataset.classes == ("early", "late") and dataset.label_to_category == {1: 4, 2: 90}
    assert dataset.image_ids == [7, 3, 5] and dataset.size(0) == (40, 30) and len(dataset) == 3
    target = dataset.target(0)
    assert target["boxes"].tolist() == [[2, 3, 12, 15], [1, 1, 5, 5]] and target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [2, 1] and target["labels"].dtype == torch.int64
    assert target["area"].tolist() == [77, 16] and target["iscrowd"].tolist() == [0, 0]
    assert target["image_id"] == 7
    assert dataset.target(1)["area"].tolist() == [1200]  # width x height where the file has none
    empty = dataset.target(2)
    assert empty["boxes"].shape == (0, 4) and empty["labels"].shape == (0,)


def test_crowd_objects_stay_for_evaluation_only(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    dataset = open_dict(coco_dict, tmp_path)
    assert [entry["iscrowd"] for entry in dataset.coco["annotations"]] == [0, 0, 1, 0]
    assert dataset.coco["annotations"][3]["note"] == "x"
    assert sum(len(dataset.target(index)["labels"]) for index in range(3)) == 3


def test_target_is_a_copy(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    dataset = open_dict(coco_dict, tmp_path)
    dataset.target(0)["boxes"].zero_()
    assert dataset.target(0)["boxes"].sum() > 0


@pytest.mark.parametrize(
    ("box", "expected", "reason"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], ""),
        ([-5, 2, 10, 50], [0, 2, 5, 38], "over the border"),
        ([1, 2, 0, 4], None, "no area"),
        ([1, 2, 3, -4], None, "inverted"),
        ([30, 2, 5, 5], None, "outside the image of 30 x 40"),
        ([-9, 2, 9, 5], None, "outside"),
        ([float("nan"), 2, 9, 5], None, "not finite"),
        ([1, 2, 3], None, "not four numbers"),
        (None, None, "not four numbers"),
        ("abcd", None, "not four numbers"),
    ],
)
def test_clip_box(box: Any, expected: list[float] | None, reason: str) -> None:
    clipped, why = clip_box(box, 30, 40)
    assert clipped == expected and reason in why


def test_bad_boxes_are_dropped_with_image_id_or_refused(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    bad = [{"image_id": 3, "category_id": 4, "bbox": box} for box in ([5, 5, 0, 9], [99, 99, 5, 5], [-3, 0, 9, 9])]
    coco_dict["annotations"] += bad
    dataset = open_dict(coco_dict, tmp_path)
    assert [image_id for image_id, _ in dataset.dropped] == [3, 3] and dataset.clipped == [3]
    assert len(dataset.coco["annotations"]) == 5
    with pytest.raises(UserError, match=r"2 bad boxes, the first in image 3: .* no area; .*--strict"):
        open_dict(coco_dict, tmp_path, strict=True)


def test_unfit_annotation_ids_are_replaced(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    assert [entry["id"] for entry in open_dict(coco_dict, tmp_path).coco["annotations"]] == [1, 2, 3, 4]
    coco_dict["annotations"][0]["id"] = 0
    assert [entry["id"] for entry in open_dict(coco_dict, tmp_path).coco["annotations"]] == [1, 2, 3, 4]
    coco_dict["annotations"][0]["id"] = 9
    assert [entry["id"] for entry in open_dict(coco_dict, tmp_path).coco["annotations"]] == [9, 2, 3, 4]


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(coco: dict[str, Any]) -> None:
        part: Any = coco
        *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
        for key in parents:
            part = part[key]
        part[last] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change("annotations", []), "no object in 3 images; is it the right file"),
        (change("images", []), "no image listed"),
        (change("categories", []), "'categories' is empty"),
        (change("categories/0/id", 4), "category id 4 appears twice"),
        (change("categories/0/id", "x"), "'categories' needs a list"),
        (change("images/0/id", 3), "image id 3 appears twice"),
        (change("images/0/id", "7"), "an image needs an integer 'id'"),
        (change("categories/0/id", "90"), "category id '90' is not a number; write it without quotation marks"),
        (change("annotations/0/category_id", 5), "annotation 1 of image 7 has category id 5, which is not in"),
        (change("annotations/0/category_id", "90"), "has category id '90', which is not in 'categories' "),
        (change("annotations/0/category_id", [90]), r"has category id \[90\], which is not in 'categories' "),
        (
            change("annotations/0/iscrowd", "yes"),
            "annotation 1 of image 7 has iscrowd 'yes' and area 77.0; write numbers",
        ),
        (change("annotations/0/area", "77"), "annotation 1 of image 7 has iscrowd 0 and area '77'; write numbers"),
        (change("images/0/width", "40"), r"image 7 \(a\.png\) is '40' wide and 30 high; mend its size"),
        (change("images/0/height", -30), r"image 7 \(a\.png\) is 40 wide and -30 high; mend its size"),
        (change("annotations/0/image_id", 8), "annotation 1 is of image 8, which is not in 'images'"),
    ],
)
def test_refusals_are_one_clear_line(
    spoil: Callable[[dict[str, Any]], None], message: str, coco_dict: dict[str, Any], tmp_path: Path
) -> None:
    spoil(coco_dict)
    with pytest.raises(UserError, match=message) as caught:
        open_dict(coco_dict, tmp_path)
    assert str(caught.value).startswith("ann.json: ") and "\n" not in str(caught.value)


def test_null_counts_as_absent(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    coco_dict["annotations"][0] |= {"area": None, "iscrowd": None, "segmentation": None, "note": None}
    dataset = open_dict(coco_dict, tmp_path)
    assert dataset.target(0)["area"].tolist() == [120, 16]
    assert dataset.coco["annotations"][0] == {
        "id": 1, "image_id": 7, "category_id": 90, "bbox": [2, 3, 10, 12], "area": 120, "iscrowd": 0
    }  # fmt: skip


def test_absent_image_is_named(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    open_dict(coco_dict, tmp_path)
    (tmp_path / "b.png").unlink()
    with pytest.raises(UserError, match=r"1 of 3 images are absent, the first is .*b\.png \(image 3\)"):
        DetectionDataset("name", coco_dict, tmp_path, where="ann.json")


def test_fingerprint_follows_content_not_place(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = open_dict(coco_dict, tmp_path).fingerprint()
    assert first == open_dict(json.loads(json.dumps(coco_dict)), tmp_path / "other").fingerprint()
    coco_dict["annotations"][0]["bbox"][0] = 2.5
    assert first != open_dict(coco_dict, tmp_path).fingerprint()
    assert len(first) == 64


def test_segmentation_is_forgotten(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    coco_dict["annotations"][0]["segmentation"] = [[0, 0, 1, 1, 0, 1]]
    assert "segmentation" not in open_dict(coco_dict, tmp_path).coco["annotations"][0]


def test_image_of_another_size_or_cut_off(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    dataset = open_dict(coco_dict, tmp_path)
    with pytest.raises(UserError, match=r"a\.png: the image is 30 x 40 pixels but .* 40 x 30; .*image 7 of name"):
        dataset[0]
    assert dataset[1][0].shape == (3, 40, 30)
    with pytest.raises(IndexError):
        dataset[3]


def test_sizes_missing_in_the_file_are_read_from_the_images(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    for image in coco_dict["images"]:
        del image["width"]
    assert open_dict(coco_dict, tmp_path).size(0) == (30, 40)
    Path(tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.png: cannot be decoded"):
        DetectionDataset("name", coco_dict, tmp_path, where="ann.json")


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "RGB"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 6), (255, 255, 255))
    picture.paste((0, 0, 0), (0, 0, 4, 6))
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    picture.convert(mode).save(path)
    tensor = read_image(path)
    assert tensor.shape == (3, 6, 8) and tensor.dtype == torch.float32
    assert tensor[:, :, :3].max() < 0.1 and tensor[:, :, 5:].min() > 0.9


def test_sixteen_bit_grey_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[1].tolist() == [[0, pytest.approx(0.5, abs=1e-4), 1]]


def test_exif_rotation(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 6))
    picture.paste((255, 255, 255), (0, 0, 4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    path = tmp_path / "x.jpg"
    picture.save(path, exif=exif, quality=95)
    upright = read_image(path)
    assert upright.shape == (3, 8, 6)
    assert upright[:, :3].min() > 0.9 and upright[:, 5:].max() < 0.1
    assert torch.equal(read_image(path, (6, 8)), upright)
    # Annotations made on the unrotated image: their size decides.
    assert read_image(path, (8, 6)).shape == (3, 6, 8)


def test_header_size_honours_exif(coco_dict: dict[str, Any], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (8, 6)).save(tmp_path / "x.jpg", exif=exif)
    coco = {
        "images": [{"id": 1, "file_name": "x.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 4, "bbox": [0, 0, 6, 8]}],
        "categories": coco_dict["categories"],
    }
    dataset = DetectionDataset("name", coco, tmp_path, where="ann.json")
    assert dataset.size(0) == (6, 8) and dataset[0][0].shape == (3, 8, 6) and not dataset.clipped


def test_truncated_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(UserError, match=r"x\.jpg: cannot be decoded \(.*truncated.*\); replace the file"):
        read_image(path)
    path.write_text("no image")
    with pytest.raises(UserError, match="cannot be decoded"):
        read_image(path)
    with pytest.raises(UserError, match="no such image"):
        read_image(tmp_path / "absent.png")
