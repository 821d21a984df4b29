"""VOC folders, and the real ones of BCCD."""

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cpm_lib.data import open_source
from cpm_lib.errors import UserError

RewriteXml = Callable[..., None]


def test_boxes_become_continuous_and_classes_cover_all_splits(voc_root: Path) -> None:
    dataset = open_source(f"voc:{voc_root}")
    assert dataset.classes == ("cat", "dog", "zebra")
    assert dataset.classes == open_source(f"voc:{voc_root},val").classes
    # Ids count the sorted annotation files, so they agree between splits; the order is the split's.
    assert dataset.image_ids == [3, 1] and open_source(f"voc:{voc_root},val").image_ids == [2]
    target = dataset.target(1)
    assert target["boxes"].tolist() == [[0, 0, 10, 20]] and target["labels"].tolist() == [2]
    assert dataset.target(0)["boxes"].tolist() == [[29, 19, 40, 30]] and dataset.clipped == [3]
    assert dataset[1][0].shape == (3, 30, 40)


def test_difficult_is_ignored_and_truncated_kept(voc_root: Path) -> None:
    annotations = [
        entry for entry in open_source(f"voc:{voc_root},train").coco["annotations"] if entry["image_id"] == 1
    ]
    assert [(entry["iscrowd"], entry["truncated"]) for entry in annotations] == [(0, 1), (1, 0)]


def test_folder_one_level_down_and_comma_in_the_name(voc_root: Path) -> None:
    assert len(open_source(f"voc:{voc_root.parent},train")) == 2
    renamed = voc_root.rename(voc_root.parent / "a, b")
    assert len(open_source(f"voc:{renamed}")) == 2
    assert len(open_source(f"voc:{renamed},val")) == 1


def test_equal_corners_are_dropped(voc_root: Path, rewrite_xml: RewriteXml) -> None:
    rewrite_xml("two", [("dog", 5, 5, 5, 5, 0, 0), ("dog", 9, 9, 4, 12, 0, 0), ("dog", 1, 1, 2, 2, 0, 0)])
    dataset = open_source(f"voc:{voc_root}")
    assert [image_id for image_id, _ in dataset.dropped] == [3, 3]
    assert dataset.target(0)["boxes"].tolist() == [[0, 0, 2, 2]]


def test_size_missing_in_the_xml(voc_root: Path, rewrite_xml: RewriteXml) -> None:
    rewrite_xml("two", [("dog", 1, 1, 2, 2, 0, 0)], size=(0, 0))
    assert open_source(f"voc:{voc_root}").size(0) == (40, 30)


def test_names_with_spaces_and_numbers(voc_root: Path) -> None:
    """A last 1 is part of the name where there is such a file, else the flag of a class-wise list."""
    for folder, ending in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        (voc_root / folder / f"one.{ending}").rename(voc_root / folder / f"photo 1.{ending}")
    (voc_root / "ImageSets/Main/train.txt").write_text("\ufeffphoto 1\ntwo -1\n", encoding="utf-8")
    dataset = open_source(f"voc:{voc_root}")
    assert [Path(dataset.file(index)).name for index in range(2)] == ["photo 1.jpg", "two.jpg"]


def test_a_picture_of_another_format_than_its_ending(voc_root: Path) -> None:
    Image.new("RGB", (40, 30)).save(voc_root / "JPEGImages/two.jpg", format="PNG")
    assert open_source(f"voc:{voc_root}")[0][0].shape == (3, 30, 40)


@pytest.mark.parametrize("place", ["Annotations", "JPEGImages", "ImageSets/Main/train.txt", "Annotations/two.xml"])
def test_what_must_not_be_read(place: str, voc_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused as the system does it; the permissions of real files would not stop a test run by root."""
    forbidden = voc_root / place

    def refuse(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(path, (str, Path)) and Path(path) == forbidden:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return function(path, *arguments, **options)

        return call

    monkeypatch.setattr(os, "listdir", refuse(os.listdir))
    monkeypatch.setattr(io, "open", refuse(io.open))
    monkeypatch.setattr(builtins, "open", refuse(open))
    with pytest.raises(UserError, match="Permission denied") as caught:
        open_source(f"voc:{voc_root}")
    assert str(caught.value).startswith(str(forbidden)) and "\n" not in str(caught.value)


def test_bad_folders_and_lists(voc_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vall\.txt: no such split; did you mean 'val'"):
        open_source(f"voc:{voc_root},vall")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        open_source(f"voc:{tmp_path / 'nowhere'},train")
    (voc_root / "ImageSets").rename(tmp_path / "lists")
    with pytest.raises(UserError, match=r"VOC: not a VOC folder, without ImageSets; it needs .*train\.txt"):
        open_source(f"voc:{voc_root}")
    (voc_root / "ImageSets").mkdir()
    with pytest.raises(UserError, match=r"train\.txt: no such split; write the names of its images into it"):
        open_source(f"voc:{voc_root}")
    (voc_root / "ImageSets").rmdir()
    (tmp_path / "lists").rename(voc_root / "ImageSets")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a VOC folder, without Annotations, JPEGImages, ImageSets; it needs"):
        open_source(f"voc:{tmp_path / 'empty'}")
    names = voc_root / "ImageSets/Main/train.txt"
    names.write_text("one\none\n")
    with pytest.raises(UserError, match="image 'one' is listed twice"):
        open_source(f"voc:{voc_root}")
    names.write_text("one\nfour\n")
    with pytest.raises(UserError, match=r"four\.xml: absent, though listed in ImageSets/Main/train\.txt \(1 such\)"):
        open_source(f"voc:{voc_root}")
    names.write_text("one.jpg\n")
    with pytest.raises(UserError, match=r"one\.jpg\.xml: absent.*names are listed without their ending"):
        open_source(f"voc:{voc_root}")
    names.write_text("")
    with pytest.raises(UserError, match=r"train\.txt: no image listed; name at least one"):
        open_source(f"voc:{voc_root}")
    names.write_bytes("one\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"train\.txt: not a list of names as UTF-8 text"):
        open_source(f"voc:{voc_root}")


def test_bad_files(voc_root: Path, rewrite_xml: RewriteXml) -> None:
    xml = voc_root / "Annotations/two.xml"
    good = xml.read_text()
    cases = [
        (good[:-20], "broken XML"),
        (good.replace("<xmin>30</xmin>", ""), "object 'dog' lacks xmin"),
        (good.replace("<xmin>30</xmin>", "<xmin>left</xmin>"), "not a VOC annotation .could not convert"),
        (good.replace("<name>dog</name>", ""), "an object has no name"),
        (
            good.replace("<width>40</width>", "<width>inf</width>"),
            "not a VOC annotation .cannot convert float infinity",
        ),
    ]
    for text, message in cases:
        xml.write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            open_source(f"voc:{voc_root}")
        assert str(caught.value).startswith(str(xml)) and "\n" not in str(caught.value)
    rewrite_xml("two", [])
    rewrite_xml("one", [])
    with pytest.raises(UserError, match="no object in 2 images"):
        open_source(f"voc:{voc_root}")
    (voc_root / "JPEGImages/two.jpg").unlink()
    with pytest.raises(UserError, match=r"two\.jpg \(image 3\)"):
        open_source(f"voc:{voc_root}")


def test_bccd_drops_its_two_degenerate_boxes(bccd: Path) -> None:
    dataset = open_source(f"voc:{bccd},trainval")
    assert len(dataset) == 292 and dataset.classes == ("Platelets", "RBC", "WBC")
    assert len(dataset.dropped) == 2 and all("no area" in reason for _, reason in dataset.dropped)
    ids = {image_id for image_id, _ in dataset.dropped}
    files = {Path(dataset.file(dataset.image_ids.index(image_id))).name for image_id in ids}
    assert files == {"BloodImage_00338.jpg", "BloodImage_00343.jpg"}
    with pytest.raises(UserError, match="2 bad boxes"):
        open_source(f"voc:{bccd},trainval", strict=True)
    image, target = dataset[0]
    assert image.shape == (3, 480, 640) and len(target["boxes"]) > 0
    assert sum(len(open_source(f"voc:{bccd},{split}").coco["annotations"]) for split in ("trainval", "test")) == 4886
