"""What is odd about COCO, read, trained on and evaluated."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cpm_lib import presets
from cpm_lib.cli import main
from cpm_lib.data import DetectionDataset, inspection, open_source
from cpm_lib.data.loading import training_batches
from cpm_lib.training import train
from tests import quirky_coco


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quirky")
    for split in ("train", "val"):
        quirky_coco.write(folder, split)
    return folder


@pytest.fixture(scope="module")
def data(root: Path) -> DetectionDataset:
    return open_source(f"coco:{root},val")


def boxes(data: DetectionDataset, image_id: int) -> list[list[float]]:
    return data.target(data.image_ids.index(image_id))["boxes"].tolist()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with numpy 2
def test_the_files_are_as_odd_as_they_claim(root: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(root / "annotations" / "instances_val2017.json"))
    for annotation in coco.dataset["annotations"]:
        # pycocotools itself draws every mask; a crowd's is as large as its box.
        mask = coco.annToMask(annotation)
        if annotation["iscrowd"]:
            assert mask.sum() == annotation["bbox"][2] * annotation["bbox"][3]
    for image_id, (size, kind) in quirky_coco.IMAGES.items():
        with Image.open(root / "val2017" / f"{image_id:012d}.jpg") as image:
            assert image.mode == (kind if kind in ("L", "CMYK") else "RGB")
            assert (image.getexif().get(0x0112) == 6) == kind.startswith("turned")
            assert image.size == (size[::-1] if kind == "turned" else size)


def test_every_kind_of_jpeg(data: DetectionDataset) -> None:
    for index, image_id in enumerate(data.image_ids):
        (width, height), kind = quirky_coco.IMAGES[image_id]
        image, target = data[index]
        assert image.shape == (3, height, width) and target["image_id"] == image_id
        left_top, rest = image[:, : height // 2 - 8, : width // 2 - 8], image[:, height // 2 + 8 :]
        assert left_top.min() > 0.9 and rest.mean() < 0.3, kind
        if kind == "L":
            assert torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])


def test_labels_boxes_and_crowds(data: DetectionDataset) -> None:
    assert data.classes == ("person", "stop sign", "bottle", "toothbrush")
    assert data.label_to_category == {1: 1, 2: 13, 3: 44, 4: 90}
    assert data.target(data.image_ids.index(9))["labels"].tolist() == [1, 3]
    for image_id in (42, 49, 61):
        assert boxes(data, image_id) == []
    assert boxes(data, 64) == [[30, 15, 50, 55]]
    assert boxes(data, 71)[0] == [30, 30, 31, 31] and len(boxes(data, 71)) == 3
    assert boxes(data, 74) == [[60, 10, 96, 60], [10, 30, 40, 55]]
    # The area is that of the mask, by which COCO tells small from large.
    assert data.target(data.image_ids.index(64))["area"].tolist() == [640]
    report = inspection.check(data)
    assert (report.images, report.objects, report.crowd, report.empty_images) == (11, 12, 2, 3)
    assert report.unreadable == [] and report.clipped == 1 and [i for i, _ in report.dropped] == [74]


def test_evaluation_keeps_the_boxes_of_the_file(data: DetectionDataset) -> None:
    """Training takes clipped boxes and leaves bad ones out; COCO's evaluation counts them all."""
    judged = [annotation["bbox"] for annotation in data.judged if annotation["image_id"] == 74]
    assert judged == [[20, 20, 30, 0], [60, 10, 36.02, 50], [10, 30, 30, 25]]
    assert len(data.judged) == len(quirky_coco.OBJECTS) == len(data.coco["annotations"]) + 1


@pytest.mark.parametrize("conventions", ["corrected", "official"])
@pytest.mark.parametrize("preset", ["faster", "cpm"])
def test_training_and_evaluation(preset: str, conventions: str, data: DetectionDataset, tmp_path: Path) -> None:
    """The first iteration sees every image at once, the others images without an object only."""
    config = presets.get(preset, "smoke", conventions).override(
        {"solver.iterations": 1, "solver.images_per_batch": len(data), "backbone.caffe": False}
    )
    train(config, data, tmp_path / "all", val=data, device="cpu", quiet=True)
    empty = quirky_coco.content()
    empty["images"] = [image for image in empty["images"] if image["id"] in (9, 42, 61)]
    empty["annotations"] = [a for a in empty["annotations"] if a["image_id"] in (9, 61)]
    few = DetectionDataset("few", empty, data.folder, where="few.json")
    config = config.override({"solver.iterations": 3, "solver.images_per_batch": 1})
    counts = [len(targets[0]["labels"]) for _, targets in training_batches(few, config, seed=0, stop=3)]
    assert sorted(counts) == [0, 0, 2]
    train(config, few, tmp_path / "few", device="cpu", quiet=True)
    lines = (tmp_path / "few" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3 and all(0 < json.loads(line)["loss"] < 100 for line in lines)


def test_results_file_of_the_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The metrics that `cpm eval` prints are those of pycocotools for the file it writes."""
    run, results = tmp_path / "run", tmp_path / "results.json"
    command = ["train", "--preset", "cpm", "--profile", "smoke", "--data", f"coco:{root},train", "--out", str(run)]
    assert main([*command, "--device", "cpu", "--set", "solver.iterations=2"]) == 0
    evaluation = ["eval", str(run), "--data", f"coco:{root},val", "--device", "cpu", "--json", "-"]
    capsys.readouterr()
    assert main([*evaluation, "--results", str(results)]) == 0
    printed = json.loads(capsys.readouterr().out)["rows"][-1]
    content = json.loads(results.read_text())
    assert content and all(list(entry) == ["image_id", "category_id", "bbox", "score"] for entry in content)
    assert {entry["category_id"] for entry in content} <= set(quirky_coco.CATEGORIES)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations" / "instances_val2017.json"))
        evaluator = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    for position, name in {0: "AP", 1: "AP50", 2: "AP75", 3: "APS", 4: "APM", 5: "APL"}.items():
        expected = evaluator.stats[position]
        if expected < 0:
            assert printed[name] is None
        else:
            assert printed[name] == pytest.approx(100 * expected, abs=1e-9)
