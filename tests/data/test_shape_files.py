"""Data sets of shapes on disk: independent of workers, atomic, cached."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest

from cpm_lib.data import open_source, shape_files, shapes, write_shapes
from cpm_lib.errors import UserError

TINY = dataclasses.replace(shapes.PROFILES["smoke"], counts=(7, 3, 3))


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_same_bytes_for_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_files, "CHUNK", 2)
    alone = write_shapes("smoke", tmp_path / "alone", config=TINY, workers=0)
    together = write_shapes("smoke", tmp_path / "together", config=TINY, workers=2)
    assert content(alone) == content(together)
    assert content(alone) != content(write_shapes("smoke", tmp_path / "seed", seed=1, config=TINY, workers=0))
    assert sorted(path.name for path in alone.iterdir()) == [
        "annotations_train.json",
        "annotations_val.json",
        "train",
        "val",
    ]


def test_annotation_file_records_the_knobs(shapes_folder: Path) -> None:
    coco = json.loads((shapes_folder / "annotations_val.json").read_text())
    info = coco["info"]
    assert info["profile"] == "smoke" and info["split"] == "val" and info["seed"] == 0
    assert info["area_limits"] == pytest.approx([0.15 * 64, 0.35 * 64])
    assert set(info["knobs"]) == {field.name for field in dataclasses.fields(shapes.ShapesConfig)}
    assert len(coco["images"]) == 12 and coco["images"][0]["file_name"] == "000001.png"
    ids = [entry["id"] for entry in coco["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_dataset_of_shapes(shapes_folder: Path) -> None:
    dataset = shape_files.read_shapes(shapes_folder, "train")
    assert len(dataset) == 24 and dataset.classes == shapes.CLASSES
    assert dataset.area_limits == pytest.approx((9.6, 22.4))
    assert not dataset.dropped and not dataset.clipped
    image, target = dataset[0]
    assert image.shape == (3, 64, 64) and target["boxes"].shape == (len(target["labels"]), 4)


def test_same_data_is_kept_and_other_data_is_not_overwritten(tmp_path: Path) -> None:
    write_shapes("smoke", tmp_path, config=TINY, workers=0)
    before = content(tmp_path)
    write_shapes("smoke", tmp_path, config=TINY, workers=0)
    assert content(tmp_path) == before
    with pytest.raises(UserError, match="choose another folder"):
        write_shapes("smoke", tmp_path, seed=1, config=TINY, workers=0)
    (tmp_path / "annotations_train.json").unlink()
    with pytest.raises(UserError, match="choose another folder"):
        write_shapes("smoke", tmp_path, seed=1, config=TINY, workers=0)
    write_shapes("smoke", tmp_path, config=TINY, workers=0)
    assert content(tmp_path) == before


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shape_files, "_write_chunk", full)
    with pytest.raises(UserError, match=r"No space left on device\); free space"):
        write_shapes("smoke", tmp_path / "new", config=TINY, workers=0)
    assert not content(tmp_path) and not list((tmp_path / "new").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_shapes("smoke", tmp_path / "file", config=TINY, workers=0)


def test_cache_makes_only_the_wanted_split_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPM_CACHE", str(tmp_path))
    monkeypatch.setattr(shape_files, "available_cores", lambda: 1)
    first = open_source("shapes:smoke:val")
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["annotations_val.json", "val"]
    monkeypatch.setattr(shape_files, "_write_split", None)
    assert open_source("shapes:smoke:val").fingerprint() == first.fingerprint()


def test_two_makers_at_once_agree(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def make() -> None:
        try:
            write_shapes("smoke", tmp_path, config=TINY, workers=0)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert len(shape_files.read_shapes(tmp_path, "train")) == 7


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CPM_CACHE", raising=False)
    assert shape_files.cache_folder() == Path.home() / ".cache" / "cpm_lib"
    (tmp_path / "data").mkdir()
    assert shape_files.cache_folder() == Path("data/cache")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shapes:quik:train", "unknown profile 'quik'; did you mean 'quick'"),
        ("shapes:smoke:vall", "unknown split 'vall'; did you mean 'val'"),
        ("shapes", "is not a data source; use shapes:PROFILE"),
        ("shape:quick", "unknown kind of data 'shape'; did you mean 'shapes'"),
        ("", "is not a data source"),
    ],
)
def test_unknown_sources(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPM_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        open_source(text)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
