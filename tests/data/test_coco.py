"""COCO files and folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpm_lib.data import open_source
from cpm_lib.errors import UserError

WriteCoco = Callable[[dict[str, Any]], tuple[Path, Path]]


def test_file_and_folder(coco_dict: dict[str, Any], write_coco: WriteCoco) -> None:
    annotations, folder = write_coco(coco_dict)
    dataset = open_source(f"coco:{annotations},{folder}")
    assert dataset.name == f"coco:{annotations},{folder}" and len(dataset) == 3
    assert dataset.area_limits == (32.0, 96.0)
    image, target = dataset[0]
    assert image.shape == (3, 30, 40) and len(target["boxes"]) == 2
    assert dataset.file(0) == str(folder / "a.png")


@pytest.mark.parametrize(
    ("annotation_name", "image_name"), [("instances_val2017.json", "val2017"), ("instances_val.json", "val")]
)
def test_layout_of_2017(
    annotation_name: str, image_name: str, coco_dict: dict[str, Any], write_coco: WriteCoco, tmp_path: Path
) -> None:
    annotations, folder = write_coco(coco_dict)
    root = tmp_path / "coco, the root"
    (root / "annotations").mkdir(parents=True)
    annotations.rename(root / "annotations" / annotation_name)
    folder.rename(root / image_name)
    assert len(open_source(f"coco:{root},val")) == 3
    with pytest.raises(UserError, match=r"instances_train2017\.json: annotation file cannot be read"):
        open_source(f"coco:{root},train")


def test_pycocotools_reads_the_dict(
    coco_dict: dict[str, Any], write_coco: WriteCoco, capsys: pytest.CaptureFixture[str]
) -> None:
    from pycocotools.coco import COCO

    dataset = open_source("coco:{},{}".format(*write_coco(coco_dict)))
    coco = COCO()
    coco.dataset = dataset.coco
    coco.createIndex()
    assert sorted(coco.getCatIds()) == [4, 90] and len(coco.getAnnIds(imgIds=[7])) == 3
    capsys.readouterr()


def test_bad_files(coco_dict: dict[str, Any], write_coco: WriteCoco, tmp_path: Path) -> None:
    annotations, folder = write_coco(coco_dict)
    cases: list[tuple[bytes, str]] = [
        (b'{"images": [', "broken JSON"),
        (b"\xff\xfe\x00", "broken JSON"),
        (b"[]", "holds a list, not an object"),
        (json.dumps({"images": []}).encode(), "'annotations' must be a list"),
        (json.dumps({**coco_dict, "annotations": [3]}).encode(), "'annotations' must be a list of objects"),
    ]
    for text, message in cases:
        annotations.write_bytes(text)
        with pytest.raises(UserError, match=message) as caught:
            open_source(f"coco:{annotations},{folder}")
        assert "\n" not in str(caught.value) and str(annotations) in str(caught.value)
    annotations.unlink()
    with pytest.raises(UserError, match=r"annotation file cannot be read \(No such file"):
        open_source(f"coco:{annotations},{folder}")
    annotations.write_text(json.dumps(coco_dict))
    with pytest.raises(UserError, match="nowhere: no such image folder"):
        open_source(f"coco:{annotations},{tmp_path / 'nowhere'}")
    with pytest.raises(UserError, match="needs two parts"):
        open_source(f"coco:{annotations}")


def test_strict_is_handed_on(coco_dict: dict[str, Any], write_coco: WriteCoco) -> None:
    coco_dict["annotations"].append({"id": 9, "image_id": 5, "category_id": 4, "bbox": [1, 1, 0, 0]})
    text = "coco:{},{}".format(*write_coco(coco_dict))
    assert open_source(text).dropped == [(5, "bbox [1, 1, 0, 0] has no area")]
    with pytest.raises(UserError, match="1 bad boxes"):
        open_source(text, strict=True)
