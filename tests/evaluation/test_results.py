"""The results file: pycocotools' own evaluation of it, on the original annotations, gives our metrics."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cpm_lib.data import DetectionDataset, open_source
from cpm_lib.errors import UserError
from cpm_lib.evaluation import GroundTruth, evaluate
from tests import quirky_coco
from tests.evaluation.samples import CATEGORY_IDS, make

STATS = {0: "AP", 1: "AP50", 2: "AP75", 3: "APS", 4: "APM", 5: "APL", 8: "AR100"}
Detections = list[dict[str, Any]]


def written(folder: Path, coco: dict[str, Any]) -> DetectionDataset:
    """`coco` as a source. The images are empty files: nothing here looks into them."""
    (folder / "images").mkdir()
    for image in coco["images"]:
        (folder / "images" / image["file_name"]).touch()
    (folder / "ann.json").write_text(json.dumps(coco))
    return open_source(f"coco:{folder / 'ann.json'},{folder / 'images'}")


def with_quirks(seed: int) -> tuple[dict[str, Any], Detections]:
    """The samples, with masks, ids from 1, and boxes that reach over the border or have no area."""
    coco, detections = make(images=30, seed=seed)
    for number, annotation in enumerate(coco["annotations"]):
        x, y, w, h = annotation["bbox"]
        annotation["id"] += 1
        annotation["area"] *= 0.9
        polygon = [[x, y, x + w, y, x + w, y + h]]
        run_lengths = {"counts": [100, 900, 31000], "size": [160, 200]}
        annotation["segmentation"] = run_lengths if annotation["iscrowd"] else polygon
        if number % 7 == 3:
            annotation["bbox"] = [x, y, w + 60, h + 50]
            annotation["area"] = 0.9 * (w + 60) * (h + 50)
        if number % 13 == 5:
            annotation["bbox"] = [x, y, w, 0.0]
    return coco, detections


def from_quirky() -> tuple[dict[str, Any], Detections]:
    """The dozen odd images, with boxes near the objects and some anywhere."""
    coco = quirky_coco.content()
    generator = torch.Generator().manual_seed(1)
    labels = {category: label for label, category in enumerate(quirky_coco.CATEGORIES, start=1)}
    detections = []
    for image in coco["images"]:
        own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        xywh = torch.tensor([a["bbox"] for a in own] + [[5.0, 5.0, 20.0, 30.0]])
        near = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
        near += torch.randn(near.shape, generator=generator)
        detections.append(
            {
                "image_id": image["id"],
                "boxes": near,
                "scores": torch.rand(len(near), generator=generator),
                "labels": torch.tensor([labels[a["category_id"]] for a in own] + [4]),
            }
        )
    return coco, detections


def by_pycocotools(annotations: Path, results: Path) -> COCOeval:
    """The demo of pycocotools, word for word, with its own parameters."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluator = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def assert_same(metrics: dict[str, Any], evaluator: COCOeval) -> None:
    for position, name in STATS.items():
        expected = evaluator.stats[position]
        assert metrics[name] == (pytest.approx(100 * expected, abs=1e-9) if expected > -1 else None), name


def percent(values: np.ndarray) -> float | None:
    defined = values[values > -1]
    return 100 * defined.mean() if defined.size else None


@pytest.mark.parametrize("sample", ["seed 0", "seed 1", "quirky"])
def test_metrics_of_the_file_are_those_of_pycocotools(sample: str, tmp_path: Path) -> None:
    coco, detections = from_quirky() if sample == "quirky" else with_quirks(int(sample[-1]))
    data = written(tmp_path, coco)
    assert data.clipped and data.dropped  # as training sees them
    results = GroundTruth.of(data).write_results(tmp_path / "results.json", detections)
    metrics = evaluate(detections, data)
    assert sample == "quirky" or None not in [metrics[name] for name in STATS.values()]
    evaluator = by_pycocotools(tmp_path / "ann.json", results)
    assert metrics["AP"] > 5 and metrics["AP50"] < 100
    assert_same(metrics, evaluator)
    precision = evaluator.eval["precision"]
    for index, name in {2: "AP60", 4: "AP70", 6: "AP80", 8: "AP90"}.items():
        assert metrics[name] == pytest.approx(percent(precision[index, :, :, 0, 2]), abs=1e-9), name
    names = {category["id"]: category["name"] for category in coco["categories"]}
    for k, category in enumerate(evaluator.params.catIds):
        expected = percent(precision[:, :, k, 0, 2])
        assert metrics["per_class"][names[category]] == (expected and pytest.approx(expected, abs=1e-9))
    # The annotation file itself is the same ground truth as the data set opened from it.
    assert evaluate(detections, tmp_path / "ann.json") == metrics


def test_content_of_the_file(tmp_path: Path) -> None:
    coco, detections = make(images=6)
    path = GroundTruth.of(coco).write_results(tmp_path / "new" / "results.json", detections)
    content = json.loads(path.read_text())
    assert len(content) == sum(len(detection["boxes"]) for detection in detections)
    first, detection = content[0], detections[0]
    x1, y1, x2, y2 = detection["boxes"][0].double().tolist()
    assert first == {
        "image_id": detection["image_id"],
        "category_id": CATEGORY_IDS[detection["labels"][0] - 1],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": float(detection["scores"][0]),
    }
    assert list(path.parent.iterdir()) == [path]


def test_scores_that_json_does_not_know(tmp_path: Path) -> None:
    """The official conventions leave NaN scores, which rank last; COCO's server wants numbers."""
    coco, detections = with_quirks(0)
    for detection in detections:
        detection["scores"][1::4] = torch.nan
    data = written(tmp_path, coco)
    results = GroundTruth.of(data).write_results(tmp_path / "results.json", detections)
    assert "NaN" not in results.read_text()
    assert_same(evaluate(detections, data), by_pycocotools(tmp_path / "ann.json", results))


def test_mistakes_leave_no_file(tmp_path: Path) -> None:
    coco, detections = make(images=6)
    truth, path = GroundTruth.of(coco), tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(UserError, match="no category"):
        truth.write_results(path, [{**detections[0], "labels": detections[0]["labels"] + 9}])
    assert path.read_text() == "old"
    with pytest.raises(UserError, match="cannot be written"):
        truth.write_results(path / "below" / "results.json", detections)
