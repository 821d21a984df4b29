"""VOC folders, and the real ones of BCCD."""

from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_bad_folders_and_lists(voc_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vall\.txt: no such split; did you mean 'val'"):
        open_source(f"voc:{voc_root},vall")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        open_source(f"voc:{tmp_path / 'nowhere'},train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a VOC folder; it needs Annotations"):
        open_source(f"voc:{tmp_path / 'empty'}")
    names = voc_root / "ImageSets/Main/train.txt"
    names.write_text("one\none\n")
    with pytest.raises(UserError, match="image 'one' is listed twice"):
        open_source(f"voc:{voc_root}")
    names.write_text("one\nfour\n")
    with pytest.raises(UserError, match=r"four\.xml: absent, though listed in ImageSets/Main/train\.txt \(1 such\)"):
        open_source(f"voc:{voc_root}")
    names.write_text("")
    with pytest.raises(UserError, match="no image listed"):
        open_source(f"voc:{voc_root}")


def test_bad_files(voc_root: Path, rewrite_xml: RewriteXml) -> None:
    xml = voc_root / "Annotations/two.xml"
    good = xml.read_text()
    cases = [
        (good[:-20], "broken XML"),
        (good.replace("<xmin>30</xmin>", ""), "object 'dog' lacks xmin"),
        (good.replace("<xmin>30</xmin>", "<xmin>left</xmin>"), "not a VOC annotation .could not convert"),
        (good.replace("<name>dog</name>", ""), "an object has no name"),
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
