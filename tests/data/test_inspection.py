"""The report on a data set, and drawn samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cpm_lib.data import DetectionDataset, open_source, shape_files
from cpm_lib.data.inspection import check, draw_samples, untrained

WriteCoco = Callable[[dict[str, Any]], tuple[Path, Path]]


def test_report_counts(coco_dict: dict[str, Any], write_coco: WriteCoco) -> None:
    coco_dict["annotations"].append({"id": 9, "image_id": 5, "category_id": 4, "bbox": [1, 1, 0, 0]})
    annotations, folder = write_coco(coco_dict)
    dataset = open_source(f"coco:{annotations},{folder}")
    (folder / "c.png").write_bytes(b"nothing")
    report = check(dataset)
    assert (report.images, report.objects, report.crowd, report.empty_images) == (3, 3, 1, 1)
    assert report.classes == {"early": 2, "late": 1}
    assert report.small_medium_large == pytest.approx((2 / 3, 1 / 3, 0))
    assert report.at_border == pytest.approx(2 / 3)
    assert report.width[0] == 30 and report.width[-1] == 40
    assert report.dropped == [(5, "bbox [1, 1, 0, 0] has no area")]
    assert [image_id for image_id, _ in report.unreadable] == [5] and report.decoded == 3
    assert not report.sane
    text = report.text()
    assert "boxes dropped            1" in text and "image 5: bbox [1, 1, 0, 0] has no area" in text
    assert "  1 early: 2" in text and "1 unreadable" in text and "1 ignored" in text
    assert check(dataset, samples=2).decoded == 2 and check(dataset, samples=0).decoded == 0


def test_classes_that_only_the_validation_has(coco_dict: dict[str, Any], write_coco: WriteCoco) -> None:
    """Told by label: category ids may differ between the files, and crowds teach nothing."""
    validation = open_source("coco:{},{}".format(*write_coco(coco_dict)))
    assert untrained(validation, validation) == []
    for entry in coco_dict["annotations"]:
        entry |= {"category_id": 1 if entry["category_id"] == 4 else 2, "iscrowd": int(entry["category_id"] == 90)}
    coco_dict["categories"] = [{"id": 1, "name": "early"}, {"id": 2, "name": "late"}]
    training = open_source("coco:{},{}".format(*write_coco(coco_dict)))
    assert training.classes == validation.classes
    assert (untrained(training, validation), untrained(validation, training)) == (["late"], [])


def test_shapes_are_sane(shapes_folder: Path) -> None:
    report = check(shape_files.read_shapes(shapes_folder, "val"))
    assert report.sane and report.decoded == 12 and report.at_border > 0.05
    assert report.area_limits == pytest.approx((9.6, 22.4))
    assert "parted at 9.6 and 22.4 px" in report.text()


def test_drawn_samples(mixed: DetectionDataset, tmp_path: Path) -> None:
    paths = draw_samples(mixed, tmp_path / "drawn", 3)
    assert [path.name for path in paths] == ["sample_000001.png", "sample_000012.png", "sample_000023.png"]
    with Image.open(paths[2]) as picture:
        assert picture.size == (11 * 36, 11 * 24)
        assert len(picture.getcolors(100_000)) > 2  # the box of image 23 is there
